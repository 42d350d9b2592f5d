"""Rows that hold a mark of the chat template are left out where that is asked for, and counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from alignment.data.encoded_dialogues import without_marks
from alignment.data.records import Comparison, Demonstration, Message, Prompt

LLAMA_2: Any = SimpleNamespace(control_markers=("[INST]", "<<SYS>>"))
NO_MARKS: Any = SimpleNamespace(control_markers=())


AnyRow = Prompt | Demonstration | Comparison


def said(*texts: str) -> tuple[Message, ...]:
    """Messages by user and assistant in turn."""
    return tuple(Message(role="assistant" if place % 2 else "user", content=text) for place, text in enumerate(texts))


def comparison(asked: str, chosen: str, rejected: str) -> Comparison:
    sides = {
        side: (Message(role="assistant", content=text),) for side, text in (("chosen", chosen), ("rejected", rejected))
    }
    return Comparison(id="c", prompt=said(asked), dimension="helpfulness", conversation_id="d", **sides)


CLEAN: list[Any] = [
    Prompt(id="p", messages=said("why INST")),
    Demonstration(id="s", messages=said("why", "so [1]")),
    comparison("why", "so", "no"),
]
MARKED: list[Any] = [
    Prompt(id="p", messages=said("why [INST]")),
    Prompt(id="p", messages=said("why", "so <<SYS>>", "and then")),
    Demonstration(id="s", messages=said("why", "so [INST] it is")),
    comparison("why [INST]", "so", "no"),
    comparison("why", "[INST]", "no"),
    comparison("why", "so", "no<<SYS>>"),
]


@pytest.mark.parametrize("marked", MARKED)
def test_a_mark_in_any_text_of_a_row_leaves_it_out(marked: AnyRow) -> None:
    rows = [CLEAN[0], marked, *CLEAN[1:], marked]
    assert without_marks(rows, LLAMA_2, on_error="skip") == (CLEAN, {"with a mark of the chat template": 2})


def test_rows_without_one_stay_and_nothing_is_counted() -> None:
    assert without_marks(CLEAN, LLAMA_2, on_error="skip") == (CLEAN, {})


def test_all_stay_where_marks_are_tokens_or_an_error_is_wanted() -> None:
    rows = [*CLEAN, *MARKED]
    assert without_marks(rows, NO_MARKS, on_error="skip") == (rows, {})
    assert without_marks(rows, LLAMA_2, on_error="raise") == (rows, {})
