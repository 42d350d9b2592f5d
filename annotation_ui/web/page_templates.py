"""The one page maker of the app: templates that escape every text, and the pieces of the annotation page made of them.

The annotation page is sent in pieces, each of them a pure function of a view. Text of models, people and guidelines
goes through ``annotation_ui.web.safe_html``; everything else is escaped by the templates themselves, which find all
words in ``annotation_ui.texts``. There are no variants, seeds or slots in a view, so there are none in the pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import alignment.report
from alignment.data.records import GRADES
from alignment.report.number_formats import decimal, interval, number, percent
from annotation_ui import texts
from annotation_ui.desk.view import PastJudgment, View
from annotation_ui.store.judgment_values import MAX_NOTE_CHARS
from annotation_ui.vocabulary import Pane, Side, meaning_of
from annotation_ui.web import safe_html

CONTENT_WARNING = Path(__file__).parents[1] / "guidelines" / "content_warning.md"
LETTERS: dict[Side, str] = {"left": "A", "right": "B"}
_IN_STATE = (
    "project dimension phase kind comparison_id submission_id asks_safety may_prompt may_fetch undoable editing "
    "turn max_turns max_prompt_chars user guidelines_sha256"
).split()


# -- templates --------------------------------------------------------------------------------------------------------


@cache
def page_templates() -> Environment:
    """The templates of the app, and the macros of the run report, compiled once; what is not given is an error."""
    folders = [Path(__file__).parents[1] / "templates", Path(alignment.report.__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["texts"] = texts
    environment.filters.update(number=number, interval=interval, percent=percent, decimal=decimal)
    environment.filters.update(
        answer_html=lambda text, raw=False: Markup(safe_html.answer_html(text, raw=raw)),
        prompt_html=lambda text: Markup(safe_html.prompt_html(text)),
        guidelines_html=_guidelines_html,
    )
    return environment


@cache
def _guidelines_html(markdown: str) -> Markup:
    return Markup(safe_html.guidelines_html(markdown))


def make_page(template: str, **values: Any) -> str:
    """A whole page, from a template and what it asks for."""
    return page_templates().get_template(template).render(**values)


@cache
def _pieces() -> Any:
    """The macros of the annotation page, as functions."""
    return page_templates().get_template("annotation_page.html.j2").module


@cache
def _content_warning() -> str:
    return CONTENT_WARNING.read_text(encoding="utf-8")


# -- what the script is told ------------------------------------------------------------------------------------------


def page_state(view: View) -> dict[str, Any]:
    """What the script of the page has to know of a view; all of it may be seen by the annotator."""
    state = {name: getattr(view, name) for name in _IN_STATE}
    return {**state, "draft": asdict(view.draft), "progress": asdict(view.progress)}


def part_keys(view: View) -> dict[str, str]:
    """Names what the conversation and the answers show; empty where they can change under the same comparison."""
    complete = view.phase in ("open", "judged", "explained") and view.comparison_id is not None
    scene_key = f"{view.comparison_id} {view.editing} {view.phase == 'explained'}"
    return {"scene": scene_key if complete else "", "answers": str(view.comparison_id) if complete else ""}


# -- the pieces -------------------------------------------------------------------------------------------------------


def top(view: View) -> str:
    """The bar at the top: brand, projects, the way out, progress, who is signed in."""
    return str(_pieces().top(view))


def scene(view: View) -> str:
    """Banner, conversation and prompt; or the card that stands in the middle when there is nothing to read."""
    return str(_pieces().scene(view, _content_warning()))


def answer_pane(side: Side, answer: Pane | None) -> str:
    """One answer, rendered and as raw text; the script shows one of the two."""
    return str(_pieces().answer_pane(side, LETTERS[side], answer or Pane("", done=False)))


def guidelines(view: View) -> str:
    """The guidelines of the project."""
    return str(_pieces().guidelines(view))


def history(entries: Sequence[PastJudgment]) -> str:
    """The annotator's own last judgments, with what can be done about them."""
    return str(_pieces().history(entries))


def shortcut_list() -> str:
    """All keys, folded, for the panel at the side."""
    return str(_pieces().shortcut_list())


def foot() -> str:
    """What never changes: the prompt box, the judging bar with its eight options, the status line, the help."""
    options = [(letter, [_option(first + step) for step in range(4)]) for letter, first in (("A", 1), ("B", 5))]
    return str(_pieces().foot(options, texts.SKIP_REASONS, MAX_NOTE_CHARS))


def _option(number: int) -> tuple[int, int, str]:
    """Number, strength (0 strongest) and label of an option of the judging bar."""
    grade = meaning_of(number)[1]
    return number, GRADES.index(grade), texts.GRADE_LABELS[grade]
