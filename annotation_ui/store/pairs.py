"""Pairs: a prompt with its whole history, and two answers, each with the variant that wrote it."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from alignment.data.records import Dialogue, Message
from alignment.data.splits import dialogue_key
from annotation_ui.store import tables
from annotation_ui.store.database import new_id, now, storable
from annotation_ui.store.rows import AnswerRow, FinishReason, ItemRow, PairRow
from annotation_ui.vocabulary import Slot


@dataclass(frozen=True)
class VariantInfo:
    """Who wrote an answer, and how it was drawn. Annotators never see it."""

    name: str
    checkpoint: str | None = None
    weights_sha256: str | None = None
    chat_template_sha256: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NewAnswer:
    """An answer for the store."""

    text: str
    variant: VariantInfo
    seed: int | None = None
    n_tokens: int | None = None
    finish_reason: FinishReason | None = None
    generation_ms: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", storable(self.text))


def dump_messages(messages: Iterable[Message]) -> str:
    """Messages as JSON text."""
    return json.dumps([message.model_dump() for message in messages], ensure_ascii=False)


def load_messages(text: str) -> Dialogue:
    """Messages from JSON text."""
    return tuple(Message(**message) for message in json.loads(text))


def add_pair(
    connection: Connection, project_id: str, item_id: str, messages: Iterable[Message], *, seed: int | None
) -> str:
    """A prompt that waits for its two answers; returns the pair's id.

    Args:
        connection: of a write.
        project_id: it is in.
        item_id: it is of.
        messages: the dialogue, a user turn last.
        seed: of the answers; ``None`` where they were sampled elsewhere.
    """
    prompt = tuple(messages)
    made = new_id("pair")
    connection.execute(
        insert(tables.pair).values(
            id=made,
            project_id=project_id,
            item_id=item_id,
            prompt_json=dump_messages(prompt),
            prompt_sha256=dialogue_key(prompt),
            seed=seed,
            state="generating",
            created_at=now(),
        )
    )
    return made


def complete_pair(connection: Connection, pair_id: str, answers: Mapping[Slot, NewAnswer]) -> None:
    """Store both answers of a pair; they are on disk before anybody can judge them.

    Raises:
        ValueError: one is empty, or both are the same.
    """
    if any(not answers[slot].text.strip() for slot in ("a", "b")) or answers["a"].text == answers["b"].text:
        raise ValueError(f"pair {pair_id}: an answer is empty, or both are the same")
    for slot in ("a", "b"):
        new = answers[slot]
        connection.execute(
            insert(tables.answer).values(
                pair_id=pair_id,
                slot=slot,
                variant_id=_keep_variant(connection, new.variant),
                text=new.text,
                sampling_json=json.dumps(dict(new.variant.sampling), sort_keys=True),
                seed=new.seed,
                n_tokens=new.n_tokens,
                finish_reason=new.finish_reason,
                generation_ms=new.generation_ms,
            )
        )
    values = {"state": "complete", "error": None, "completed_at": now()}
    connection.execute(update(tables.pair).where(tables.pair.c.id == pair_id).values(**values))


def fail_pair(connection: Connection, pair_id: str, error: str) -> None:
    """Note that a pair's answers could not be made."""
    connection.execute(update(tables.pair).where(tables.pair.c.id == pair_id).values(state="failed", error=error))


def _keep_variant(connection: Connection, info: VariantInfo) -> str:
    name, checkpoint = storable(info.name), info.checkpoint and storable(info.checkpoint)
    known = (name, checkpoint, info.weights_sha256, info.chat_template_sha256)
    identifier = f"var_{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}"
    if connection.execute(select(tables.variant.c.id).where(tables.variant.c.id == identifier)).one_or_none() is None:
        connection.execute(
            insert(tables.variant).values(
                id=identifier,
                name=name,
                checkpoint=checkpoint,
                weights_sha256=info.weights_sha256,
                chat_template_sha256=info.chat_template_sha256,
                created_at=now(),
            )
        )
    return identifier


_FIRST_PAIR = (  # one pair for all who judge the item; those of later turns have a longer prompt
    select(tables.pair)
    .where(tables.pair.c.item_id == bindparam("item_id"), tables.pair.c.prompt_sha256 == bindparam("prompt_sha256"))
    .limit(1)
)
_PAIR = select(tables.pair).where(tables.pair.c.id == bindparam("wanted"))
_ANSWERS = select(tables.answer).where(tables.answer.c.pair_id == bindparam("pair_id"))


def try_again(connection: Connection, pair_id: str) -> bool:
    """Have the answers of a failed pair drawn again, from another seed; returns whether it had failed."""
    anew = {"state": "generating", "error": None, "seed": secrets.randbits(31)}
    failed = update(tables.pair).where(tables.pair.c.id == pair_id, tables.pair.c.state == "failed").values(**anew)
    return bool(connection.execute(failed).rowcount)


def waiting_pair(connection: Connection, project_id: str, item_id: str, prompt: Sequence[Message]) -> str:
    """A prompt that waits for its answers, with a seed drawn for them; returns the pair's id.

    Args:
        connection: of a write.
        project_id: it is in.
        item_id: it is of.
        prompt: the dialogue, a user turn last.
    """
    return add_pair(connection, project_id, item_id, prompt, seed=secrets.randbits(31))


def pair_by_id(connection: Connection, pair_id: str) -> PairRow:
    """A pair by id."""
    return PairRow._make(connection.execute(_PAIR, {"wanted": pair_id}).one())


def first_pair(connection: Connection, item: ItemRow) -> PairRow | None:
    """The pair on an item's own prompt, which all who judge the item share."""
    about = {"item_id": item.id, "prompt_sha256": item.prompt_sha256}
    row = connection.execute(_FIRST_PAIR, about).one_or_none()
    return None if row is None else PairRow._make(row)


def answers_of(connection: Connection, pair_id: str) -> dict[Slot, AnswerRow]:
    """A pair's answers by slot."""
    answers = (AnswerRow._make(row) for row in connection.execute(_ANSWERS, {"pair_id": pair_id}))
    return {answer.slot: answer for answer in answers}
