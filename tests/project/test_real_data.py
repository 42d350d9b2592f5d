"""Files that this project did not write, from ``../shared/real_data``; skipped where that folder is absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stage_fixtures import ROOT, own_data, own_model, reduced_recipe

from alignment.data.readers import load_comparisons
from alignment.data.splits import first_turn_key, split_by_conversation
from alignment.files import read_json
from alignment.settings.read_recipe import load_recipe
from alignment.settings.recipe import Recipe
from stages.reward import train_reward_models
from stages.sft import finetune

DATA = ROOT.parent / "shared" / "real_data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the real data in {DATA}")
DEMONSTRATIONS = (
    "alpaca_format_instructions.json",
    "alpaca_format_preferences.json",
    "hh_harmless_base.jsonl.gz",
    "alpaca_eval_weighted.jsonl.gz",
)
PAIRS = {
    "alpaca_format_preferences.json": ("helpfulness", 1100),
    "hh_harmless_base.jsonl.gz": ("safety", 1500),
    "alpaca_eval_weighted.jsonl.gz": ("helpfulness", 1516),
}
"""File -> dimension, rows."""


def small_run(folder: Path, *overrides: str) -> Recipe:
    """A recipe over a tiny model: rows that do not fit its limit of 384 tokens are skipped and counted."""
    if not (folder / "model").exists():
        own_model(folder / "model")
    files = {**own_data(folder / "data"), "pretraining": "none"}
    settings = [
        f"model.name_or_path={folder / 'model'}",
        "model.sampling_copy=false",
        "data.on_error=skip",
        "data.too_long=skip",
        "sft.batch_size_dialogues=64",
        "sft.micro_batch_size_dialogues=64",
        "sft.max_length_tokens=384",
        "reward.helpfulness.max_length_tokens=384",
        "reward.safety.max_length_tokens=384",
        "reward.helpfulness.batch_size_pairs=64",
        "reward.helpfulness.micro_batch_size_pairs=64",
        "reward.safety.batch_size_pairs=64",
        "reward.safety.micro_batch_size_pairs=64",
    ]
    return reduced_recipe(files, folder / "run", *settings, *overrides)


@pytest.mark.integration
@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_sft_runs_on_it_and_counts_every_row(name: str, tmp_path: Path) -> None:
    result = finetune.run(small_run(tmp_path, f"sft.data={DATA / name}"))
    rows = {"alpaca_format_instructions.json": 1100, **{file: count for file, (_, count) in PAIRS.items()}}[name]
    assert result["demonstrations"] > 0
    assert result["demonstrations"] + sum(result["left_out"].values()) == rows
    assert result["final_loss"] > 0


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose SFT stage is finished."""
    folder = tmp_path_factory.mktemp("tuned")
    finetune.run(small_run(folder))
    return folder


@pytest.mark.integration
@pytest.mark.parametrize("name", PAIRS)
def test_reward_runs_on_it_and_reports_its_accuracy(name: str, tuned: Path) -> None:
    dimension, rows = PAIRS[name]
    settings = [f"reward.models=[{dimension}]", f"reward.{dimension}.data={DATA / name}", "overwrite=true"]
    settings += ["reward.safety.safety_weight=0"]  # none of them has safety labels
    settings += [] if name.startswith("alpaca_eval") else ["reward.helpfulness.margin=none"]
    block: dict[str, Any] = train_reward_models.run(small_run(tuned, *settings))["models"][dimension]
    accuracy = block["accuracy"]["all"]
    low, high = accuracy["ci95"]
    assert 0 <= low <= accuracy["value"] <= high <= 1
    assert block["n_train"] + accuracy["n"] + sum(block["left_out"].values()) == rows
    graded = [block["accuracy"][grade] for grade in ("significantly_better", "better", "slightly_better")]
    assert all((figure is not None) == name.startswith("alpaca_eval") for figure in graded)
    assert read_json(tuned / "run" / "round-1" / "reward" / "result.json")["models"][dimension] == block


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_conversation_is_on_both_sides(name: str, seed: int) -> None:
    comparisons, _ = load_comparisons(str(DATA / name), dimension="helpfulness", on_error="skip")
    train, heldout = split_by_conversation(comparisons, heldout_fraction=0.1, seed=seed)
    keys = [{first_turn_key(item.prompt) for item in part} for part in (train, heldout)]
    assert not keys[0] & keys[1]
    assert len(train) + len(heldout) == len(comparisons)
    assert 0.05 < len(heldout) / len(comparisons) < 0.2


@pytest.mark.parametrize("name", DEMONSTRATIONS)
def test_a_malformed_row_stops_unless_it_may_be_skipped(name: str) -> None:
    report = load_comparisons(str(DATA / name), dimension="safety", on_error="skip")[1] if name in PAIRS else None
    if report is None or not report.skipped.get("malformed"):
        pytest.skip("no malformed row in this file")
    with pytest.raises(ValueError, match=rf"{name}, line \d+: .*data\.on_error=skip"):
        load_comparisons(str(DATA / name), dimension="safety")


def test_the_default_is_to_stop() -> None:
    assert load_recipe().data.on_error == "raise"
