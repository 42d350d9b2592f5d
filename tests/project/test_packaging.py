"""The files that ship with the project are found in a checkout and from an installed wheel, in any folder."""

from __future__ import annotations

import os
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import child_process
import pytest

from alignment import files
from alignment.files import resolve, resource

ROOT = Path(__file__).resolve().parents[2]


def test_resource_is_the_file_of_the_checkout() -> None:
    assert resource("configs/toy.yaml") == ROOT / "configs" / "toy.yaml"


@pytest.mark.parametrize("path", ["/etc/hosts", "configs/../pyproject.toml", "pyproject.toml", ""])
def test_resource_refuses_what_is_not_shipped(path: str) -> None:
    with pytest.raises(ValueError, match="not a resource"):
        resource(path)


def test_checkout_is_recognised_by_its_name_not_by_any_pyproject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "alignment"
    monkeypatch.setattr(files, "_PACKAGE", package)
    packaged = package / "_resources" / "configs" / "toy.yaml"
    assert resource("configs/toy.yaml") == packaged
    for text in ('[project]\nname = "another"\n', "[tool]\n", "not toml ="):
        (tmp_path / "pyproject.toml").write_text(text)
        assert resource("configs/toy.yaml") == packaged
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "tandem-rlhf"\n')
    assert resource("configs/toy.yaml") == tmp_path / "configs" / "toy.yaml"


def test_resolve_knows_the_home_folder_and_other_names_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert resolve("~/pairs.jsonl") == Path("/home/ada/pairs.jsonl")
    assert resolve("~no such person.jsonl") == Path("~no such person.jsonl")


def test_resolve_prefers_the_current_folder_then_the_shipped_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, here = tmp_path / "checkout", tmp_path / "here"
    for folder in (checkout, here):
        (folder / "data").mkdir(parents=True)
    (checkout / "pyproject.toml").write_text('[project]\nname = "tandem-rlhf"\n')
    (checkout / "data" / "x.jsonl").write_text("shipped")
    (checkout / "notes.txt").write_text("not a resource")
    monkeypatch.setattr(files, "_PACKAGE", checkout / "alignment")
    monkeypatch.chdir(here)

    assert resolve("data/x.jsonl").read_text() == "shipped"
    (here / "data" / "x.jsonl").write_text("mine")
    assert resolve("data/x.jsonl").read_text() == "mine"
    for absent in ("data/typo.jsonl", "notes.txt", "data/../notes.txt", str(here / "gone.jsonl")):
        assert resolve(absent) == Path(absent)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed; it comes with the dev extra")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = child_process.run([*command, "-w", folder, ROOT])
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("tandem_rlhf-*.whl")
    return built


@pytest.mark.integration
def test_wheel_carries_every_recipe_all_toy_data_and_the_templates(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = [path for folder in ("configs", "data/toy") for path in (ROOT / folder).rglob("*") if path.is_file()]
    expected = {f"alignment/_resources/{path.relative_to(ROOT).as_posix()}" for path in shipped}
    assert "alignment/_resources/configs/toy.yaml" in expected
    assert any(name.startswith("alignment/_resources/data/toy/") for name in expected)
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "alignment/report").glob("page.*")}
    assert templates
    modules = {"alignment/py.typed", "alignment/files.py", "stages/pipeline/__main__.py"}
    assert expected | templates | modules <= names
    assert not any(name.startswith(("tests/", "runs/")) for name in names)


@pytest.mark.integration
def test_installed_wheel_finds_its_files_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    program = "from alignment.files import resolve; print(resolve('configs/toy.yaml'))"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = child_process.run([sys.executable, "-c", program], cwd=elsewhere, env=environment, check=True)
    found = Path(done.stdout.strip())
    assert found == site / "alignment" / "_resources" / "configs" / "toy.yaml"
    assert found.read_bytes() == (ROOT / "configs" / "toy.yaml").read_bytes()
