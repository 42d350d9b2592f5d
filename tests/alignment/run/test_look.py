"""What files held when they were looked at, and what is another later."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.run.look import Look, same
from alignment.run.manifest import Manifests
from alignment.run.stage_records import files_to_read
from alignment.settings.read_recipe import load_recipe


def test_an_edited_file_is_another_and_one_that_was_written_again_is_not(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    for file in (one, two):
        file.write_text("a\n")
    manifests = Manifests(tmp_path / "run")
    before = manifests.look_at([one, two])
    one.write_text("b\n")
    two.write_text("a\n")
    assert before.others(manifests.look_at([one, two])) == [str(one)]
    assert before.others(manifests.look_at([two])) == [], "what was not looked at again"
    assert Look().others(before) == []


def test_a_link_that_leads_to_another_file_is_another_and_where_it_led_is_known(tmp_path: Path) -> None:
    for name, text in (("v3", "three\n"), ("v4", "four\n"), ("copy", "three\n")):
        (tmp_path / name).write_text(text)
    latest, manifests = tmp_path / "latest", Manifests(tmp_path / "run")
    latest.symlink_to("v3")
    before = manifests.look_at([latest])
    found = before.at(latest)
    assert found is not None and found[0] == str(tmp_path.resolve() / "v3")
    for target, others in (("v4", [str(latest)]), ("copy", [])):
        latest.unlink()
        latest.symlink_to(target)
        assert before.others(manifests.look_at([latest])) == others, target
        assert before.at(latest) == found
    assert before.at(tmp_path / "v3") == found, "by its own name"
    assert before.at(tmp_path / "v4") is None


def test_a_folder_is_the_same_by_its_files_and_a_file_by_whatever_name(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    assert same(file, {"a": "1"}, {"b": "1"}) and not same(file, {"a": "1"}, {"a": "2"})
    assert same(folder, {"a": "1"}, {"a": "1"}) and not same(folder, {"a": "1"}, {"b": "1"})


def test_settings_of_the_app_may_be_edited_while_people_judge(tmp_path: Path) -> None:
    file = tmp_path / "ui.yaml"
    file.touch()
    settings = ["annotate.source=ui", f"annotate.ui_settings={file}"]
    assert file not in files_to_read(load_recipe(None, settings).model_dump(mode="json"), "annotate")


def test_a_folder_of_the_name_toy_is_no_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, found in (("toy", []), ("mine", [Path("mine")])):
        values = load_recipe(None, [f"model.name_or_path={name}"]).model_dump(mode="json")
        assert [path for path in files_to_read(values, "sft") if path.is_dir()] == found
