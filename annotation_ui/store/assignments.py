"""Who works on which item: leases that run out, each item once per annotator, gold items in between.

An item goes to as many annotators as its overlap says. One that was fetched is out on a lease; when the lease runs out
before a judgment, the item goes to somebody else, and a judgment that comes later all the same is kept. So what remains
of an item of the queue is always its overlap less those leased and done; an overlap of 0 takes it off the queue.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, bindparam, exists, func, insert, select, update

from annotation_ui.store import tables
from annotation_ui.store.database import in_minutes, new_id, now
from annotation_ui.store.rows import AssignmentRow, ItemRow, Source

HELD = ("leased", "done", "skipped")
"""States in which an item does not come to the same annotator again."""
_TAKES = ("leased", "done")
"""States that use up one of an item's overlap."""
_COUNTED = 200
"""The queue is counted up to this."""

_FIND = select(tables.assignment).where(
    tables.assignment.c.item_id == bindparam("which"), tables.assignment.c.annotator_id == bindparam("whose")
)
_SET = update(tables.assignment).where(tables.assignment.c.id == bindparam("which"))
_ADD = insert(tables.assignment)
_ADD_REMAINING = (
    update(tables.item)
    .where(tables.item.c.id == bindparam("which"))
    .values(remaining=tables.item.c.remaining + bindparam("change"))
)
_OVER = select(tables.assignment).where(
    tables.assignment.c.state == "leased", tables.assignment.c.lease_expires_at < bindparam("at")
)
_FINISHED = select(func.count()).where(
    tables.assignment.c.annotator_id == bindparam("whose"), tables.assignment.c.state.in_(("done", "skipped"))
)


def _open(*columns: ColumnElement[Any] | FromClause, live: bool) -> Select[Any]:
    """Items of a source that may go to an annotator; without variants, only those with answers."""
    mine = exists().where(
        tables.assignment.c.item_id == tables.item.c.id,
        tables.assignment.c.annotator_id == bindparam("annotator_id"),
        tables.assignment.c.state.in_(HELD),
    )
    ready = exists().where(
        tables.pair.c.item_id == tables.item.c.id,
        tables.pair.c.prompt_sha256 == tables.item.c.prompt_sha256,
        tables.pair.c.state == "complete",
    )
    own = (
        tables.item.c.project_id == bindparam("project_id"),
        tables.item.c.source == bindparam("source"),
        tables.item.c.remaining > 0,
    )
    query = select(*columns).where(*own, ~mine)
    return query if live else query.where(ready)


@cache
def _first_open(live: bool) -> Select[Any]:
    return _open(tables.item, live=live).order_by(tables.item.c.priority.desc(), tables.item.c.place).limit(1)


@cache
def _count_open(live: bool) -> Select[Any]:
    return select(func.count()).select_from(_open(tables.item.c.id, live=live).limit(_COUNTED).subquery())


def lease_next(
    connection: Connection,
    annotator_id: str,
    project_id: str,
    *,
    lease_minutes: float,
    gold_share: float,
    live: bool,
) -> ItemRow | None:
    """Lease the next item to an annotator; returns it, or ``None`` where the queue has nothing for them.

    Whether a gold item comes instead of one of the queue is drawn from the annotator and how many items they had, so
    that nobody can tell and asking again changes nothing.

    Args:
        connection: of a write.
        annotator_id: whose desk it is for.
        project_id: whose queue it is taken from.
        lease_minutes: until it goes to somebody else.
        gold_share: share of gold items among those that somebody gets.
        live: whether variants are there to answer an item that has no answers.
    """
    expire(connection)
    item = _first(connection, annotator_id, project_id, "queue", live=live)
    if item is not None and _draws_gold(connection, annotator_id, project_id, gold_share):
        item = _first(connection, annotator_id, project_id, "gold", live=live) or item
    if item is not None:
        lease(connection, annotator_id, item.id, lease_minutes=lease_minutes)
    return item


