"""Which conversations are trained on and which are held out: split by conversation, and checked for overlap."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from alignment.data.records import Comparison, Demonstration, Message, Prompt
from alignment.errors import UserError


def dialogue_key(messages: Sequence[Message]) -> str:
    """A short hash of what a dialogue says: equal for dialogues that differ only in case and white space."""
    text = "\n".join(f"{message.role}: {' '.join(message.content.lower().split())}" for message in messages)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_no_overlap(
    train: Iterable[Sequence[Message]],
    heldout: Iterable[Sequence[Message]],
    *,
    train_name: str,
    heldout_name: str,
) -> None:
    """Raise ``UserError`` if a prompt of ``heldout`` is also in ``train``.

    Args:
        train: the dialogues to train on.
        heldout: the dialogues to measure with.
        train_name: what the error calls the first.
        heldout_name: what the error calls the second.
    """
    seen = {dialogue_key(messages) for messages in train}
    _refuse_shared([item for item in heldout if dialogue_key(item) in seen], train_name, heldout_name)


def _refuse_shared(shared: Sequence[Sequence[Message]], train_name: str, heldout_name: str) -> None:
    if shared:
        raise UserError(
            f"{len(shared)} prompts of {heldout_name} are also in {train_name}, the first: "
            f"{shared[0][-1].content[:80]!r}. Held-out figures would be worthless: remove them from one of the two."
        )


_QUOTES = dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u0060\u00b4"), "'") | dict.fromkeys(
    map(ord, "\u201c\u201d\u201e\u201f\u00ab\u00bb"), '"'
)
"""Quotation marks and apostrophes of all kinds -> the plain ones."""


def overlap_key(messages: Sequence[Message]) -> str:
    """What a dialogue says, for finding held-out prompts among others: case, quotes and end punctuation aside.

    Stricter than ``dialogue_key``, which stays as it is since conversations are split by it.
    """
    said = []
    for message in messages:
        text = unicodedata.normalize("NFKC", message.content.translate(_QUOTES)).casefold()
        said.append(f"{message.role}: {' '.join(text.split()).strip(_END_MARKS)}")
    return "\n".join(said)


_END_MARKS = " .,;:!?…\"'"


def user_ended(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """The beginnings of a dialogue that end with a user turn, itself included."""
    for place, message in enumerate(messages, start=1):
        if message.role == "user":
            yield messages[:place]


def check_heldout_apart(
    train: Iterable[Sequence[Message]],
    heldout: Iterable[Sequence[Message]],
    *,
    train_name: str,
    heldout_name: str,
) -> None:
    """Raise ``UserError`` if a held-out prompt is in some dialogue to train on, at its end or before.

    Args:
        train: the dialogues to train on.
        heldout: the prompts to measure with.
        train_name: what the error calls the first.
        heldout_name: what the error calls the second.
    """
    seen = {overlap_key(part) for messages in train for part in user_ended(messages)}
    _refuse_shared([item for item in heldout if overlap_key(item) in seen], train_name, heldout_name)


def first_turn_key(messages: Sequence[Message]) -> str:
    """Key of the first user turn: equal for all turns of a conversation and all answers to one prompt."""
    return dialogue_key([message for message in messages if message.role == "user"][:1])


def split_by_conversation(records: Sequence[S], *, heldout_fraction: float, seed: int) -> tuple[list[S], list[S]]:
    """Split into (train, held-out) so that no conversation is on both sides.

    The side of a conversation depends on its id and the seed alone, not on other records or their order.

    Args:
        records: what to split; order is kept on both sides.
        heldout_fraction: share of conversations to hold out, from 0 to 1; met exactly only on average.
        seed: another seed holds out other conversations.
    """
    if not 0 <= heldout_fraction <= 1:
        raise ValueError(f"heldout_fraction must be from 0 to 1, is {heldout_fraction}")
    train: list[S] = []
    heldout: list[S] = []
    for record in records:
        (heldout if _uniform(seed, _conversation(record)) < heldout_fraction else train).append(record)
    return train, heldout


def _conversation(record: Demonstration | Comparison | Prompt) -> str:
    return record.conversation_id if isinstance(record, Comparison) else first_turn_key(record.messages)


def _uniform(seed: int, key: str) -> float:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:7]) / 2**56


S = TypeVar("S", Demonstration, Comparison, Prompt)


def answered_prompts(demonstrations: Sequence[Demonstration]) -> Iterator[Sequence[Message]]:
    """What stands before each answer that is learned: the loss is on all answers of a dialogue."""
    for item in demonstrations:
        for place, message in enumerate(item.messages):
            if message.role == "assistant":
                yield item.messages[:place]
