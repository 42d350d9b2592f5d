"""TRL's rows: ``messages``; ``prompt``, ``completion``; ``prompt``, ``chosen``, ``rejected``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast, get_args

from alignment.data.formats.hh import is_transcript, pair_of_dialogues, parse_transcript
from alignment.data.formats.row_format import (
    AnswerPair,
    Format,
    comparison_reader,
    demonstration_reader,
    has_keys,
    kind_of,
    prompt_reader,
    turn_of,
    until_user,
)
from alignment.data.formats.row_labels import Row, check_is_one_text
from alignment.data.records import ChatRole, Dialogue, Message


def _messages(value: object, key: str) -> Dialogue:
    if not isinstance(value, Iterable) or isinstance(value, str | Mapping):
        raise ValueError(f"{key!r} must be a list of messages, is {kind_of(value)}")
    return tuple(_message(item, f"{key}[{position}]") for position, item in enumerate(value))


def _message(item: object, where: str) -> Message:
    if not isinstance(item, Mapping) or not {"role", "content"} <= item.keys():
        raise ValueError(f"{where} must be an object with 'role' and 'content'")
    role, content = item["role"], item["content"]
    if role not in get_args(ChatRole):
        raise ValueError(f"{where} has role {role!r}; known are {', '.join(get_args(ChatRole))}")
    if not isinstance(content, str):
        raise ValueError(f"{where} has content that is {kind_of(content)}, not a text")
    if (weight := item.get("weight")) not in (None, 1):
        raise ValueError(f"{where} has weight {weight!r}: a turn is learned from or not by its place alone")
    return turn_of(cast(ChatRole, role), content)


def _trl_prompt_part(value: object) -> Dialogue:
    if isinstance(value, str):
        if is_transcript(value) and value.rstrip().endswith("Assistant:"):
            return parse_transcript(value.rstrip().removesuffix("Assistant:"))
        check_is_one_text(value, "prompt")
        return (turn_of("user", value),)
    return _messages(value, "prompt")


def _trl_answered(row: Row, key: str) -> Dialogue:
    """The dialogue ending with the answer under ``key``: a text, a turn or a whole dialogue."""
    value = row.get(key)
    if isinstance(value, str):
        if row.get("prompt") is None:
            raise ValueError(f"{key!r} is a text, so 'prompt' is needed")
        return (*_trl_prompt_part(row["prompt"]), turn_of("assistant", value))
    if key not in row:
        raise ValueError(f"{key!r} is missing")
    turns = _messages(value, key)
    if turns and turns[0].role == "assistant":
        return (*_trl_prompt_part(row.get("prompt")), *turns)
    return turns


def trl_pair(row: Row) -> AnswerPair:
    """A pair from ``chosen`` and ``rejected``, with or without a ``prompt`` of their own."""
    return pair_of_dialogues(_trl_answered(row, "chosen"), _trl_answered(row, "rejected"))


def trl_demonstration(row: Row) -> Dialogue:
    """A dialogue from ``messages``, ``prompt`` and ``completion``, or the preferred answer."""
    if row.get("messages") is not None:
        return _messages(row["messages"], "messages")
    return _trl_answered(row, "chosen" if row.get("completion") is None else "completion")


def trl_prompt(row: Row) -> Dialogue:
    """The dialogue up to its last user turn."""
    if row.get("messages") is None and isinstance(row.get("prompt"), list):
        return _messages(row["prompt"], "prompt")
    if row.get("messages") is None and row.get("prompt") is not None and not isinstance(row.get("chosen"), list):
        return _trl_prompt_part(row["prompt"])
    return until_user(trl_demonstration(row))


_has_prompt = has_keys("prompt")
_has_two_answers = has_keys("chosen", "rejected")
_has_messages = has_keys("messages")
_has_completion = has_keys("prompt", "completion")


def is_trl_demonstration(row: Row) -> bool:
    """Whether a row has what a demonstration needs."""
    return _has_messages(row) or _has_completion(row) or _has_two_answers(row)


TRL = Format(
    comparisons=comparison_reader(_has_two_answers, trl_pair),
    demonstrations=demonstration_reader(is_trl_demonstration, trl_demonstration),
    prompts=prompt_reader(lambda row: _has_prompt(row) or is_trl_demonstration(row), trl_prompt),
)
