"""What the report says of snapshots, by hand: means with intervals, and whether reward and judge part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stage_fixtures import write_lines

from alignment.errors import UserError
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import load_recipe, save_recipe
from stages.evaluate.training_curve import curves

JUDGE = "gold judge"


def line(update: int, prompt: str, score: float, guard: float | None = None, **other: Any) -> dict[str, Any]:
    """One answer of a snapshot; prompts whose name begins with s are tagged safety."""
    asked = {
        "id": prompt,
        "messages": [{"role": "user", "content": prompt}],
        "dimension": "safety" if prompt.startswith("s") else "helpfulness",
        "kind": "helpfulness",
    }
    return {"update": update, "prompt": asked, "answer": "yes", "kl_nats": 1.0, "score": score, "guard": guard, **other}


def run_with(tmp_path: Path, rows: list[dict[str, Any]]) -> RunFolder:
    folder = tmp_path / "run" / "round-1" / "ppo"
    folder.mkdir(parents=True)
    write_lines(folder / "heldout_samples.jsonl", rows)
    metrics = {"objective/score": 0.5, "objective/kl": 0.2, "rollout/length": 9, "rollout/stop_rate": 1}
    (folder / "metrics.jsonl").write_text(json.dumps({"update": 10, **metrics, "objective/beta": 0.1}) + "\n")
    return RunFolder(tmp_path / "run")


def test_each_snapshot_has_its_mean_and_the_interval_over_prompts(tmp_path: Path) -> None:
    """Of two prompts with 0 and 1, resamples have means of 0, 1/2 and 1; of two equal ones, one mean."""
    rows = [line(0, "a", 0.0), line(0, "b", 1.0), line(10, "a", 3.0, kl_nats=2.0), line(10, "b", 3.0, kl_nats=6.0)]
    found = curves(run_with(tmp_path, rows), 1, verdicts={}, judge=None, seed=0, temperature=1.0)
    before, after = found["ppo"]
    assert (before["update"], before["heldout_reward"], before["heldout_reward_ci95"]) == (0, 0.5, [0.0, 1.0])
    assert (after["update"], after["heldout_reward"], after["heldout_reward_ci95"]) == (10, 3.0, [3.0, 3.0])
    assert (after["heldout_kl_nats"], after["heldout_kl_ci95"], after["reward"]) == (4.0, [2.0, 6.0], 0.5)
    assert after["gold_helpfulness"] is None and after["gold_helpfulness_ci95"] is None
    assert found["parting"] is None, "there is neither judge nor guard"


def test_the_judge_is_paired_with_the_reward_on_the_prompts_that_it_counts(tmp_path: Path) -> None:
    """Reward +1, +2, +1, +2 and verdicts -0.1, -0.2, -0.1, -0.2; what happens to the safety prompt is no matter."""
    names = ("a", "b", "c", "d")
    rows = [line(0, name, 0.0) for name in names] + [line(0, "s", 0.0)]
    rows += [line(10, name, 1.0 + number % 2) for number, name in enumerate(names)] + [line(10, "s", -50.0)]
    verdicts = {0: [0.5] * 4 + [None], 10: [0.4, 0.3, 0.4, 0.3, None]}
    found = curves(run_with(tmp_path, rows), 1, verdicts=verdicts, judge=JUDGE, seed=0, temperature=1.0)
    parting = found["parting"]
    assert (parting["judge"], parting["best_update"], parting["last_update"]) == (JUDGE, 0, 10)
    assert parting["reward_change"]["value"] == pytest.approx(1.5)
    assert parting["reward_change"]["ci95"] == pytest.approx([0.5813, 2.4187], abs=1e-3)
    assert parting["judge_change"]["ci95"] == pytest.approx([-0.24187, -0.05813], abs=1e-4)
    assert parting["judge_change"]["n"] == 4 and parting["is_overoptimization"]
    assert found["ppo"][1]["gold_helpfulness"] == pytest.approx(0.35)


def test_without_a_judge_the_guard_is_asked(tmp_path: Path) -> None:
    rows = [line(update, name, update * 1.0, guard) for update, guard in ((0, 1.0), (10, 1.5)) for name in "ab"]
    rows += [line(20, "a", 20.0, 0.0), line(20, "b", 20.0, 2.9)]
    parting = curves(run_with(tmp_path, rows), 1, verdicts={}, judge=None, seed=0, temperature=1.0)["parting"]
    assert (parting["judge"], parting["best_update"], parting["last_update"]) == ("guard", 10, 20)
    assert parting["judge_change"]["value"] == pytest.approx(-0.05)
    assert not parting["is_overoptimization"]


def test_snapshots_of_other_prompts_are_not_compared(tmp_path: Path) -> None:
    folder = run_with(tmp_path, [line(0, "a", 0.0), line(10, "b", 1.0)])
    with pytest.raises(UserError, match=r"heldout_samples\.jsonl: its updates do not answer the same prompts"):
        curves(folder, 1, verdicts={}, judge=None, seed=0, temperature=1.0)


@pytest.mark.parametrize(("temperature", "said"), [(1.0, []), (0.7, ["temperature 1, the other answers at 0.7"])])
def test_snapshots_of_another_temperature_than_the_other_answers_are_told(
    temperature: float, said: list[str], tmp_path: Path
) -> None:
    folder = run_with(tmp_path, [line(0, "a", 0.0)])
    ppo = folder.stage("ppo", 1)
    save_recipe(load_recipe(None, ["evaluate.sampling.temperature=1"]), ppo / "config.yaml")
    (ppo / "result.json").write_text('{"said": ["a finding"]}')
    notes = curves(folder, 1, verdicts={}, judge=None, seed=0, temperature=temperature)["notes"]
    assert notes == ["a finding", *(f"snapshots were drawn at {end}" for end in said)]
