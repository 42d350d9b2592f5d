"""stages.reward killed with kill -9 at several places goes on and ends with the same numbers as without a stop."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import child_process
import pytest
from stage_fixtures import ROOT, reduced_recipe

from alignment.errors import UserError
from alignment.files import read_json
from alignment.machine.checkpoint import checkpoints
from alignment.run import stage_records
from alignment.run.stage_records import CHECKPOINTS, StageRun
from alignment.settings.read_recipe import load_recipe, save_recipe
from alignment.settings.recipe import Recipe
from stages.annotate import collect as annotate
from stages.reward import train_reward_models

pytestmark = pytest.mark.integration

SETTINGS = (
    "model.lora.dropout=0.1",
    "reward.guard_share=0.3",
    "annotate.safety_pairs=60",
    *(f"reward.{name}.{setting}" for name in ("helpfulness", "safety") for setting in ("epochs=3", "save_steps=1")),
)
KILLER = """
import os, signal, sys
from alignment.settings.read_recipe import load_recipe
from alignment.machine import checkpoint
from alignment.reward import reward_training
from stages.reward import train_reward_models as reward

where, count = sys.argv[2], int(sys.argv[3])
def kill(*unused, **unused_by_name):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)

if where == "before a checkpoint is written":
    save = reward_training.save_checkpoint
    reward_training.save_checkpoint = lambda *a, **k: (kill(), save(*a, **k))
elif where == "half-way through a checkpoint":
    write = checkpoint.save_file
    checkpoint.save_file = lambda *a, **k: (write(*a, **k), kill())
elif where == "after a step":
    log = reward.StageRun.log
    reward.StageRun.log = lambda *a, **k: (log(*a, **k), kill())
else:
    measure = reward.measured
    reward.measured = lambda *a, **k: (kill(), measure(*a, **k))[1]
reward.run(load_recipe(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def prepared(files: dict[str, str], sft_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run that is ready for its reward models."""
    run = shutil.copytree(sft_run, tmp_path_factory.mktemp("resume") / "run")
    recipe = reduced_recipe(files, run, *SETTINGS)
    annotate.run(recipe)
    return recipe


@pytest.fixture(scope="module")
def uninterrupted(prepared: Recipe) -> Path:
    copy = Path(prepared.run_dir).with_name("whole")
    shutil.copytree(prepared.run_dir, copy)
    train_reward_models.run(prepared.model_copy(update={"run_dir": str(copy)}))
    return copy / "round-1" / "reward"


def lines(stage: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]


def kept(stage: Path) -> dict[str, Any]:
    return {path.name: path.read_bytes() for path in sorted(stage.rglob("*.safetensors"))}


@pytest.mark.parametrize(
    ("where", "counts"),
    [
        ("after a step", (1, 4, 3)),
        ("before a checkpoint is written", (2, 5)),
        ("half-way through a checkpoint", (2, 3)),
        ("before it is measured", (1, 2)),
    ],
)
def test_killed_and_started_again(
    where: str, counts: tuple[int, ...], prepared: Recipe, uninterrupted: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(prepared.run_dir, run)
    recipe = prepared.model_copy(update={"run_dir": str(run)})
    save_recipe(recipe, tmp_path / "recipe.yaml")
    for count in counts:
        command = [sys.executable, "-c", KILLER, str(tmp_path / "recipe.yaml"), where, str(count)]
        killed = child_process.run(command, cwd=ROOT)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    train_reward_models.run(recipe)
    stage = run / "round-1" / "reward"
    assert lines(stage) == lines(uninterrupted)
    assert kept(stage) == kept(uninterrupted)
    assert read_json(stage / "result.json")["models"] == read_json(uninterrupted / "result.json")["models"]
    assert not (stage / CHECKPOINTS).exists()


class TestStopping:
    def stop_after(self, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
        """Ctrl-C while the given step is being logged."""
        log: Callable[..., None] = stage_records.StageRun.log
        seen: list[int] = []

        def log_and_interrupt(*arguments: Any) -> None:
            log(*arguments)
            seen.append(1)
            if len(seen) == steps:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(StageRun, "log", log_and_interrupt)

    def test_ctrl_c_while_a_step_is_logged_leaves_a_checkpoint_of_the_next(
        self, prepared: Recipe, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(prepared.run_dir, tmp_path / "run")
        values = prepared.model_dump(mode="json")
        for name in ("helpfulness", "safety"):
            values["reward"][name]["save_steps"] = 1000
        recipe = Recipe.model_validate({**values, "run_dir": str(tmp_path / "run")})
        with monkeypatch.context() as patched:
            self.stop_after(patched, 2)
            with pytest.raises(KeyboardInterrupt):
                train_reward_models.run(recipe)
        stage = tmp_path / "run" / "round-1" / "reward"
        found = checkpoints(stage / CHECKPOINTS / "helpfulness")
        assert [path.name for path in found] == ["step-000003"]
        train_reward_models.run(recipe)
        assert kept(stage) == kept(uninterrupted)

    def test_a_finished_model_is_kept_though_no_checkpoint_was_due(
        self, prepared: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(prepared.run_dir, tmp_path / "run")
        values = prepared.model_dump(mode="json")
        for name in ("helpfulness", "safety"):
            values["reward"][name]["save_steps"] = 1000
        recipe = Recipe.model_validate({**values, "run_dir": str(tmp_path / "run")})
        trained: list[str] = []
        train = train_reward_models.train_one

        def train_one(*arguments: Any) -> dict[str, Any]:
            trained.append(arguments[4])
            if trained == ["helpfulness", "safety"]:
                raise KeyboardInterrupt
            return train(*arguments)

        monkeypatch.setattr(train_reward_models, "train_one", train_one)
        with pytest.raises(KeyboardInterrupt):
            train_reward_models.run(recipe)
        train_reward_models.run(recipe)
        assert trained == ["helpfulness", "safety", "safety", "guard"]

    def test_other_settings_are_refused_and_nothing_is_lost(
        self, prepared: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(prepared.run_dir, tmp_path / "run")
        recipe = prepared.model_copy(update={"run_dir": str(tmp_path / "run")})
        with monkeypatch.context() as patched:
            self.stop_after(patched, 2)
            with pytest.raises(KeyboardInterrupt):
                train_reward_models.run(recipe)
        other = load_recipe(
            str(tmp_path / "run" / "round-1" / "reward" / "config.yaml"), ["reward.helpfulness.learning_rate=0.5"]
        )
        with pytest.raises(UserError, match=r"reward\.helpfulness\.learning_rate.*overwrite=true"):
            train_reward_models.run(other)
        assert checkpoints(tmp_path / "run" / "round-1" / "reward" / CHECKPOINTS / "helpfulness")