def _first(connection: Connection, annotator_id: str, project_id: str, source: Source, *, live: bool) -> ItemRow | None:
    whose = {"annotator_id": annotator_id, "project_id": project_id, "source": source}
    row = connection.execute(_first_open(live), whose).one_or_none()
    return None if row is None else ItemRow._make(row)


def _draws_gold(connection: Connection, annotator_id: str, project_id: str, gold_share: float) -> bool:
    """A function of what the annotator has finished: giving an item back does not draw again."""
    had = connection.execute(_FINISHED, {"whose": annotator_id}).scalar_one()
    return random.Random(f"{annotator_id}/{project_id}/{had}").random() < gold_share


def lease(connection: Connection, annotator_id: str, item_id: str, *, lease_minutes: float) -> None:
    """Give an item to an annotator for some time.

    Args:
        connection: of a write.
        annotator_id: who gets it.
        item_id: what.
        lease_minutes: until it goes to somebody else.
    """
    until = in_minutes(lease_minutes)
    earlier = _find(connection, annotator_id, item_id)
    if earlier is None:
        about = {"id": new_id("asg"), "item_id": item_id, "annotator_id": annotator_id}
        connection.execute(_ADD, {**about, "state": "leased", "lease_expires_at": until, "created_at": now()})
        _add_remaining(connection, item_id, -1)
        return
    _set(connection, earlier, "leased", until)


def end(connection: Connection, annotator_id: str, item_id: str, state: str) -> None:
    """Say how an annotator's work on an item stands: ``done``, ``skipped`` or ``returned``.

    Args:
        connection: of a write.
        annotator_id: who had it.
        item_id: what.
        state: how it ended.
    """
    assignment = _find(connection, annotator_id, item_id)
    assert assignment is not None, (annotator_id, item_id)
    _set(connection, assignment, state)


def expire(connection: Connection) -> int:
    """Put items whose lease has run out back into the queue; returns how many."""
    rows = connection.execute(_OVER, {"at": now()}).all()
    for row in rows:
        _set(connection, AssignmentRow._make(row), "expired")
    return len(rows)


def give_back(connection: Connection, annotator_id: str) -> None:
    """Let others have all that an annotator was given, judged or not: for who has withdrawn."""
    own = (tables.assignment.c.annotator_id == annotator_id, tables.assignment.c.state.in_(_TAKES))
    for row in connection.execute(select(tables.assignment).where(*own)).all():
        _set(connection, AssignmentRow._make(row), "skipped")


def count_left(connection: Connection, annotator_id: str, project_id: str, *, live: bool) -> int:
    """Items that may come to an annotator, counted up to 200; gold items too, or the count would give them away.

    Args:
        connection: of a read.
        annotator_id: for whom.
        project_id: whose queue.
        live: whether variants are there to answer an item that has no answers.
    """

    def count(source: Source) -> int:
        whose = {"annotator_id": annotator_id, "project_id": project_id, "source": source}
        return int(connection.execute(_count_open(live), whose).scalar_one())

    in_queue = count("queue")
    return min(_COUNTED, in_queue + count("gold")) if in_queue else 0


def _find(connection: Connection, annotator_id: str, item_id: str) -> AssignmentRow | None:
    row = connection.execute(_FIND, {"which": item_id, "whose": annotator_id}).one_or_none()
    return None if row is None else AssignmentRow._make(row)


def _set(connection: Connection, assignment: AssignmentRow, state: str, until: str | None = None) -> None:
    values = {"state": state, "lease_expires_at": until or assignment.lease_expires_at}
    connection.execute(_SET, {"which": assignment.id, **values})
    _add_remaining(connection, assignment.item_id, (assignment.state in _TAKES) - (state in _TAKES))


def _add_remaining(connection: Connection, item_id: str, change: int) -> None:
    if change:
        connection.execute(_ADD_REMAINING, {"which": item_id, "change": change})
