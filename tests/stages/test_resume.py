"""PPO stopped at any instant and started again ends with the numbers of a run that was never stopped, bit by bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_fixtures import outcome, reduced_recipe

from alignment.errors import UserError
from alignment.machine import checkpoint
from alignment.machine.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from alignment.rl.ppo import PPO
from alignment.run import stage_records
from alignment.run.run_folder import RunFolder
from alignment.run.stage_records import StageRun
from alignment.settings.recipe import Recipe
from stages.ppo import train_policy as ppo
from stages.ppo.keeper import ResumablePPO
from stages.ppo.training_watch import TrainingWatch

pytestmark = pytest.mark.integration

SETTINGS = (
    "ppo.method=ppo",
    "ppo.updates=7",
    "ppo.save_steps=2",
    "ppo.save_total_limit=2",
    "ppo.snapshot_every_updates=3",
    "ppo.schedule=linear",
    "ppo.kl_control=adaptive",
    "ppo.kl_target_nats=0.05",
    "ppo.kl_horizon_episodes=40",
    "model.lora.dropout=0.1",  # does nothing in eval mode, and must not
)


class Killed(BaseException):
    """Stands in for kill -9: nobody catches it."""


@pytest.fixture
def recipe_in(files: dict[str, str], rewarded_run: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Gives a recipe with a run folder of its own, ready for PPO."""

    def make(name: str = "run", *overrides: str) -> Recipe:
        run = tmp_path / name
        if not run.exists():
            shutil.copytree(rewarded_run, run)
        return reduced_recipe(files, run, *SETTINGS, *overrides)

    return make


def metrics(run: str) -> list[dict[str, Any]]:
    """Metrics of each update, times aside."""
    lines = (Path(run) / "round-1" / "ppo" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "time/seconds"} for line in lines]


def made(run: str) -> dict[str, bytes]:
    """What PPO leaves that is not a time."""
    folder = Path(run) / "round-1" / "ppo"
    return {name: (folder / name).read_bytes() for name in ("adapter_model.safetensors", "heldout_samples.jsonl")}


