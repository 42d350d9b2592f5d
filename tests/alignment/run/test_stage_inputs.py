"""A stage is out of date by the files that it reads: what decides figures alone makes nothing to be trained again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.files import read_json, write_json
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import load_recipe
from alignment.settings.recipe import Recipe


def recipe(*overrides: str) -> Recipe:
    return load_recipe(None, overrides)


def make(folder: RunFolder, name: str, number: int | None, files: Mapping[str, str]) -> None:
    """Make a stage that leaves these files, again if need be."""
    stage = folder.begin(name, recipe("overwrite=true"), number)
    for place, text in files.items():
        (stage.folder / place).parent.mkdir(exist_ok=True)
        (stage.folder / place).write_text(text)
    folder.finish(stage, {}, inputs=[])


PAIRS = {"comparisons.jsonl": "trained on", "heldout_comparisons.jsonl": "measured on"}


@pytest.fixture
def chain(tmp_path: Path) -> RunFolder:
    """A run up to PPO."""
    folder = RunFolder(tmp_path)
    make(folder, "sft", None, {"model.safetensors": "sft"})
    make(folder, "annotate", 1, PAIRS)
    make(folder, "reward", 1, {"safety/adapter.safetensors": "weights", "safety/result.json": "figures"})
    make(folder, "ppo", 1, {"adapter.safetensors": "policy"})
    return folder


def test_other_held_out_pairs_leave_weights_as_they_are(chain: RunFolder) -> None:
    make(chain, "annotate", 1, {**PAIRS, "heldout_comparisons.jsonl": "others"})
    assert chain.changed_inputs("reward", 1) == []
    assert chain.has_stale_figures("reward", 1) and not chain.has_stale_figures("annotate", 1)
    assert not chain.kept("reward", 1, recipe()), "it is to be measured again"
    chain.require("reward", 1)
    with pytest.raises(
        UserError, match=r"was measured before the present round-1/annotate\. Measure it again: .*reward"
    ):
        chain.require("reward", 1, with_figures=True)


def test_other_training_pairs_do_not(chain: RunFolder) -> None:
    make(chain, "annotate", 1, {**PAIRS, "comparisons.jsonl": "others"})
    assert chain.changed_inputs("reward", 1) == ["round-1/annotate"]
    assert not chain.has_stale_figures("reward", 1)


def test_other_figures_of_reward_models_leave_the_policy_as_it_is(chain: RunFolder) -> None:
    make(chain, "reward", 1, {"safety/adapter.safetensors": "weights", "safety/result.json": "other figures"})
    assert chain.changed_inputs("ppo", 1) == []
    make(chain, "reward", 1, {"safety/adapter.safetensors": "others", "safety/result.json": "other figures"})
    assert chain.changed_inputs("ppo", 1) == ["round-1/reward"]


def test_a_run_of_a_version_that_knew_whole_stages_only_goes_on(chain: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "round-1" / "reward" / "result.json"
    outputs = {stage: read_json(tmp_path / stage / "result.json")["output"] for stage in ("sft", "round-1/annotate")}
    result = {key: value for key, value in read_json(file).items() if key != "measured_on"}
    write_json(file, {**result, "made_from": outputs})
    assert chain.inputs.changed_stages("round-1/reward") == []
    assert not chain.has_stale_figures("reward", 1)
    make(chain, "annotate", 1, {**PAIRS, "heldout_comparisons.jsonl": "others"})
    assert chain.inputs.changed_stages("round-1/reward") == ["round-1/annotate"], "by file, it is not known"


def test_a_half_done_stage_goes_on_with_other_held_out_pairs(chain: RunFolder, tmp_path: Path) -> None:
    annotate = tmp_path / "round-1" / "annotate"
    inputs = [annotate / name for name in PAIRS]
    begun = chain.inputs.begun_with("round-1/reward", inputs)
    assert chain.inputs.changed_since("round-1/reward", begun, inputs) == []
    make(chain, "annotate", 1, {**PAIRS, "heldout_comparisons.jsonl": "others"})
    assert chain.inputs.changed_since("round-1/reward", begun, inputs) == []
    make(chain, "annotate", 1, {**PAIRS, "comparisons.jsonl": "others"})
    changed = chain.inputs.changed_since("round-1/reward", begun, inputs)
    assert changed == ["round-1/annotate", "round-1/annotate/comparisons.jsonl"]


def test_an_outside_file_that_was_measured_on_is_told_from_the_others(tmp_path: Path) -> None:
    trained, measured = tmp_path / "trained.jsonl", tmp_path / "measured.jsonl"
    for file in (trained, measured):
        file.write_text("one\n")
    folder = RunFolder(tmp_path / "run")
    make(folder, "sft", None, {"model.safetensors": "sft"})
    stage = folder.begin("annotate", recipe(), 1)
    folder.finish(stage, {}, inputs=[trained, measured], measured_on=[measured])
    measured.write_text("two\n")
    assert folder.changed_inputs("annotate", 1) == []
    assert folder.inputs.changed_measurements("round-1/annotate") == [str(measured)]
    trained.write_text("two\n")
    assert folder.changed_inputs("annotate", 1) == [str(trained)]
    assert not folder.has_stale_figures("annotate", 1), "it has to be made again, not measured"


def test_what_is_measured_again_keeps_time_and_memory_of_the_making(chain: RunFolder, tmp_path: Path) -> None:
    file = tmp_path / "round-1" / "reward" / "result.json"
    made = {**read_json(file), "seconds": 1234.5, "peak_memory_gib": 67.8}
    write_json(file, made)
    stage = chain.begin_measuring("reward", recipe(), 1)
    assert not (stage.folder / "result.json").exists() and stage.folder.name == "reward.measured"
    assert (stage.folder / "safety" / "result.json").read_text() == "figures"
    assert read_json(file) == made, "the finished one stays until it is measured"
    result = chain.finish(stage, {"models": {}}, inputs=[])
    assert (result["seconds"], result["peak_memory_gib"]) == (1234.5, 67.8)
    last = json.loads((tmp_path / "ledger.jsonl").read_text().splitlines()[-1])
    assert last["stage"] == "round-1/reward" and last["seconds"] < 1234.5
    assert not stage.folder.with_name("reward.measured").exists()
    assert chain.manifests.edited("round-1/reward") == []


def test_a_kill_between_the_last_file_and_the_change_of_places_is_settled(chain: RunFolder, tmp_path: Path) -> None:
    stage = chain.begin_measuring("reward", recipe(), 1)
    (stage.folder / "result.json").write_text('{"models": "measured"}')
    with chain.lock():
        pass
    assert read_json(tmp_path / "round-1" / "reward" / "result.json") == {"models": "measured"}
