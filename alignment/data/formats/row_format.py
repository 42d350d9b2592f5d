"""What a format is: how one row of somebody's file says a prompt, a demonstration or a pair of answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alignment.data.records import Dialogue, Grade, Message, Role

Row = Mapping[str, Any]


class NoPreference(Exception):
    """A sound row that has nothing to learn from; its text is the reason that the report counts."""


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt, the preferred one first."""

    prompt: Dialogue
    chosen: str
    rejected: str
    grade: Grade | None = None


@dataclass(frozen=True)
class Format:
    """How to recognise and read a format.

    Attributes:
        has_pair: whether a row looks like a comparison in this format.
        has_demonstration: whether it holds a dialogue to imitate.
        has_prompt: whether it holds at least a prompt.
        pair: the comparison of a row.
        demonstration: the dialogue to imitate; of a comparison, the one with the preferred answer.
        prompt: the dialogue up to the last user turn.
    """

    has_pair: Callable[[Row], bool]
    has_demonstration: Callable[[Row], bool]
    has_prompt: Callable[[Row], bool]
    pair: Callable[[Row], Pair]
    demonstration: Callable[[Row], Dialogue]
    prompt: Callable[[Row], Dialogue]


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


def turn_of(role: Role, text: str) -> Message:
    """One message."""
    return Message(role=role, content=text)


def make_pair(prompt: Dialogue, chosen: str, rejected: str, grade: Grade | None = None) -> Pair:
    """A pair of two answers to one prompt; raise if one is empty, or ``NoPreference`` if they are the same."""
    for name, answer in (("preferred", chosen), ("other", rejected)):
        if not answer.strip():
            raise ValueError(f"the {name} answer is empty")
    if chosen.strip() == rejected.strip():
        raise NoPreference("without a preference (equal answers)")
    return Pair(prompt=prompt, chosen=chosen, rejected=rejected, grade=grade)


def chosen_side(pair: Pair) -> Dialogue:
    """The dialogue that ends with the preferred answer."""
    return (*pair.prompt, turn_of("assistant", pair.chosen))


def until_user(messages: Dialogue) -> Dialogue:
    """The dialogue without the answer at its end, if there is one."""
    return messages[:-1] if messages and messages[-1].role == "assistant" else messages


def has_keys(*keys: str) -> Callable[[Row], bool]:
    """A test whether a row has all of these keys."""
    return lambda row: all(row.get(key) is not None for key in keys)
