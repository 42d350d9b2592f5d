"""hh-rlhf's rows: ``chosen`` and ``rejected`` as transcripts of whole dialogues."""

from __future__ import annotations

import re

from alignment.data.formats.row_format import (
    AnswerPair,
    Format,
    comparison_reader,
    demonstration_reader,
    make_pair,
    prompt_reader,
    text_at,
    turn_of,
    until_user,
)
from alignment.data.formats.row_labels import NoPreference, Row
from alignment.data.records import ChatRole, Dialogue

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_HH_ROLES: dict[str, ChatRole] = {"Human": "user", "Assistant": "assistant"}


def is_transcript(value: object) -> bool:
    """Whether a value is a dialogue written as one text with speakers."""
    return isinstance(value, str) and value.lstrip().startswith(("Human:", "Assistant:"))


def parse_transcript(text: str) -> Dialogue:
    """Split a raw transcript into turns.

    Raises:
        ValueError: text stands before the first turn.
    """
    head, *parts = _TURN.split(text.lstrip())
    if head.strip() or not parts:
        raise ValueError("the transcript does not start with 'Human:'")
    return tuple(turn_of(_HH_ROLES[name], text.strip()) for name, text in zip(parts[::2], parts[1::2], strict=True))


def hh_pair(row: Row) -> AnswerPair:
    """A pair from two transcripts that differ in their last turn."""
    chosen, rejected = parse_transcript(text_at(row, "chosen")), parse_transcript(text_at(row, "rejected"))
    return pair_of_dialogues(chosen, rejected)


def pair_of_dialogues(chosen: Dialogue, rejected: Dialogue) -> AnswerPair:
    """The comparison of two whole dialogues that differ in the last answer."""
    if chosen == rejected:
        raise NoPreference("without a preference (equal answers)")
    for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
        if not dialogue or dialogue[-1].role != "assistant":
            raise ValueError(f"{name} does not end with a turn by the assistant")
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("chosen and rejected differ before the last answer, so they do not answer the same prompt")
    return make_pair(chosen[:-1], chosen[-1].content, rejected[-1].content)


def hh_demonstration(row: Row) -> Dialogue:
    """The preferred transcript."""
    return parse_transcript(text_at(row, "chosen"))


def has_chosen_transcript(row: Row) -> bool:
    """Whether a row has a preferred transcript, and no prompt apart from it."""
    return row.get("prompt") is None and is_transcript(row.get("chosen"))


def has_two_transcripts(row: Row) -> bool:
    """Whether a row compares two transcripts."""
    return has_chosen_transcript(row) and is_transcript(row.get("rejected"))


HH = Format(
    comparisons=comparison_reader(has_two_transcripts, hh_pair),
    demonstrations=demonstration_reader(has_chosen_transcript, hh_demonstration),
    prompts=prompt_reader(has_chosen_transcript, lambda row: until_user(hh_demonstration(row))),
)
