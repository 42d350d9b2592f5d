"""The whole chain, reduced: every artefact, resumption, rounds, and the same figures from the same seed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from stage_fixtures import REDUCED, ROOT, outcome, reduced_recipe

from alignment.data.jsonl_and_raw_rows import read_jsonl
from alignment.data.records import Comparison
from alignment.data.splits import dialogue_key
from alignment.errors import UserError
from alignment.files import read_json
from alignment.report.run_report_schema import validate_report
from alignment.rl.rejection import Winner
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import load_recipe
from stages.annotate import collect as annotate
from stages.base import write_base_model as base
from stages.evaluate import judge_policies as evaluate
from stages.pipeline import run_stages
from stages.ppo import train_policy as ppo
from stages.reward import train_reward_models
from stages.sft import finetune

pytestmark = pytest.mark.integration

STAGE_FOLDERS = [
    "base",
    "sft",
    "round-1/annotate",
    "round-1/reward",
    "round-1/rejection",
    "round-1/ppo",
    "round-1/eval",
]


@pytest.fixture(scope="module")
def finished(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished pipeline."""
    run = tmp_path_factory.mktemp("runs") / "pipeline"
    run_stages.run(reduced_recipe(files, run))
    return run


VARYING = ("timings_s", "peak_memory_gib", "memory_gib", "name", "command")
"""Keys of a report that differ between two runs of one recipe."""


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for the same seed: all but timings and where the run lies."""
    return {key: value for key, value in report.items() if key not in VARYING}


def metric_lines(run: Path, stage: str) -> list[dict[str, Any]]:
    """Metrics of each update or step, times aside."""
    rows = [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time/seconds"} for row in rows]


def test_every_stage_leaves_what_the_run_folder_promises(finished: Path) -> None:
    for stage in STAGE_FOLDERS:
        for name in ("config.yaml", "env.json", "result.json"):
            assert (finished / stage / name).is_file(), f"{stage}/{name}"
        load_recipe(str(finished / stage / "config.yaml"))
    for stage in ("base", "sft", "round-1/reward", "round-1/rejection", "round-1/ppo"):
        assert metric_lines(finished, stage), stage
    wanted = [
        "base/model.safetensors",
        "base/tokenizer.json",
        "sft/model.safetensors",
        "sft/adapter/adapter_model.safetensors",
        "round-1/annotate/comparisons.jsonl",
        "round-1/annotate/heldout_comparisons.jsonl",
        "round-1/reward/helpfulness/head.safetensors",
        "round-1/reward/safety/reward_model.json",
        "round-1/rejection/winners.jsonl",
        "round-1/rejection/adapter_model.safetensors",
        "round-1/ppo/adapter_model.safetensors",
        "round-1/ppo/heldout_samples.jsonl",
        "round-1/eval/answers.jsonl",
        "report.json",
        "report.html",
        "policy.json",
    ]
    assert [name for name in wanted if not (finished / name).is_file()] == []
    assert list(finished.rglob("*.tmp")) == []
    assert list(finished.rglob("*.bin")) + list(finished.rglob("*.pkl")) + list(finished.rglob("*.pt")) == []


def test_the_ledger_chains_the_stages_in_order(finished: Path, files: dict[str, str]) -> None:
    lines = [json.loads(line) for line in (finished / "ledger.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == STAGE_FOLDERS
    outputs = {line["stage"]: line["output"] for line in lines}
    annotated = next(line for line in lines if line["stage"] == "round-1/annotate")
    assert annotated["inputs"].keys() == {str(finished / "sft"), files["prompts"], files["heldout_prompts"]}
    assert all(outputs.values())


def test_the_report_is_as_documented_and_about_every_policy(finished: Path, files: dict[str, str]) -> None:
    report = read_json(finished / "report.json")
    validate_report(report)
    assert list(report["policies"]) == ["base", "ppo", "rejection", "sft"]
    points = {point["update"]: point for point in report["curves"]["ppo"]}
    assert list(points) == [0, 1, 2]
    assert [update for update, point in points.items() if point["reward"] is None] == [0]
    assert [update for update, point in points.items() if point["heldout_kl_nats"] is not None] == [0, 2]
    n_heldout = len(Path(files["heldout_prompts"]).read_text().splitlines())
    for block in report["policies"].values():
        assert block["n_prompts"] == n_heldout
        for key in ("helpfulness", "violation_rate", "false_refusal_rate", "kl_to_sft_nats", "stop_rate"):
            low, high = block[key]["ci95"]
            assert low <= block[key]["value"] <= high
    assert report["policies"]["sft"]["kl_to_sft_nats"]["value"] == pytest.approx(0, abs=1e-4)
    assert report["policies"]["ppo"]["kl_to_sft_nats"]["value"] != 0
    assert len(report["samples"]) == 4
    timings = report["timings_s"]
    parts = ["base", "sft", "annotate", "reward", "rejection", "ppo", "evaluate"]
    assert timings["total"] == pytest.approx(sum(timings[part] for part in parts), abs=0.05)
    page = (finished / "report.html").read_text()
    assert "<svg" in page
    assert "src=" not in page


def test_training_comparisons_hold_no_heldout_prompt(finished: Path) -> None:
    folder = finished / "round-1" / "annotate"
    train, _ = read_jsonl(folder / "comparisons.jsonl", Comparison)
    heldout, _ = read_jsonl(folder / "heldout_comparisons.jsonl", Comparison)
    keys = [{dialogue_key(item.prompt) for item in part} for part in (train, heldout)]
    assert keys[0] and keys[1]
    assert not keys[0] & keys[1]
    assert {item.dimension for item in train} == {"helpfulness", "safety"}
    assert all(item.safety is not None for item in train if item.dimension == "safety")


def test_heldout_pairs_alone_are_compared_by_several_annotators(finished: Path) -> None:
    folder, settings = finished / "round-1" / "annotate", REDUCED["annotate"]
    assert settings["heldout_overlap"] == 2
    groups: dict[str, dict[tuple[str, int], list[Comparison]]] = {"comparisons": {}, "heldout_comparisons": {}}
    for name, overlap in (("comparisons", 1), ("heldout_comparisons", 2)):
        for item in read_jsonl(folder / f"{name}.jsonl", Comparison)[0]:
            pair = int(item.id.rsplit("-", 1)[1]) // overlap
            groups[name].setdefault((item.dimension, pair), []).append(item)
    assert {len(items) for items in groups["comparisons"].values()} == {1}
    for (dimension, pair), items in groups["heldout_comparisons"].items():
        assert pair < settings[f"heldout_{dimension}_pairs"]
        assert len({item.annotator_id for item in items}) == 2
        assert len({frozenset((item.chosen_text, item.rejected_text)) for item in items}) == 1


def test_ppo_moves_its_adapter_away_from_where_it_started(finished: Path) -> None:
    before = load_file(str(finished / "round-1" / "rejection" / "adapter_model.safetensors"))
    after = load_file(str(finished / "round-1" / "ppo" / "adapter_model.safetensors"))
    assert before.keys() == after.keys()
    assert all(not before[key].equal(after[key]) for key in before)
    lines = metric_lines(finished, "round-1/ppo")
    assert [line["update"] for line in lines] == [1, 2]
    assert lines[0]["objective/kl"] == pytest.approx(0, abs=1e-4)


def test_started_again_it_keeps_what_is_finished(
    finished: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    before.pop(finished / ".hashes.json")
    code, shown = outcome(lambda: run_stages.run(reduced_recipe(files, finished)), capsys)
    assert code == 0
    assert [line for line in shown.splitlines() if line] == [
        f"{finished / stage}: already finished" for stage in STAGE_FOLDERS
    ]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_started_again_with_other_settings_it_names_them(
    finished: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = reduced_recipe(files, finished, "ppo.kl_beta=0.3")
    code, shown = outcome(lambda: run_stages.run(recipe), capsys)
    assert code == 2
    assert "ppo.kl_beta" in shown
    assert "overwrite=true" in shown


def test_it_ends_with_the_table_and_the_path(
    finished: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_stages.run(reduced_recipe(files, finished))
    shown = capsys.readouterr().out
    for name in ("Base", "SFT", "Rejection", "PPO"):
        assert any(line.startswith(name) for line in shown.splitlines())
    assert "…" not in shown
    assert shown.splitlines()[-1] == f"report: {finished / 'report.html'}"


def test_stages_one_at_a_time_give_the_numbers_of_the_pipeline(
    finished: Path, files: dict[str, str], tmp_path: Path
) -> None:
    recipe = reduced_recipe(files, tmp_path / "run")
    for stage in (base, finetune, annotate, train_reward_models, ppo, evaluate):
        stage.run(recipe)
    assert figures(read_json(tmp_path / "run" / "report.json")) == figures(read_json(finished / "report.json"))
    assert metric_lines(tmp_path / "run", "round-1/ppo") == metric_lines(finished, "round-1/ppo")


def test_a_run_stopped_between_rejection_and_ppo_goes_on(finished: Path, files: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "round-1" / "eval")
    (run / "round-1" / "ppo" / "result.json").unlink()
    winners = (run / "round-1" / "rejection" / "winners.jsonl").stat().st_mtime_ns
    ppo.run(reduced_recipe(files, run))
    assert (run / "round-1" / "rejection" / "winners.jsonl").stat().st_mtime_ns == winners
    run_stages.run(reduced_recipe(files, run))
    assert figures(read_json(run / "report.json")) == figures(read_json(finished / "report.json"))


def test_a_stage_run_again_starts_from_the_same_policy(finished: Path, files: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    ppo.run(reduced_recipe(files, run, "overwrite=true", "ppo.method=rejection"))
    again, _ = read_jsonl(run / "round-1" / "rejection" / "winners.jsonl", Winner)
    assert again == read_jsonl(finished / "round-1" / "rejection" / "winners.jsonl", Winner)[0]


@pytest.fixture
def rewarded(finished: Path, tmp_path: Path) -> Path:
    """A run that is finished up to the reward models."""
    run = tmp_path / "rewarded"
    shutil.copytree(finished, run)
    for stage in ("rejection", "ppo", "eval"):
        shutil.rmtree(run / "round-1" / stage)
    RunFolder(run).set_policy("sft")
    return run


@pytest.mark.parametrize(("method", "other"), [("rejection", "ppo"), ("ppo", "rejection")])
def test_either_method_alone(method: str, other: str, rewarded: Path, files: dict[str, str]) -> None:
    report = run_stages.run(reduced_recipe(files, rewarded, f"ppo.method={method}"))
    assert set(report["policies"]) == {"base", "sft", method}
    assert not (rewarded / "round-1" / other).exists()
    assert RunFolder(rewarded).policy["stage"] == method
    assert report["timings_s"][other] is None


def test_ppo_with_a_value_adapter(rewarded: Path, files: dict[str, str]) -> None:
    recipe = reduced_recipe(files, rewarded, "ppo.method=ppo", "ppo.value=adapter", "model.sampling_copy=false")
    ppo.run(recipe)
    lines = metric_lines(rewarded, "round-1/ppo")
    assert all(line["value/grad_norm"] > 0 and line["policy/grad_norm"] > 0 for line in lines)


@pytest.mark.parametrize("value", ["head", "model"])
def test_ppo_of_all_weights_is_judged_like_any_other(value: str, rewarded: Path, files: dict[str, str]) -> None:
    recipe = reduced_recipe(files, rewarded, "ppo.method=ppo", "ppo.train=full", f"ppo.value={value}")
    report = run_stages.run(recipe)
    assert (rewarded / "round-1" / "ppo" / "model.safetensors").is_file()
    assert report["policies"]["ppo"]["kl_to_sft_nats"]["value"] is not None
    own = load_file(str(rewarded / "round-1" / "ppo" / "model.safetensors"))
    start = load_file(str(rewarded / "sft" / "model.safetensors"))
    assert any(not own[key].equal(start[key]) for key in start)


def test_helpfulness_alone_can_pay(rewarded: Path, files: dict[str, str]) -> None:
    helpfulness = rewarded / "round-1" / "reward" / "helpfulness"
    run_stages.run(
        reduced_recipe(
            files,
            rewarded,
            f"ppo.reward_models.helpfulness=[{helpfulness},{helpfulness}]",
            "ppo.reward_models.safety=[]",
        )
    )
    for line in metric_lines(rewarded, "round-1/ppo"):
        assert line["objective/score"] == pytest.approx(line["objective/helpfulness"])
        assert line["objective/routed_to_safety"] == 0
        assert "objective/safety" not in line


def test_a_guard_sees_other_conversations_and_is_in_the_report(files: dict[str, str], tmp_path: Path) -> None:
    recipe = reduced_recipe(
        files, tmp_path / "run", "reward.guard_share=0.5", "ppo.keep=best", "annotate.safety_pairs=60"
    )
    report = run_stages.run(recipe)
    results = RunFolder(tmp_path / "run").result("reward", 1)["models"]
    assert set(results) == {"helpfulness", "safety", "guard"}
    comparisons, _ = read_jsonl(tmp_path / "run" / "round-1" / "annotate" / "comparisons.jsonl", Comparison)
    assert results["guard"]["n_train"] + results["helpfulness"]["n_train"] < len(comparisons)
    kept = results["helpfulness"]["left_out"]["kept for the guard"]
    assert kept + results["helpfulness"]["n_train"] == sum(item.dimension == "helpfulness" for item in comparisons)
    guarded = [point["heldout_guard"] for point in report["curves"]["ppo"] if point.get("heldout_guard") is not None]
    assert len(guarded) == 2
    assert "guard" not in report["reward_models"]
    assert RunFolder(tmp_path / "run").result("ppo", 1)["policy"].startswith("the best snapshot")


def test_two_rounds_use_all_comparisons_and_the_pool(finished: Path, files: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    report = run_stages.run(reduced_recipe(files, run, "rounds=2"))
    assert report["rounds"] == 2
    rounds = [read_json(run / f"round-{number}" / "reward" / "result.json")["models"] for number in (1, 2)]
    assert rounds[1]["helpfulness"]["n_train"] > rounds[0]["helpfulness"]["n_train"]
    second, _ = read_jsonl(run / "round-2" / "annotate" / "comparisons.jsonl", Comparison)
    assert {item.chosen_source.variant.partition("@")[0] for item in second if item.chosen_source} == {"ppo-1"}
    winners, _ = read_jsonl(run / "round-2" / "rejection" / "winners.jsonl", Winner)
    assert {winner.round for winner in winners} <= {1, 2}
    assert len(winners) > 6
    assert RunFolder(run).policy == {"stage": "ppo", "round": 2, "folder": "round-2/ppo"}


def test_ppo_after_the_rejection_policy_was_judged_is_judged_too(rewarded: Path, files: dict[str, str]) -> None:
    assert "ppo" not in run_stages.run(reduced_recipe(files, rewarded, "ppo.method=rejection"))["policies"]
    assert "ppo" in run_stages.run(reduced_recipe(files, rewarded))["policies"]


def test_a_policy_made_without_rejection_sampling_is_not_taken_for_one_made_with_it(
    rewarded: Path, files: dict[str, str]
) -> None:
    run_stages.run(reduced_recipe(files, rewarded, "ppo.method=ppo"))
    with pytest.raises(UserError, match="ppo was made before the present round-1/rejection"):
        run_stages.run(reduced_recipe(files, rewarded))


def test_every_metric_of_ppo_is_explained(finished: Path) -> None:
    page = (ROOT / "docs" / "ppo.md").read_text(encoding="utf-8")
    logged = {key for line in metric_lines(finished, "round-1/ppo") for key in line} | {"time/seconds"}
    glossary = page.partition("## Metrics")[2].partition("\n## ")[0]
    explained = {key for key in re.findall(r"`([a-z]+(?:/[a-z0-9_]+)?)`", glossary) if "/" in key or key == "update"}
    only_of_heads_with_several_opinions = {"objective/helpfulness_disagreement", "objective/safety_disagreement"}
    assert explained == logged | only_of_heads_with_several_opinions


def test_another_seed_trains_another_model(finished: Path, files: dict[str, str], tmp_path: Path) -> None:
    recipe = reduced_recipe(files, tmp_path / "run", "seed=1")
    base.run(recipe)
    other = load_file(str(tmp_path / "run" / "base" / "model.safetensors"))
    own = load_file(str(finished / "base" / "model.safetensors"))
    assert all(not other[key].equal(own[key]) for key in own if "norm" not in key)
