"""What the report says that a run was made from: recipe, data used and left out, files to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.errors import UserError
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import load_recipe
from stages.evaluate.made_from import data_blocks, links, paid_by, recipe_block, timings


def finish(root: Path, place: str, **result: Any) -> None:
    """Leave the result of a stage."""
    (root / place).mkdir(parents=True)
    (root / place / "result.json").write_text(json.dumps({"seconds": 10.0, **result}), encoding="utf-8")


def test_a_recipe_is_named_with_what_was_typed(tmp_path: Path) -> None:
    own = tmp_path / "secret" / "mine.jsonl"
    recipe = load_recipe(
        "configs/smoke.yaml", [f"run_dir={tmp_path}", "ppo.updates=7", f"sft.data={own}", "overwrite=true"]
    )
    block = recipe_block(recipe)
    assert block["name"] == "configs/smoke.yaml" and len(block["sha256"]) == 64
    assert block["typed"] == {"ppo.updates": "7", "sft.data": "mine.jsonl"}, "no path of this machine"


def test_a_recipe_of_ones_own_is_known_by_its_name_and_hash(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(Path("configs/smoke.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    block = recipe_block(load_recipe(str(file)))
    assert block["name"] == "mine.yaml" and block["typed"] == {}


def test_each_stage_says_what_it_used_and_left_out(tmp_path: Path) -> None:
    finish(tmp_path, "sft", demonstrations=158, left_out={"malformed": 2}, files={"/home/me/shown.jsonl": "ab"})
    accuracy = {"all": {"value": 0.5, "ci95": [0, 1], "n": 9}}
    models = {
        "helpfulness": {"n_train": 30, "accuracy": accuracy, "left_out": {"too long": 1}},
        "guard": {"n_train": 4, "accuracy": {"all": None}},
    }
    finish(tmp_path, "round-1/reward", models=models, files={"data/pairs.jsonl": "cd"})
    finish(tmp_path, "round-1/ppo", prompts=8, selection={"prompts": 3}, left_out={"prompts too long": 5})
    finish(tmp_path, "round-2/ppo", prompts=99)
    evaluation = {"files": [], "used": {"held-out prompts": 4}, "left_out": {"malformed": 1}}
    blocks = {block.pop("stage"): block for block in data_blocks(RunFolder(tmp_path), 1, evaluation)}
    assert list(blocks) == [
        "sft",
        "round-1/reward (helpfulness)",
        "round-1/reward (guard)",
        "round-1/ppo",
        "round-1/eval",
    ]
    assert blocks["sft"] == {
        "files": [{"name": "shown.jsonl", "hash": "ab"}],
        "used": {"demonstrations": 158},
        "left_out": {"malformed": 2},
    }
    helpfulness = blocks["round-1/reward (helpfulness)"]
    assert helpfulness["used"] == {"comparisons to train on": 30, "held-out comparisons": 9}
    assert helpfulness["left_out"] == {"too long": 1}
    assert helpfulness["files"] == [{"name": "data/pairs.jsonl", "hash": "cd"}]
    assert blocks["round-1/reward (guard)"]["used"] == {"comparisons to train on": 4}
    assert blocks["round-1/ppo"]["used"] == {"prompts": 8, "selection prompts": 3}
    assert blocks["round-1/eval"] == evaluation


def test_only_files_that_are_there_are_linked(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert [link["path"] for link in links(run, 2)] == ["round-2/eval/answers.jsonl"]
    page = tmp_path / "reward-evaluation" / "reward_models.html"
    page.parent.mkdir()
    for file in (page, tmp_path / "recipe.yaml"):
        file.touch()
    assert [link["path"] for link in links(run, 2)] == [
        "recipe.yaml",
        "round-2/eval/answers.jsonl",
        "reward-evaluation/reward_models.html",
    ]


def keep_settings(root: Path, place: str, **ppo: Any) -> None:
    """Leave the recipe that a finished stage was made with."""
    finish(root, place)
    (root / place / "config.yaml").write_text(yaml.safe_dump({"ppo": ppo}), encoding="utf-8")


def test_the_reward_models_that_paid_are_named_as_they_were_given(tmp_path: Path) -> None:
    """Own ones by their place in the run, others by Hub name or folder; of the address of a folder, what says which."""
    root = tmp_path / "run"
    keep_settings(root, "round-2/rejection", reward_models={"helpfulness": None, "safety": []})
    others = ["owner/model", "models/theirs", "/home/me/models/mine", "/home/me/runs/first/round-1/reward/helpfulness"]
    keep_settings(root, "round-2/ppo", reward_models={"helpfulness": others, "safety": None})
    assert paid_by(RunFolder(root), 2) == {
        "rejection": {"helpfulness": ["round-2/reward/helpfulness"], "safety": []},
        "ppo": {
            "helpfulness": ["owner/model", "models/theirs", "mine", "first/round-1/reward/helpfulness"],
            "safety": ["round-2/reward/safety"],
        },
    }


def test_own_reward_models_are_known_by_whatever_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ensemble of one's own and another's is asked for by paths."""
    root, other = tmp_path / "run", "/other/runs/b/round-1/reward/helpfulness"
    own = [str(root / "round-1/reward/helpfulness"), other]
    keep_settings(root, "round-1/ppo", reward_models={"helpfulness": own, "safety": ["run/round-1/reward/safety"]})
    monkeypatch.chdir(tmp_path)
    assert paid_by(RunFolder(root), 1) == {
        "ppo": {
            "helpfulness": ["round-1/reward/helpfulness", "b/round-1/reward/helpfulness"],
            "safety": ["round-1/reward/safety"],
        }
    }


def test_who_paid_in_a_run_of_an_earlier_version(tmp_path: Path) -> None:
    """Before others could pay, the run's own models did."""
    keep_settings(tmp_path, "round-1/rejection", updates=3)
    assert paid_by(RunFolder(tmp_path), 1) == {
        "rejection": {"helpfulness": ["round-1/reward/helpfulness"], "safety": ["round-1/reward/safety"]}
    }


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        pytest.param(None, "which says how its stage was made, cannot be read: ", id="gone"),
        pytest.param("ppo: [", "which says how its stage was made, cannot be read: ", id="cut off"),
        pytest.param("a word", "does not hold the settings that its stage was made with", id="no settings"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_told(recipe: str | None, expected: str, tmp_path: Path) -> None:
    finish(tmp_path, "round-1/ppo")
    if recipe is not None:
        (tmp_path / "round-1/ppo/config.yaml").write_text(recipe, encoding="utf-8")
    with pytest.raises(UserError, match=f"round-1/ppo/config.yaml,? {expected}"):
        paid_by(RunFolder(tmp_path), 1)


def test_an_evaluation_made_again_counts_once(tmp_path: Path) -> None:
    for place in ("round-1/eval", "round-2/eval"):
        finish(tmp_path, place)
    assert timings(RunFolder(tmp_path), 2, 4.256)["evaluate"] == 14.26
