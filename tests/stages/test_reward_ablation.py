"""Variants of reward models side by side: one setting apart, kept once they are done, in the tables of the paper."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from stage_fixtures import reduced_recipe

from alignment.data.records import GRADES
from alignment.errors import UserError
from alignment.files import read_json
from alignment.models.heads.known_heads import HEADS
from alignment.reward.losses import LOSSES
from alignment.settings.recipe import Recipe
from stages.annotate import collect as annotate
from stages.reward import ablate, train_reward_models
from stages.reward.ablate import columns_of, row_of, table_of, variants

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def recipe(files: dict[str, str], sft_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    run = shutil.copytree(sft_run, tmp_path_factory.mktemp("ablation") / "run")
    made = reduced_recipe(files, run, "annotate.safety_pairs=60")
    for stage in (annotate, train_reward_models):
        stage.run(made)
    return made


def figure(value: float) -> dict[str, Any]:
    return {"value": value, "ci95": [value, value], "n": 1}


def test_variants_differ_in_one_setting_only(recipe: Recipe) -> None:
    found = variants(recipe, "margin", "helpfulness")
    assert {name: item.reward.helpfulness.margin for name, item in found.items()} == {
        name: name for name in ("none", "small", "large")
    }
    assert found["small"] == recipe
    weights = {name: item.reward.safety.safety_weight for name, item in variants(recipe, "auxiliary", "safety").items()}
    assert weights == {"ranking only": 0.0, "with auxiliary": 1.0}
    losses = {name: item.reward.safety.loss for name, item in variants(recipe, "loss", "safety").items()}
    assert losses == {name: name for name in LOSSES}
    assert set(variants(recipe, "head", "safety")) == set(HEADS)


def test_a_variants_row_in_the_terminal_has_its_name_and_its_figures() -> None:
    accuracy = {"all": figure(0.25), **{grade: figure(0.75) for grade in GRADES}}
    table = table_of("margin", "helpfulness", {"small": {"accuracy": accuracy}, "large": {"accuracy": accuracy}})
    first, *others = ([*column.cells] for column in table.columns)
    assert first == ["small", "large"]
    assert len(others) == len(columns_of("margin"))
    assert [str(cells[0])[:2] for cells in others] == ["25", "75", "75", "75", "75"]


def test_rows_are_those_of_tables_28_and_29() -> None:
    figures = {
        "accuracy": {
            "all": figure(0.1),
            **{
                grade: figure(value)
                for grade, value in zip(
                    ("negligibly_better", "slightly_better", "better", "significantly_better"),
                    (0.5, 0.4, 0.3, 0.2),
                    strict=True,
                )
            },
        },
        "accuracy_by_safety_bin": {
            "both_unsafe": figure(0.8),
            "both_safe": figure(0.7),
            "preferred_safe_other_unsafe": figure(0.6),
        },
        "unsafe_detection": {
            "at_half": {"recall": figure(0.9), "precision": figure(0.95)},
            "at_gate": {"recall": figure(0.0)},
        },
    }
    for factor, expected in (("margin", [0.1, 0.2, 0.3, 0.4, 0.5]), ("auxiliary", [0.1, 0.6, 0.7, 0.8, 0.9, 0.95])):
        row = [item["value"] if item else None for item in row_of(factor, figures)]
        assert row == expected
        assert len(columns_of(factor)) == len(row)
    assert columns_of("margin")[1] == "significantly better"
    assert columns_of("auxiliary")[-2:] == ["unsafe recall at 0.5", "precision"]


def test_each_variant_is_trained_once_and_the_run_stays_as_it_is(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = ablate.train
    names: list[str] = []

    def train(*arguments: Any) -> dict[str, Any]:
        names.append(arguments[-1])
        return trained(*arguments)

    monkeypatch.setattr(ablate, "train", train)
    folder = Path(recipe.run_dir)
    before = (folder / "round-1" / "reward" / "result.json").read_bytes()
    found = ablate.ablate(recipe, ["auxiliary", "margin"])
    assert names == ["ranking only", "with auxiliary", "none", "small", "large"]
    losses = [variant["accuracy"]["all"]["n"] for variant in found["margin"]["helpfulness"].values()]
    assert len(set(losses)) == 1
    # The variants with the run's own settings are the run's own models.
    own = read_json(folder / "round-1" / "reward" / "result.json")["models"]
    assert found["auxiliary"]["safety"]["with auxiliary"]["accuracy"] == own["safety"]["accuracy"]
    assert found["margin"]["helpfulness"]["small"]["calibration"] == own["helpfulness"]["calibration"]
    assert found["margin"]["helpfulness"]["large"]["calibration"] != own["helpfulness"]["calibration"]
    again = ablate.ablate(recipe, ["auxiliary", "margin"])
    assert (len(names), again) == (5, found)
    assert (folder / "round-1" / "reward" / "result.json").read_bytes() == before
    assert read_json(folder / "reward-ablations" / "ablations.json")["factors"] == found
    shown = capsys.readouterr().err
    assert "safety model" in shown and "helpfulness model" in shown and "ranking" in shown


def test_heads_that_do_not_fit_the_comparisons_are_named_and_left_out(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only = {"linear": HEADS["linear"], "objectives": HEADS["objectives"]}
    for name in set(HEADS) - set(only):
        monkeypatch.delitem(HEADS, name)
    found = ablate.ablate(recipe, ["head"])
    assert list(found["head"]["helpfulness"]) == ["linear"]
    assert list(found["head"]["safety"]) == ["linear", "objectives"]
    shown = " ".join(capsys.readouterr().err.split())
    assert "head objectives left out for the helpfulness model" in shown
    assert "'safety': no comparison is about it" in shown


def test_an_unknown_factor_lists_the_valid_ones(recipe: Recipe) -> None:
    with pytest.raises(UserError, match=r"unknown 'margins'; valid: margin, auxiliary, head, loss"):
        ablate.ablate(recipe, ["margins"])
