"""Pairs of answers to be judged, and items with a known answer, as JSON Lines of one's own.

    {"id": "p1", "prompt": "Why is the sky blue?", "answer_a": "...", "answer_b": "...", "model_a": "sft@0.7"}

``messages`` in place of ``prompt`` gives a whole dialogue; ``model_a``, ``model_b``, ``dimension``, ``kind`` and
``cut_off`` (slots of answers that only the length limit ended) may be left out. ``expected`` makes a gold item of it:

    "expected": {"choice": "a", "grades": ["significantly_better", "better"], "safety": null, "kind": "gold"}
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from pydantic import ValidationError, model_validator

from alignment.data.jsonl_and_raw_rows import OnError, ReadReport, UnreadableRow, iter_rows
from alignment.data.records import Dimension, Prompt, SafetyBin, explain
from alignment.errors import UserError
from annotation_ui.desk.exercises import Exercise, Expected, Text
from annotation_ui.store.items import NewItem
from annotation_ui.store.pairs import NewAnswer, VariantInfo
from annotation_ui.vocabulary import Slot

IMPORTED = VariantInfo("imported")
"""Who wrote answers of which nothing is known."""


class Key(Expected):
    """The known answer of a gold item; ``attention``: nobody who reads both answers misses it."""

    safety: SafetyBin | None = None
    kind: Literal["gold", "attention"] = "gold"


class PairLine(Prompt):
    """Two answers to a prompt, as a line of one's own file has them."""

    answer_a: Text
    answer_b: Text
    model_a: str | None = None
    model_b: str | None = None
    cut_off: tuple[Slot, ...] = ()
    expected: Key | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_prompt(cls, row: Any) -> Any:
        if not isinstance(row, Mapping) or "prompt" not in row:
            return row
        if "messages" in row:
            raise ValueError("give either prompt or messages")
        prompt = row["prompt"]
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return {**{key: value for key, value in row.items() if key != "prompt"}, "messages": messages}

    @model_validator(mode="after")
    def _answers_differ(self) -> PairLine:
        if self.answer_a.split() == self.answer_b.split():
            raise ValueError("the two answers are equal")
        return self


def has_own_pairs(path: str) -> bool:
    """Whether the first record of a file is a pair of one's own."""
    first = next((row for _, row in iter_rows(path) if isinstance(row, Mapping)), {})
    return not first.keys().isdisjoint({"answer_a", "answer_b"})


def own_pairs(path: str, dimension: Dimension, report: ReadReport, on_error: OnError) -> Iterator[NewItem]:
    """The pairs of a file that are about a dimension; what is left out is counted.

    Args:
        path: of the file.
        dimension: of the project.
        report: counts what is left out.
        on_error: what to do with malformed rows: raise, or leave out and count.

    Raises:
        UserError: a malformed row, and ``on_error`` is ``raise``; names file and row.
    """
    for where, row in iter_rows(path):
        try:
            line = _parse(row, dimension)
        except ValueError as error:
            problem = explain(error) if isinstance(error, ValidationError) else str(error)
            if on_error == "raise":
                raise UserError(f"{path}, {where}: {problem}. Mend it, or pass data.on_error=skip.") from error
            report.skip("malformed", f"{where}: {problem}")
            continue
        if line.dimension != dimension:
            report.skip(f"about {line.dimension}", str(where))
            continue
        yield _item_of(line)


def _parse(row: Any, dimension: Dimension) -> PairLine:
    if isinstance(row, UnreadableRow):
        raise row
    if not isinstance(row, Mapping):
        raise ValueError(f"expected an object, found {type(row).__name__}")
    about = row.get("dimension", dimension)
    return PairLine.model_validate({"dimension": about, "kind": about, **row})


def _item_of(line: PairLine) -> NewItem:
    return NewItem(
        id=line.id,
        messages=line.messages,
        answers=_answers(line.answer_a, line.answer_b, line.cut_off, line.model_a, line.model_b),
        source="queue" if line.expected is None else "gold",
        kind=line.kind,
        expected=None if line.expected is None else line.expected.model_dump(mode="json"),
    )


def attention_item(exercise: Exercise) -> NewItem:
    """An attention check as a gold item."""
    return NewItem(
        id=f"attention/{exercise.id}",
        messages=exercise.messages,
        answers=_answers(exercise.answers.a, exercise.answers.b, exercise.cut_off),
        source="gold",
        kind=exercise.kind,
        expected=Key(**exercise.expected.model_dump(), kind="attention").model_dump(mode="json"),
    )


def _answers(
    a: str, b: str, cut_off: Collection[Slot], model_a: str | None = None, model_b: str | None = None
) -> dict[Slot, NewAnswer]:
    def made(slot: Slot, text: str, model: str | None) -> NewAnswer:
        variant = IMPORTED if model is None else VariantInfo(model)
        return NewAnswer(text, variant, finish_reason="length" if slot in cut_off else None)

    return {"a": made("a", a, model_a), "b": made("b", b, model_b)}
