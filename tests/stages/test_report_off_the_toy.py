"""The report of a run on own data with one reward model and no judge: it shows what was measured."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from html_outline import outline
from stage_fixtures import REDUCED, own_data, reduced_data

from alignment.files import read_json
from alignment.run.run_folder import RunFolder
from stages.base.__main__ import main as base
from stages.evaluate.__main__ import main as evaluate
from stages.evaluate.printed_summary import show
from stages.ppo.__main__ import main as ppo
from stages.reward.__main__ import main as reward
from stages.sft.__main__ import main as sft

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a run, evaluated with two answers to each prompt."""
    folder = tmp_path_factory.mktemp("off the toy")
    own = own_data(folder / "own")
    (folder / "toy").mkdir()
    corpus = {"corpus": reduced_data(folder / "toy")["pretraining"]}
    reduced: dict[str, Any] = {"base": {**REDUCED["base"], **corpus}, "rejection": REDUCED["rejection"]}  # type: ignore[dict-item]
    reduced["ppo"] = REDUCED["ppo"]
    small = [f"{name}.{key}={json.dumps(value)}" for name, part in reduced.items() for key, value in part.items()]
    where = f"run_dir={folder / 'run'}"
    prompts = [f"data.{name}={own[name]}" for name in ("prompts", "selection_prompts", "heldout_prompts")]
    assert base(["--config", "configs/smoke.yaml", where, *small, *prompts, "evaluate.judge=none"]) == 0
    assert sft([where, f"sft.data={own['demonstrations']}"]) == 0
    pairs = [f"reward.helpfulness.data={own['pairs']}", "reward.models=[helpfulness]"]
    assert reward([where, *pairs]) == 0
    assert ppo([where, "ppo.reward_models.safety=[]"]) == 0
    assert evaluate([where, "evaluate.answers_per_prompt=2"]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def report(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(run / "report.json")
    return found


def scores(run: Path) -> dict[str, list[float]]:
    """Policy -> helpfulness scores of its answers, as they lie in the run."""
    found: dict[str, list[float]] = defaultdict(list)
    for line in (run / "round-1" / "eval" / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found[row["policy"]].append(row["reward_helpfulness"])
    return found


def test_the_only_reward_models_scores_stand_there_with_intervals(run: Path, report: dict[str, Any]) -> None:
    own = scores(run)
    for name in ("base", "sft", "rejection", "ppo"):
        figure = report["policies"][name]["reward_helpfulness"]
        assert figure["value"] == pytest.approx(sum(own[name]) / 8) and figure["n"] == 8
        assert figure["ci95"][0] < figure["value"] < figure["ci95"][1]
        assert report["policies"][name]["reward_safety"] is None
    less = report["policies"]["ppo"]["less_sft"]["reward_helpfulness"]
    assert less["value"] == pytest.approx((sum(own["ppo"]) - sum(own["sft"])) / 8) and less["n"] == 8


def test_the_only_reward_model_decides_the_win_rates(run: Path, report: dict[str, Any]) -> None:
    own = scores(run)
    [rate] = [item for item in report["win_rates"] if (item["policy"], item["against"]) == ("ppo", "sft")]
    assert rate["judge"] == "helpfulness reward model"
    wins = [(a > b) + (a == b) / 2 for a, b in zip(own["ppo"], own["sft"], strict=True)]
    assert rate["win_rate"] == pytest.approx(sum(wins) / 8)


def test_the_terminal_shows_them_in_80_columns(
    run: Path, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show(report, RunFolder(run))
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert "…" not in said and all(len(line) <= 80 for line in lines[:-1])
    scores_from = next(place for place, line in enumerate(lines) if line.startswith("scores of the reward models"))
    rows = [line for line in lines[scores_from:] if line.split()[1:2] == ["helpfulness"]]
    assert [line.split()[0] for line in rows] == ["Base", "SFT", "Rejection", "PPO"]
    value = f"{sum(scores(run)['ppo']) / 8:.2f}".replace("-", "\N{MINUS SIGN}")
    assert f" {value} (" in rows[3] and rows[3].count(" to ") == 2
    assert "violations" not in said and "4 held-out prompts, 8 answers a policy; no judge" in said


def test_the_page_says_what_it_was_made_from(run: Path, report: dict[str, Any]) -> None:
    blocks = {block["stage"]: block for block in report["data"]}
    assert blocks["sft"]["used"] == {"demonstrations": 8}
    trained = blocks["round-1/reward (helpfulness)"]["used"]
    assert trained["comparisons to train on"] + trained["held-out comparisons"] == 20
    assert blocks["round-1/rejection"]["used"]["prompts"] == blocks["round-1/ppo"]["used"]["prompts"] == 8
    assert blocks["round-1/ppo"]["used"]["selection prompts"] == 4
    assert blocks["round-1/eval"]["used"] == {"held-out prompts": 4, "answers": 32}
    assert [file["name"] for file in blocks["round-1/eval"]["files"]] == ["heldout_prompts.jsonl"]
    assert report["recipe"]["name"] == "configs/smoke.yaml" and report["recipe"]["typed"]["ppo.updates"] == "2"
    for link in report["links"]:
        assert (run / link["path"]).is_file(), link
    page = (run / "report.html").read_text(encoding="utf-8")
    shown = " ".join("".join(outline(page).data).split())
    assert "each answered the same 4 held-out prompts, 8 answers a policy" in shown
    assert page.count(str(run.parent)) == page.count(report["command"]) * report["command"].count(str(run.parent))
