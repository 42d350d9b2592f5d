"""What stands between a command line and the stage: a check that comes first, and a signal that loses nothing."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.settings.read_recipe import load_recipe
from alignment.settings.recipe import Recipe
from stages.door.command_line import open_page, run_stage
from stages.door.progress_and_exit import guarded

SWALLOWS = """
import signal
try:
    signal.raise_signal(signal.{signal})
except BaseException:
    pass
"""


def page_with(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / "page_of_test.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "page_of_test", raising=False)
    return "page_of_test"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another matter on Windows")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_while_a_library_is_imported_stops_the_stage_even_where_the_library_takes_it_for_an_error(
    name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_with(tmp_path, SWALLOWS.format(signal=name), monkeypatch)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert guarded(lambda: open_page(page, load_recipe())) == code
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_stage_that_cannot_begin_is_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_with(tmp_path, "raise AssertionError('imported')", monkeypatch)

    def refuse(recipe: Recipe) -> None:
        raise UserError(f"not with seed {recipe.seed}")

    assert run_stage("sft", refuse, page=page, argv=["seed=3"]) == 2
