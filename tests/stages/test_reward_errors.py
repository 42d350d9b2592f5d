"""What can be wrong with comparisons and heads ends as one clear message and exit code 2, and leaves the run alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from any_model import CASES, recipe_for
from safetensors.torch import load_file, save_file
from stage_fixtures import outcome, without_manifests, write_lines

from alignment.models.scorers.reward_model import HEAD_FILE
from alignment.settings.recipe import Recipe
from stages.annotate import collect as annotate
from stages.ppo import train_policy as ppo
from stages.reward import train_reward_models
from stages.reward.evaluate_only import evaluate_only
from stages.sft import finetune

Row = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, data, and a run whose SFT and annotation are finished."""
    folder = tmp_path_factory.mktemp("errors")
    recipe = recipe_for(CASES["llama"], folder)
    finetune.run(recipe)
    annotate.run(recipe)
    return folder


def refused(made: Path, capsys: pytest.CaptureFixture[str], *settings: str, spoil: Callable[[Row], None]) -> str:
    """What stages.reward says of the comparisons after ``spoil`` has been at each of them."""
    recipe = recipe_for(CASES["llama"], made)
    rows = [json.loads(line) for line in (made / "data" / "pairs.jsonl").read_text().splitlines()]
    for row in rows:
        spoil(row)
    file = write_lines(made / "spoiled.jsonl", rows)
    data = [f"reward.{name}.data={file}" for name in ("helpfulness", "safety")]
    spoiled = recipe_for(CASES["llama"], made, *data, *settings)
    assert spoiled.run_dir == recipe.run_dir
    code, shown = outcome(lambda: train_reward_models.run(spoiled), capsys)
    assert code == 2
    assert shown.count("error:") == 1 and "Traceback" not in shown
    assert not (Path(recipe.run_dir) / "round-1" / "reward").exists()
    return shown


def nothing(row: Row) -> None:
    pass


def test_all_margins_but_no_grades(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = refused(made, capsys, spoil=lambda row: row.pop("grade"))
    assert "reward.helpfulness.margin=small needs graded comparisons" in shown
    assert "Pass reward.helpfulness.margin=none" in shown


def test_strengths_but_no_grades(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("reward.helpfulness.margin=none", "reward.helpfulness.loss=scaled")
    shown = refused(made, capsys, *settings, spoil=lambda row: row.pop("grade"))
    assert "reward.helpfulness.loss=scaled weighs by the grade" in shown


@pytest.mark.parametrize(("label", "named"), [("both_safe", "safe"), ("both_unsafe", "unsafe")])
def test_one_class_only(label: str, named: str, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = refused(made, capsys, spoil=lambda row: row.update(safety={"bin": label}))
    assert f"labelled answers are {named}" in shown
    assert "Pass reward.safety.safety_weight=0" in shown


def test_no_safety_label_at_all(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "none of them has a safety label" in refused(made, capsys, spoil=lambda row: row.pop("safety"))


def test_an_empty_grade(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = refused(made, capsys, spoil=lambda row: row.update(grade=""))
    assert "spoiled.jsonl, line 2: 'grade' must be one of significantly_better" in shown
    assert "data.on_error=skip" in shown


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            ("reward.head.name=liner",),
            "unknown reward head 'liner'; valid heads: attention, ensemble",
        ),
        (("reward.head.name=mlp", "reward.head.arguments.width=-1"), "width must be a whole number of at least 1"),
        (("reward.helpfulness.loss=rank",), "unknown preference loss 'rank'; valid: ranking, scaled"),
        (("reward.head.name=objectives", "reward.helpfulness.mix=[]"), "'safety': no comparison is about it"),
        (("reward.trainer.save_steps=3",), "reward.trainer.save_steps: the stage decides this one"),
    ],
)
def test_settings(settings: tuple[str, ...], expected: str, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in refused(made, capsys, *settings, spoil=nothing)


@pytest.mark.integration
class TestTrainedModels:
    @pytest.fixture
    def trained(self, made: Path) -> Recipe:
        recipe = recipe_for(CASES["llama"], made, "overwrite=true")
        train_reward_models.run(recipe)
        return recipe

    def spoil_head(self, recipe: Recipe, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        file = Path(recipe.run_dir) / "round-1" / "reward" / "helpfulness" / HEAD_FILE
        save_file({"score.weight": change(load_file(str(file))["score.weight"])}, str(file))
        without_manifests(Path(recipe.run_dir))

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda weight: weight * float("nan"), "gives scores that are not finite (nan to"),
            (lambda weight: weight[:, :-1].contiguous(), "size mismatch for score.weight"),
        ],
        ids=["nan score", "head of another width"],
    )
    def test_one_message(
        self,
        change: Callable[[torch.Tensor], torch.Tensor],
        expected: str,
        trained: Recipe,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.spoil_head(trained, change)
        for stage in (evaluate_only, ppo.run):
            code, shown = outcome(lambda stage=stage: stage(trained), capsys)  # type: ignore[misc]
            assert code == 2
            assert expected in shown and shown.count("error:") == 1
