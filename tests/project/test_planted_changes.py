"""Planted and explained changes still stand where the lists say, and their tests are there; planting them takes longer.

Whether the tests catch them is seen by ``make mutants ARGS=--planted``.
"""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


def rows(name: str) -> list[dict[str, Any]]:
    return json.loads((BENCHMARKS / name).read_text(encoding="utf-8"))


PLANTED = rows("planted_changes.json")
ANCHORED = [*PLANTED, *rows("explained_mutants.json")]


@pytest.fixture
def anchors(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("mutant_anchors")


def is_test(name: str) -> bool:
    """Whether a test is defined where its id says."""
    file, *names = name.partition("[")[0].split("::")
    if not (ROOT / file).is_file():
        return False
    node: Any = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    for part in names:
        node = next((item for item in getattr(node, "body", ()) if getattr(item, "name", None) == part), None)
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def test_the_list_holds_the_27_wrong_changes() -> None:
    assert {int("".join(filter(str.isdigit, row["number"]))) for row in PLANTED} == set(range(1, 28))
    assert len({row["number"] for row in PLANTED}) == len(PLANTED)


def test_every_old_text_stands_once_in_its_function(anchors: Any) -> None:
    lost = []
    for row in PLANTED:
        mutant = anchors.Mutant.of(row)
        source = (ROOT / mutant.module).read_text(encoding="utf-8")
        if (found := len(anchors.places(mutant, source))) != 1:
            lost.append(f"{row['number']}: {found} times in {mutant.function} of {mutant.module}: {mutant.old!r}")
    assert lost == []


def test_every_change_leaves_a_module_that_can_be_read_and_is_another(anchors: Any) -> None:
    for row in ANCHORED:
        mutant = anchors.Mutant.of(row)
        source = (ROOT / mutant.module).read_text(encoding="utf-8")
        assert ast.dump(ast.parse(anchors.changed(mutant, source))) != ast.dump(ast.parse(source)), row


def test_every_test_that_is_to_catch_one_is_there() -> None:
    assert [row["test"] for row in PLANTED if not is_test(row["test"])] == []


def test_a_test_that_is_not_there_is_found() -> None:
    here = "tests/project/test_planted_changes.py"
    assert is_test(f"{here}::test_a_test_that_is_not_there_is_found")
    assert not is_test(f"{here}::test_no_such")
    assert not is_test("tests/project/test_no_such.py::test_a_test_that_is_not_there_is_found")
    assert not is_test(f"{here}::is_test")


def test_every_explained_change_has_its_reason() -> None:
    assert [row for row in ANCHORED[len(PLANTED) :] if len(row["why"].split()) < 4] == []
