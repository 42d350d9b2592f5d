"""Items: the prompts that wait in a project's queue, with or without answers that were sampled before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, select, update

from alignment.data.records import Dialogue, Message, Part
from alignment.data.splits import dialogue_key
from annotation_ui.store import tables
from annotation_ui.store.database import now, storable
from annotation_ui.store.pairs import NewAnswer, add_pair, complete_pair, dump_messages
from annotation_ui.store.rows import ItemRow, ProjectRow, Source
from annotation_ui.vocabulary import Slot

_IDS_PER_QUERY = 500
_ITEM = select(tables.item).where(tables.item.c.id == bindparam("wanted"))


@dataclass(frozen=True)
class NewItem:
    """A prompt for a queue; as in its answers, what a database refuses becomes replacement characters.

    Attributes:
        id: unique in its project; adding the same one again does nothing.
        messages: the dialogue, ending with a user turn.
        answers: in slots a and b, where they were sampled before.
        source: where it comes from.
        part: which side of a train/held-out split its judgments are for.
        kind: only for reporting.
        batch: default: the project's.
        priority: higher ones first.
        expected: the known answer of gold items, training examples and test questions.
    """

    id: str
    messages: Dialogue
    answers: Mapping[Slot, NewAnswer] | None = None
    source: Source = "queue"
    part: Part = "train"
    kind: str | None = None
    batch: str | None = None
    priority: int = 0
    expected: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        messages = tuple(Message(role=turn.role, content=storable(turn.content)) for turn in self.messages)
        object.__setattr__(self, "messages", messages)
        object.__setattr__(self, "id", storable(self.id))
        object.__setattr__(self, "kind", self.kind and storable(self.kind))


def add_items(
    connection: Connection, project: ProjectRow, items: Iterable[NewItem], *, overlap: int | None = None
) -> int:
    """Put items into a project's queue; those whose id is there already stay as they are. Returns how many are new.

    Args:
        connection: of a write.
        project: whose queue they stand in.
        items: what to add, in order.
        overlap: annotators per item; default: the project's.
    """
    new_items = list(items)
    known = _known(connection, [f"{project.name}/{new.id}" for new in new_items])
    place = connection.execute(select(func.coalesce(func.max(tables.item.c.place), 0))).scalar_one()
    added = 0
    for new in new_items:
        identifier = f"{project.name}/{new.id}"
        if identifier in known:
            continue
        known.add(identifier)
        added += 1
        _add_item(connection, project, new, identifier, place + added, overlap or project.overlap)
    return added


def _known(connection: Connection, identifiers: Sequence[str]) -> set[str]:
    """Those of the ids that are there already."""
    known: set[str] = set()
    for start in range(0, len(identifiers), _IDS_PER_QUERY):
        some = tables.item.c.id.in_(identifiers[start : start + _IDS_PER_QUERY])
        known |= set(connection.execute(select(tables.item.c.id).where(some)).scalars())
    return known


def _add_item(
    connection: Connection, project: ProjectRow, new: NewItem, identifier: str, place: int, overlap: int
) -> None:
    connection.execute(
        insert(tables.item).values(
            id=identifier,
            project_id=project.id,
            source=new.source,
            part=new.part,
            batch=new.batch or project.batch,
            kind=new.kind,
            messages_json=dump_messages(new.messages),
            prompt_sha256=dialogue_key(new.messages),
            priority=new.priority,
            place=place,
            overlap=overlap,
            # Gold items go to everybody; those of one annotator never stand in the queue.
            remaining={"queue": overlap, "gold": 2**30}.get(new.source, 0),
            expected_json=None if new.expected is None else json.dumps(new.expected),
            created_at=now(),
        )
    )
    if new.answers is not None:
        pair_id = add_pair(connection, project.id, identifier, new.messages, seed=None)
        complete_pair(connection, pair_id, new.answers)


def item_by_id(connection: Connection, item_id: str) -> ItemRow:
    """An item by id, which begins with the name of its project."""
    return ItemRow._make(connection.execute(_ITEM, {"wanted": item_id}).one())


def has_items(connection: Connection, project_id: str) -> bool:
    """Whether anything was ever put into a project's queue."""
    queued = select(tables.item.c.id).where(tables.item.c.project_id == project_id, tables.item.c.source == "queue")
    return connection.execute(queued.limit(1)).first() is not None


def set_overlap(connection: Connection, which: ColumnElement[bool], overlap: int | ColumnElement[int]) -> None:
    """Say how many annotators are to judge items of the queue; what was judged of them, or is out on a lease, counts.

    Args:
        connection: of a write.
        which: condition on items.
        overlap: a number, or an expression; 0 takes them off the queue.
    """
    values = {"overlap": overlap, "remaining": tables.item.c.remaining + overlap - tables.item.c.overlap}
    connection.execute(update(tables.item).where(which, tables.item.c.source == "queue").values(values))
