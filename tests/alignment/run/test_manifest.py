"""A finished stage is used only while its files, and what it was made from, are what they were."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.files import read_json, write_json
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import load_recipe

STAGES = (("sft", None), ("annotate", 1), ("reward", 1))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file that a stage is made from."""
    file = tmp_path / "data.jsonl"
    file.write_text("one\n")
    return file


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder that a stage is made from."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_text("weights")
    return folder


@pytest.fixture
def run(tmp_path: Path, data: Path, base: Path) -> RunFolder:
    """A run with SFT and, made from it, a reward model."""
    folder = RunFolder(tmp_path / "run")
    for (name, number), inputs in zip(STAGES, ([data, base], [data], []), strict=True):
        stage = folder.begin(name, load_recipe(), number)
        (stage.folder / "part").mkdir()
        (stage.folder / "part" / "model.safetensors").write_text(name)
        (stage.folder / "merges").write_text("no suffix")
        folder.finish(stage, {"steps": 3}, inputs=inputs)
    return folder


def kept(run: RunFolder) -> bool:
    return all(run.kept(name, number, load_recipe()) for name, number in STAGES)


def test_what_was_made_is_kept(run: RunFolder) -> None:
    assert kept(run) and run.require("reward", 1) == run.stage("reward", 1)
    files = read_json(run.root / "sft" / "manifest.json")["files"]
    assert files.keys() == {"config.yaml", "env.json", "merges", "part/model.safetensors", "result.json"}


Edit = Callable[[Path], object]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda stage: (stage / "part" / "model.safetensors").write_text("xft"), "part/model.safetensors has changed"),
        (lambda stage: (stage / "merges").write_text(""), "merges has changed"),
        (lambda stage: (stage / "merges").unlink(), "merges is gone"),
        (lambda stage: (stage / "chat_template.jinja").write_text("x"), "chat_template.jinja is new"),
        (lambda stage: write_json(stage / "result.json", {"steps": 4}), "result.json has changed"),
    ],
)
def test_an_edited_stage_is_named_wherever_it_is_wanted(run: RunFolder, edit: Edit, said: str) -> None:
    edit(run.stage("sft"))
    hint = f"python -m stages.doctor --run {run.root} --accept sft"
    for wanted in (
        lambda: run.kept("sft", None, load_recipe()),
        lambda: run.require("sft"),
        lambda: run.kept("reward", 1, load_recipe()),
        lambda: run.require("reward", 1),
    ):
        with pytest.raises(UserError) as refused:
            wanted()
        message = str(refused.value)
        assert f"{run.root / 'sft'} is not what its stage made: {said}. " in message and hint in message
    assert not run.kept("sft", None, load_recipe(None, ["overwrite=true"]))


def test_two_files_that_changed_places_are_named(run: RunFolder) -> None:
    one, _, other = (run.stage(*stage) / "part" / "model.safetensors" for stage in STAGES)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    with pytest.raises(UserError, match=r"sft is not what its stage made: part/model\.safetensors has changed"):
        kept(run)


def test_touched_copied_and_moved_files_are_the_same(run: RunFolder, tmp_path: Path, base: Path) -> None:
    for file in [*run.root.rglob("*"), *base.rglob("*")]:
        os.utime(file, (1, 1))
    assert kept(run)
    moved = RunFolder(shutil.copytree(run.root, tmp_path / "elsewhere"))
    shutil.rmtree(run.root)
    assert kept(moved)


def test_what_a_stage_was_made_from_is_looked_at_too(run: RunFolder, data: Path, base: Path) -> None:
    (base / "chat_template.jinja").write_text("another")
    with pytest.raises(UserError, match=r"sft was made before the present .*base \(chat_template\.jinja has changed\)"):
        run.kept("sft", None, load_recipe())
    (base / "chat_template.jinja").write_text("{{ messages }}")
    assert kept(run)
    data.write_text("two\n")
    with pytest.raises(UserError, match=r"sft was made before the present .*data\.jsonl\. "):
        run.kept("sft", None, load_recipe())
    data.unlink()
    assert kept(run), "what is not there cannot be compared"
    assert run.manifests.missing_inputs("sft") == [str(data)]


def test_an_accepted_edit_makes_later_stages_out_of_date(run: RunFolder) -> None:
    (run.stage("annotate", 1) / "merges").write_text("mended")
    assert run.manifests.accept("round-1/annotate") == ["merges has changed"]
    assert kept(run), "reward models read the comparisons of annotate, and no other file"
    (run.stage("sft") / "merges").write_text("mended")
    assert run.manifests.accept("sft") == ["merges has changed"]
    assert run.kept("sft", None, load_recipe())
    assert run.result("sft")["steps"] == 3
    with pytest.raises(UserError, match=r"reward was made before the present sft"):
        run.kept("reward", 1, load_recipe())
    assert run.manifests.accept("sft") == []


def test_nothing_but_a_finished_stage_can_be_accepted(run: RunFolder) -> None:
    for stage in ("round-1/ppo", "nothing", "", "sft/part"):
        with pytest.raises(UserError, match="no finished stage"):
            run.manifests.accept(stage)


def test_a_stage_of_a_version_without_manifests_is_checked_by_its_data_files(run: RunFolder, data: Path) -> None:
    (run.root / "sft" / "manifest.json").unlink()
    (run.stage("sft") / "merges").write_text("edited")
    assert run.kept("sft", None, load_recipe()) and run.manifests.of("sft") is None
    data.write_text("two\n")
    with pytest.raises(UserError, match=r"before the present .*data\.jsonl"):
        run.kept("sft", None, load_recipe())


def test_a_run_that_cannot_be_written_to_is_read(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.root / ".hashes.json").unlink()

    def refuse(*unused: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("alignment.run.manifest.write_text", refuse)
    assert kept(run)
    assert not (run.root / ".hashes.json").exists()


def test_the_manifest_names_inputs_by_their_own_files(run: RunFolder, data: Path, base: Path) -> None:
    inputs = json.loads((run.root / "sft" / "manifest.json").read_text())["inputs"]
    assert {path: set(files) for path, files in inputs.items()} == {
        str(data): {"data.jsonl"},
        str(base): {"chat_template.jinja", "model.safetensors"},
    }
