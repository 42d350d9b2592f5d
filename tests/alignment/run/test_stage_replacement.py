"""A stage that is made again: the finished one is there, whole, until the new one has succeeded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import UserError
from alignment.files import read_json
from alignment.run.run_folder import RunFolder
from alignment.run.stage_records import StageRun
from alignment.run.stage_replacement import beside
from alignment.settings.read_recipe import load_recipe
from alignment.settings.recipe import Recipe


def recipe(*overrides: str) -> Recipe:
    return load_recipe(None, overrides)


def begun(folder: RunFolder, content: str, *overrides: str) -> StageRun:
    stage = folder.begin("ppo", recipe(*overrides), 1)
    (stage.folder / "model.safetensors").write_text(content)
    return stage


def weights(folder: RunFolder) -> str:
    return (folder.stage("ppo", 1) / "model.safetensors").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run whose PPO is finished, with the weights "good"."""
    made = RunFolder(tmp_path)
    made.finish(begun(made, "good"), {"number": 1}, inputs=[])
    return made


def names(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in (folder.root / "round-1").iterdir())


def test_the_finished_one_stays_until_the_new_one_has_succeeded(folder: RunFolder) -> None:
    stage = begun(folder, "better", "overwrite=true")
    assert stage.name == "round-1/ppo"
    assert weights(folder) == "good" and folder.finished("ppo", 1) and folder.result("ppo", 1)["number"] == 1
    assert folder.is_made_again("ppo", 1)
    folder.finish(stage, {"number": 2}, inputs=[])
    assert weights(folder) == "better" and folder.result("ppo", 1)["number"] == 2
    assert stage.folder == folder.stage("ppo", 1)
    assert names(folder) == ["ppo"]
    assert not folder.is_made_again("ppo", 1) and folder.kept("ppo", 1, recipe())


def test_one_that_failed_leaves_the_finished_one_and_is_begun_anew_without_overwrite(folder: RunFolder) -> None:
    begun(folder, "half", "overwrite=true")
    assert not folder.kept("ppo", 1, recipe("ppo.updates=3")), "which is being made with whatever settings"
    folder.check_not_finished("ppo", recipe(), 1)
    stage = folder.begin("ppo", recipe(), 1)
    assert [file.name for file in stage.folder.glob("model*")] == []
    assert weights(folder) == "good"


def test_one_that_was_stopped_after_a_checkpoint_goes_on_without_overwrite(folder: RunFolder) -> None:
    stage = folder.begin_or_resume("ppo", recipe("overwrite=true", "ppo.updates=7"), 1, inputs=[])
    (stage.folder / "checkpoints" / "step-4").mkdir(parents=True)
    with pytest.raises(UserError, match=r"stopped half-way.*ppo\.updates"):
        folder.begin_or_resume("ppo", recipe("ppo.updates=8"), 1, inputs=[])
    again = folder.begin_or_resume("ppo", recipe("ppo.updates=7"), 1, inputs=[])
    assert again.folder == stage.folder and (again.folder / "checkpoints" / "step-4").is_dir()
    assert folder.stage_run("ppo", recipe("ppo.updates=7"), 1).folder == stage.folder, "for other processes, too"
    anew = folder.begin_or_resume("ppo", recipe("overwrite=true", "ppo.updates=7"), 1, inputs=[])
    assert not (anew.folder / "checkpoints").exists()


def test_a_stage_that_never_finished_is_made_in_its_own_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    begun(folder, "half")
    assert begun(folder, "again", "overwrite=true").folder == folder.stage("ppo", 1)
    assert names(folder) == ["ppo"]


def test_what_is_to_be_made_again_is_not_kept_but_there(folder: RunFolder) -> None:
    folder.make_again("ppo", 1)
    assert weights(folder) == "good"
    assert not folder.kept("ppo", 1, recipe())
    folder.make_again("rejection", 1)
    assert names(folder) == ["ppo", "ppo.new"], "what is not made yet needs no replacing"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(4))
def test_a_kill_while_they_change_places_loses_neither(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The process ends before the first, second, ... change of a folder; the next command finds one whole stage."""
    left = step

    def counted(change: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            return change(*arguments, **options)

        return wrapped

    stage = begun(folder, "better", "overwrite=true")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
        with pytest.raises(Killed):
            folder.finish(stage, {"number": 2}, inputs=[])
    with RunFolder(folder.root).lock():
        pass
    assert weights(folder) == "better" and read_json(folder.stage("ppo", 1) / "result.json")["number"] == 2
    assert names(folder) == ["ppo"]


def test_a_kill_before_the_new_one_is_finished_keeps_the_old_one(folder: RunFolder) -> None:
    begun(folder, "half", "overwrite=true")
    with RunFolder(folder.root).lock():
        assert weights(folder) == "good"
        assert beside(folder.stage("ppo", 1)).is_dir(), "to be gone on with"


def test_what_somebody_keeps_beside_a_stage_is_left_alone(folder: RunFolder) -> None:
    mine = ("round-1/ppo.old", "round-1/mine.replaced", "ppo.replaced.old")
    for name in mine:
        shutil.copytree(folder.stage("ppo", 1), folder.root / name)
    (folder.root / "report.json.old").write_text("{}")
    with RunFolder(folder.root).lock():
        pass
    assert all((folder.root / name / "model.safetensors").read_text() == "good" for name in mine)
    assert (folder.root / "report.json.old").is_file() and weights(folder) == "good"
    # One that is put away is not taken back, and not for one that was finished.
    folder.stage("ppo", 1).rename(folder.root / "round-1" / "ppo.kept")
    shutil.rmtree(folder.root / "round-1" / "ppo.old")
    (folder.root / "round-1" / "ppo.kept").rename(folder.root / "round-1" / "ppo.old")
    with RunFolder(folder.root).lock():
        assert not folder.finished("ppo", 1) and names(folder) == ["mine.replaced", "ppo.old"]
