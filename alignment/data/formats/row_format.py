"""What a format is: how one row of somebody's file becomes a comparison, a demonstration or a prompt.

A format answers two questions for each kind of record: whether a row holds one, and which. Whatever a row does not say
of its record (an id, what the answers were compared by) comes from ``RowDefaults``. Most formats know nothing of ids
and dimensions: they say how to read the two answers or the turns, and ``comparison_reader`` and its siblings do the
rest.

``FORMATS`` lists all formats by name; each stands in a module beside this one.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

from alignment.data.formats.row_labels import (
    NoPreference,
    Row,
    check_is_to_be_imitated,
    dimension_of,
    grade_of,
    in_context,
    safety_of,
)
from alignment.data.records import ChatRole, Comparison, Demonstration, Dialogue, Dimension, Grade, Message, Prompt
from alignment.data.splits import first_turn_key

R_co = TypeVar("R_co", bound=BaseModel, covariant=True)


@dataclass(frozen=True)
class RowDefaults:
    """What a record gets where its row does not say it.

    Attributes:
        id: made of the file's name and the row's number.
        dimension: what the whole file is about.
    """

    id: str
    dimension: Dimension


@dataclass(frozen=True)
class RowReader(Generic[R_co]):
    """How a format recognises and reads one kind of record.

    Attributes:
        recognises: whether a row looks as if it held one.
        read: the record of a row; raises ``ValueError`` for a malformed row, ``NoPreference`` for one to leave out.
    """

    recognises: Callable[[Row], bool]
    read: Callable[[Row, RowDefaults], R_co]


@dataclass(frozen=True)
class Format:
    """A format of rows.

    Attributes:
        comparisons: of two answers to a prompt.
        demonstrations: dialogues to imitate; of a comparison, the one with the preferred answer.
        prompts: all up to the last user turn.
    """

    comparisons: RowReader[Comparison]
    demonstrations: RowReader[Demonstration]
    prompts: RowReader[Prompt]


FORMATS = {
    "tandem": "alignment.data.formats.tandem:TANDEM",
    "alpaca_eval": "alignment.data.formats.alpaca:ALPACA_EVAL",
    "alpaca": "alignment.data.formats.alpaca:ALPACA",
    "hh": "alignment.data.formats.hh:HH",
    "trl": "alignment.data.formats.trl:TRL",
}
"""Name -> where the format stands, in the order in which formats are tried: a module a format, beside this one."""


def known_formats() -> dict[str, Format]:
    """Every format by its name; their modules are opened here, once there is something to read."""
    return {name: pkgutil.resolve_name(place) for name, place in FORMATS.items()}


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to a prompt, the preferred one first."""

    prompt: Dialogue
    chosen: str
    rejected: str
    grade: Grade | None = None


def comparison_reader(recognises: Callable[[Row], bool], pair: Callable[[Row], AnswerPair]) -> RowReader[Comparison]:
    """The reader of a format whose rows hold a pair of answers."""

    def read(row: Row, defaults: RowDefaults) -> Comparison:
        answers = pair(row)
        prompt = in_context(row, answers.prompt)
        conversation = row.get("conversation_id")
        return Comparison(
            id=defaults.id,
            prompt=prompt,
            chosen=(turn_of("assistant", answers.chosen),),
            rejected=(turn_of("assistant", answers.rejected),),
            dimension=check_about(row, defaults.dimension),
            grade=grade_of(row) or answers.grade,
            safety=safety_of(row),
            conversation_id=first_turn_key(prompt) if conversation is None else str(conversation),
        )

    return RowReader(recognises, read)


def demonstration_reader(
    recognises: Callable[[Row], bool], dialogue: Callable[[Row], Dialogue]
) -> RowReader[Demonstration]:
    """The reader of a format whose rows hold a dialogue to imitate."""

    def read(row: Row, defaults: RowDefaults) -> Demonstration:
        check_is_to_be_imitated(row)
        return Demonstration(id=defaults.id, messages=in_context(row, dialogue(row)))

    return RowReader(recognises, read)


def prompt_reader(recognises: Callable[[Row], bool], dialogue: Callable[[Row], Dialogue]) -> RowReader[Prompt]:
    """The reader of a format whose rows hold a dialogue up to a user turn."""

    def read(row: Row, defaults: RowDefaults) -> Prompt:
        tag = dimension_of(row, defaults.dimension)
        return Prompt(id=defaults.id, messages=in_context(row, dialogue(row)), dimension=tag, kind=tag)

    return RowReader(recognises, read)


def check_about(row: Row, dimension: Dimension) -> Dimension:
    """What a comparison is about; raise ``NoPreference`` if that is not what the file is read for."""
    if (about := dimension_of(row, dimension)) != dimension:
        raise NoPreference(f"about {about}")
    return about


def text_at(row: Row, key: str, *, optional: bool = False) -> str:
    """The text at a key; raise ``ValueError`` if it is no text, or missing and not ``optional``."""
    value = row.get(key)
    if value is None and optional:
        return ""
    if key not in row:
        raise ValueError(f"{key!r} is missing")
    if not isinstance(value, str):
        raise ValueError(f"{key!r} must be a text, is {kind_of(value)}")
    return value


def kind_of(value: object) -> str:
    """What a value is, for messages."""
    return "null" if value is None else type(value).__name__


def turn_of(role: ChatRole, text: str) -> Message:
    """One message."""
    return Message(role=role, content=text)


def make_pair(prompt: Dialogue, chosen: str, rejected: str, grade: Grade | None = None) -> AnswerPair:
    """A pair of two answers to one prompt.

    Args:
        prompt: the dialogue up to the user turn that both answer.
        chosen: text of the preferred answer.
        rejected: text of the other answer.
        grade: how much better the preferred answer is; ``None`` where the row does not say.

    Raises:
        ValueError: one of the answers is empty.
        NoPreference: the answers are the same.
    """
    for name, answer in (("preferred", chosen), ("other", rejected)):
        if not answer.strip():
            raise ValueError(f"the {name} answer is empty")
    if chosen.strip() == rejected.strip():
        raise NoPreference("without a preference (equal answers)")
    return AnswerPair(prompt=prompt, chosen=chosen, rejected=rejected, grade=grade)


def chosen_side(pair: AnswerPair) -> Dialogue:
    """The dialogue that ends with the preferred answer."""
    return (*pair.prompt, turn_of("assistant", pair.chosen))


def until_user(messages: Dialogue) -> Dialogue:
    """The dialogue without the answer at its end, if there is one."""
    return messages[:-1] if messages and messages[-1].role == "assistant" else messages


def has_keys(*keys: str) -> Callable[[Row], bool]:
    """A test whether a row has all of these keys."""
    return lambda row: all(row.get(key) is not None for key in keys)