def killed_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """Let the n-th call of a method be the last thing that happens."""
    plain, calls = getattr(owner, name), iter(range(1, 1000))

    def dying(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return plain(*args, **kwargs)

    monkeypatch.setattr(owner, name, dying)


@pytest.fixture(scope="module")
def uninterrupted(files: dict[str, str], rewarded_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    shutil.copytree(rewarded_run, run)
    ppo.run(reduced_recipe(files, run, *SETTINGS))
    return str(run)


INSTANTS = [
    pytest.param(PPO, "sample", 1, id="before the first update"),
    pytest.param(PPO, "sample", 5, id="after four updates, right after a checkpoint"),
    pytest.param(PPO, "_minibatch_step", 10, id="in the middle of an update"),
    pytest.param(ResumablePPO, "log", 4, id="before an update is logged"),
    pytest.param(ResumablePPO, "checkpoint", 2, id="before a checkpoint"),
    pytest.param(checkpoint, "save_file", 2, id="in the middle of a checkpoint"),
    pytest.param(os, "replace", 9, id="while a file gets its name"),
    pytest.param(TrainingWatch, "look", 5, id="before a snapshot"),
    pytest.param(TrainingWatch, "save_policy", 1, id="after the last update"),
]


@pytest.mark.parametrize(("owner", "name", "call"), INSTANTS)
def test_killed_and_started_again(
    owner: Any,
    name: str,
    call: int,
    uninterrupted: str,
    recipe_in: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = recipe_in()
    with monkeypatch.context() as patched:
        killed_at(patched, owner, name, call)
        with pytest.raises(Killed):
            ppo.run(recipe)
    ppo.run(recipe)
    assert metrics(recipe.run_dir) == metrics(uninterrupted)
    assert made(recipe.run_dir) == made(uninterrupted)
    assert not (Path(recipe.run_dir) / "round-1" / "ppo" / stage_records.CHECKPOINTS).exists()


def test_it_does_go_on_from_the_checkpoint(
    uninterrupted: str, recipe_in: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_in()
    with monkeypatch.context() as patched:
        killed_at(patched, PPO, "sample", 6)
        with pytest.raises(Killed):
            ppo.run(recipe)
    folder = Path(recipe.run_dir) / "round-1" / "ppo" / stage_records.CHECKPOINTS
    assert [path.name for path in checkpoints(folder)] == ["step-000002", "step-000004"]
    drawn: list[int] = []
    plain = PPO.sample

    def watched(self: PPO, prompts: Any, update: int) -> Any:
        drawn.append(update)
        return plain(self, prompts, update)

    monkeypatch.setattr(PPO, "sample", watched)
    ppo.run(recipe)
    assert drawn == [5, 6, 7]
    assert metrics(recipe.run_dir) == metrics(uninterrupted)
    betas = [line["objective/beta"] for line in metrics(recipe.run_dir)]
    assert len(set(betas)) == len(betas), "the controller moves, so its state matters"


def test_smaller_micro_batches_go_on_and_the_result_says_from_where(
    uninterrupted: str, recipe_in: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after running out of memory: what is learned is the same but for rounding."""
    recipe = recipe_in()
    with monkeypatch.context() as patched:
        killed_at(patched, PPO, "sample", 6)
        with pytest.raises(Killed):
            ppo.run(recipe)
    result = ppo.run(recipe_in("run", "ppo.micro_batch_size_episodes=2"))
    changed = "ppo.micro_batch_size_episodes=4, now 2"
    assert result["not_bit_exact"] == [{"changed": changed, "last_step_before": {"checkpoints": 4}}]
    now, before = metrics(recipe.run_dir), metrics(uninterrupted)
    assert now[:4] == before[:4]
    assert now != before
    for row, same in zip(now, before, strict=True):
        assert row["objective/score"] == pytest.approx(same["objective/score"], abs=0.05)
    made_again = RunFolder(recipe.run_dir)
    assert made_again.kept("ppo", 1, recipe_in()), "a finished stage is the same whatever its micro-batches were"


def test_a_stop_that_is_asked_for_leaves_a_checkpoint_at_once(
    uninterrupted: str, recipe_in: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    recipe = recipe_in()
    plain = PPO.advantages

    def interrupted(self: PPO, *args: Any) -> Any:
        monkeypatch.setattr(PPO, "advantages", plain)
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, *args)

    monkeypatch.setattr(PPO, "advantages", interrupted)
    code, said = outcome(lambda: ppo.run(recipe), capsys)
    assert code == 143
    assert "goes on from there" in said
    folder = Path(recipe.run_dir) / "round-1" / "ppo" / stage_records.CHECKPOINTS
    assert [path.name for path in checkpoints(folder)] == ["step-000001"]
    ppo.run(recipe)
    assert metrics(recipe.run_dir) == metrics(uninterrupted)
    assert made(recipe.run_dir) == made(uninterrupted)


def test_the_best_snapshot_survives_a_kill_at_the_very_end(
    recipe_in: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be older than the last checkpoint, so it has to be there until the stage is finished."""
    whole, killed = recipe_in("whole", "ppo.keep=best"), recipe_in("killed", "ppo.keep=best")
    ppo.run(whole)
    with monkeypatch.context() as patched:
        killed_at(patched, RunFolder, "finish", 1)
        with pytest.raises(Killed):
            ppo.run(killed)
    ppo.run(killed)
    assert made(killed.run_dir) == made(whole.run_dir)


class TestRefused:
    @pytest.fixture
    def stopped(self, recipe_in: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> Recipe:
        recipe = recipe_in()
        with monkeypatch.context() as patched:
            killed_at(patched, PPO, "sample", 4)
            with pytest.raises(Killed):
                ppo.run(recipe)
        return recipe

    def test_other_settings(self, stopped: Recipe, recipe_in: Callable[..., Recipe]) -> None:
        with pytest.raises(
            UserError, match=r"stopped half-way.*ppo\.kl_beta=0\.01, now 0\.2; ppo\.updates=7, now 9.*overwrite=true"
        ):
            ppo.run(recipe_in("run", "ppo.kl_beta=0.2", "ppo.updates=9"))

    def test_other_data(self, stopped: Recipe, recipe_in: Callable[..., Recipe], tmp_path: Path) -> None:
        prompts = tmp_path / "prompts.jsonl"
        prompts.write_text(Path(stopped.data.prompts).read_text(encoding="utf-8") + "\n", encoding="utf-8")
        with pytest.raises(UserError, match=r"data\.prompts.*prompts\.jsonl"):
            ppo.run(recipe_in("run", f"data.prompts={prompts}"))

    def test_another_seed(self, stopped: Recipe, recipe_in: Callable[..., Recipe]) -> None:
        with pytest.raises(UserError, match="changed since: seed"):
            ppo.run(recipe_in("run", "seed=1"))

    def test_how_often_to_save_may_change(
        self, stopped: Recipe, recipe_in: Callable[..., Recipe], uninterrupted: str
    ) -> None:
        ppo.run(recipe_in("run", "ppo.save_steps=3", "ppo.save_total_limit=1"))
        assert metrics(stopped.run_dir) == metrics(uninterrupted)

    def test_overwrite_starts_again(
        self, stopped: Recipe, recipe_in: Callable[..., Recipe], uninterrupted: str
    ) -> None:
        ppo.run(recipe_in("run", "overwrite=true"))
        assert metrics(stopped.run_dir) == metrics(uninterrupted)

    def test_another_format_version(self, stopped: Recipe) -> None:
        newest = checkpoints(Path(stopped.run_dir) / "round-1" / "ppo" / stage_records.CHECKPOINTS)[-1]
        content = json.loads((newest / "checkpoint.json").read_text(encoding="utf-8"))
        (newest / "checkpoint.json").write_text(json.dumps({**content, "format_version": 99}), encoding="utf-8")
        with pytest.raises(UserError, match="checkpoint format 99"):
            ppo.run(stopped)

    def test_a_damaged_checkpoint_is_named(self, stopped: Recipe) -> None:
        newest = checkpoints(Path(stopped.run_dir) / "round-1" / "ppo" / stage_records.CHECKPOINTS)[-1]
        (newest / "state.safetensors").write_bytes(b"{}")
        with pytest.raises(UserError, match=r"step-000002: damaged checkpoint"):
            ppo.run(stopped)


class TestCheckpoint:
    def test_gives_back_what_went_in(self, tmp_path: Path) -> None:
        state = {
            "optimizer": {"state": {0: {"step": torch.tensor(3.0), "m": torch.randn(2, 3)}}, "groups": [{"lr": 0.1}]},
            "numbers": [1, 0.1 + 0.2, None, True, "text", float("inf")],
            "bytes": torch.arange(5, dtype=torch.uint8),
        }
        step, found = load_checkpoint(save_checkpoint(tmp_path, 12, state, keep=1))
        assert step == 12
        assert found["numbers"] == state["numbers"]
        assert list(found["optimizer"]["state"]) == [0], "whole numbers stay whole numbers"
        torch.testing.assert_close(found["optimizer"]["state"][0]["m"], state["optimizer"]["state"][0]["m"])  # type: ignore[index]
        assert torch.equal(found["bytes"], state["bytes"])  # type: ignore[arg-type]

    def test_keeps_the_newest(self, tmp_path: Path) -> None:
        for step in (8, 9, 10, 100):
            save_checkpoint(tmp_path, step, {"x": torch.ones(1)}, keep=2)
        assert [path.name for path in checkpoints(tmp_path)] == ["step-000010", "step-000100"]

    def test_holds_no_pickle(self, tmp_path: Path) -> None:
        folder = save_checkpoint(tmp_path, 1, {"x": torch.ones(1)}, keep=1)
        assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}

    def test_refuses_what_it_could_not_give_back(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="/a: a checkpoint cannot hold a set"):
            save_checkpoint(tmp_path, 1, {"a": {1}}, keep=1)


def test_lines_after_the_checkpoint_and_half_a_line_are_cut(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"update": 1, "x": 0.1}\n{"update": 2}\n{"update": 3}\n{"upd', encoding="utf-8")
    stage = StageRun("ppo", tmp_path)
    assert stage.cut_log(lambda row: row["update"] <= 2) == [{"update": 1, "x": 0.1}, {"update": 2}]
    assert file.read_text(encoding="utf-8") == '{"update": 1, "x": 0.1}\n{"update": 2}\n'
