"""The house: rooms with few enough modules, names with one meaning, and recipes and run folders in few hands."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("alignment", "annotation_ui", "stages")
MODULES = [
    file.relative_to(ROOT)
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
    if file.name not in ("__init__.py", "__main__.py")
]
MOST, MOST_AT_THE_TOP = 14, 9
TOPS = (*PACKAGES, "alignment/workflow")

SAME_MODULE_NAME: dict[str, str] = {}
"""Module names that stand twice, and why that is no riddle."""
SAME_CLASS_NAME: dict[str, str] = {}
"""Class names that stand twice, and why that is no riddle."""
HOLDERS = ("alignment/workflow/", "alignment/run/", "stages/")
"""Where a function may take a whole recipe or a run folder."""
OTHER_HOLDERS: dict[str, str] = {
    "alignment/settings/read_recipe.py": "reads and writes recipes: the door to them",
    "annotation_ui/answers/load_variants.py": "the app's named loader of a run's policies",
}


def folders() -> dict[str, list[str]]:
    """Folder -> the modules directly in it."""
    found: dict[str, list[str]] = defaultdict(list)
    for module in MODULES:
        found[module.parent.as_posix()].append(module.name)
    return found


@pytest.mark.parametrize("folder", sorted(folders()))
def test_a_folder_has_few_enough_modules_to_look_through(folder: str) -> None:
    modules = folders()[folder]
    assert len(modules) <= (MOST_AT_THE_TOP if folder in TOPS else MOST), modules


def test_a_module_name_means_one_thing() -> None:
    places: dict[str, list[Path]] = defaultdict(list)
    for module in MODULES:
        places[module.stem].append(module)
    twice = {name: files for name, files in places.items() if len(files) > 1}
    assert twice.keys() == SAME_MODULE_NAME.keys(), twice


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, list[Path]] = defaultdict(list)
    for module in MODULES:
        for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module)
    twice = {name: files for name, files in places.items() if len(files) > 1}
    assert twice.keys() <= SAME_CLASS_NAME.keys(), twice


def takers(file: Path) -> Iterator[str]:
    """The functions of a module that take a ``Recipe`` or a ``RunFolder``, by their annotations."""
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            kinds = [ast.unparse(argument.annotation) for argument in arguments if argument.annotation]
            if any(word in ("Recipe", "RunFolder") for kind in kinds for word in _words(kind)):
                yield node.name


def _words(annotation: str) -> list[str]:
    return "".join(letter if letter.isalnum() or letter == "_" else " " for letter in annotation).split()


def test_a_whole_recipe_or_run_folder_is_taken_by_what_runs_a_stage_only() -> None:
    found = {module.as_posix(): list(takers(module)) for module in MODULES}
    others = {file: names for file, names in found.items() if names and not file.startswith(HOLDERS)}
    assert others.keys() == OTHER_HOLDERS.keys(), others


def test_what_the_rule_of_recipes_looks_for_is_there() -> None:
    assert "check_sft" in set(takers(Path("stages/door/preconditions.py")))
