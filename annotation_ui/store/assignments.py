"""Who works on which item: leases that run out, each item once per annotator, gold items in between.

An item goes to as many annotators as its overlap says. One that was fetched is out on a lease; when the lease runs out
before a judgment, the item goes to somebody else, and a judgment that comes later all the same is kept. So what remains
of an item of the queue is always its overlap less those leased and done; an overlap of 0 takes it off the queue.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, exists, func, insert, select, update

from annotation_ui.store.database import in_minutes, new_id, now
from annotation_ui.store.tables import assignment, item, pair

HELD = ("leased", "done", "skipped")
"""States in which an item does not come to the same annotator again."""
_TAKES = ("leased", "done")
"""States that use up one of an item's overlap."""
_COUNTED = 200
"""The queue is counted up to this."""

_FIND = select(assignment).where(
    assignment.c.item_id == bindparam("which"), assignment.c.annotator_id == bindparam("whose")
)
_SET = update(assignment).where(assignment.c.id == bindparam("which"))
_ADD = insert(assignment)
_ADD_REMAINING = (
    update(item).where(item.c.id == bindparam("which")).values(remaining=item.c.remaining + bindparam("change"))
)
_OVER = select(assignment).where(assignment.c.state == "leased", assignment.c.lease_expires_at < bindparam("at"))
_FINISHED = select(func.count()).where(
    assignment.c.annotator_id == bindparam("whose"), assignment.c.state.in_(("done", "skipped"))
)


def _open(*columns: Any, live: bool) -> Any:
    """Items of a source that may go to an annotator; without variants, only those with answers."""
    mine = exists().where(
        assignment.c.item_id == item.c.id,
        assignment.c.annotator_id == bindparam("annotator_id"),
        assignment.c.state.in_(HELD),
    )
    ready = exists().where(
        pair.c.item_id == item.c.id, pair.c.prompt_sha256 == item.c.prompt_sha256, pair.c.state == "complete"
    )
    own = (
        item.c.project_id == bindparam("project_id"),
        item.c.source == bindparam("source"),
        item.c.remaining > 0,
    )
    query = select(*columns).where(*own, ~mine)
    return query if live else query.where(ready)


@cache
def _first_open(live: bool) -> Any:
    return _open(item, live=live).order_by(item.c.priority.desc(), item.c.place).limit(1)


@cache
def _count_open(live: bool) -> Any:
    return select(func.count()).select_from(_open(item.c.id, live=live).limit(_COUNTED).subquery())


def lease_next(
    connection: Connection,
    annotator_id: str,
    project_row: Any,
    *,
    lease_minutes: float,
    gold_share: float,
    live: bool,
) -> Any | None:
    """Lease the next item to an annotator; returns its row, or ``None`` where the queue has nothing for them.

    Whether a gold item comes instead of one of the queue is drawn from the annotator and how many items they had, so
    that nobody can tell and asking again changes nothing.
    """
    expire(connection)
    found = _first(connection, annotator_id, project_row, "queue", live=live)
    if found is not None and _draws_gold(connection, annotator_id, project_row, gold_share):
        found = _first(connection, annotator_id, project_row, "gold", live=live) or found
    if found is not None:
        lease(connection, annotator_id, found.id, lease_minutes=lease_minutes)
    return found


def _first(connection: Connection, annotator_id: str, project_row: Any, source: str, *, live: bool) -> Any | None:
    whose = {"annotator_id": annotator_id, "project_id": project_row.id, "source": source}
    return connection.execute(_first_open(live), whose).one_or_none()


def _draws_gold(connection: Connection, annotator_id: str, project_row: Any, gold_share: float) -> bool:
    """A function of what the annotator has finished: giving an item back does not draw again."""
    had = connection.execute(_FINISHED, {"whose": annotator_id}).scalar_one()
    return random.Random(f"{annotator_id}/{project_row.id}/{had}").random() < gold_share


def lease(connection: Connection, annotator_id: str, item_id: str, *, lease_minutes: float) -> None:
    """Give an item to an annotator for some time."""
    until = in_minutes(lease_minutes)
    before = _row(connection, annotator_id, item_id)
    if before is None:
        about = {"id": new_id("asg"), "item_id": item_id, "annotator_id": annotator_id}
        connection.execute(_ADD, {**about, "state": "leased", "lease_expires_at": until, "created_at": now()})
        _add_remaining(connection, item_id, -1)
        return
    _set(connection, before, "leased", until)


def end(connection: Connection, annotator_id: str, item_id: str, state: str) -> None:
    """Say how an annotator's work on an item stands: ``done``, ``skipped`` or ``returned``."""
    _set(connection, _row(connection, annotator_id, item_id), state)


def expire(connection: Connection) -> int:
    """Put items whose lease has run out back into the queue; returns how many."""
    over = connection.execute(_OVER, {"at": now()}).all()
    for row in over:
        _set(connection, row, "expired")
    return len(over)


def give_back(connection: Connection, annotator_id: str) -> None:
    """Let others have all that an annotator was given, judged or not: for who has withdrawn."""
    own = (assignment.c.annotator_id == annotator_id, assignment.c.state.in_(_TAKES))
    for row in connection.execute(select(assignment).where(*own)).all():
        _set(connection, row, "skipped")


def set_overlap(connection: Connection, which: Any, overlap: Any) -> None:
    """Say how many annotators are to judge items of the queue; what was judged of them, or is out on a lease, counts.

    Args:
        connection: of a write.
        which: condition on items.
        overlap: a number, or an expression; 0 takes them off the queue.
    """
    values = {"overlap": overlap, "remaining": item.c.remaining + overlap - item.c.overlap}
    connection.execute(update(item).where(which, item.c.source == "queue").values(values))


def count_left(connection: Connection, annotator_id: str, project_row: Any, *, live: bool) -> int:
    """Items that may come to an annotator, counted up to 200; gold items too, or the count would give them away."""

    def count(source: str) -> int:
        whose = {"annotator_id": annotator_id, "project_id": project_row.id, "source": source}
        return int(connection.execute(_count_open(live), whose).scalar_one())

    in_queue = count("queue")
    return min(_COUNTED, in_queue + count("gold")) if in_queue else 0


def _row(connection: Connection, annotator_id: str, item_id: str) -> Any:
    return connection.execute(_FIND, {"which": item_id, "whose": annotator_id}).one_or_none()


def _set(connection: Connection, row: Any, state: str, until: str | None = None) -> None:
    values = {"state": state, "lease_expires_at": until or row.lease_expires_at}
    connection.execute(_SET, {"which": row.id, **values})
    _add_remaining(connection, row.item_id, (row.state in _TAKES) - (state in _TAKES))


def _add_remaining(connection: Connection, item_id: str, change: int) -> None:
    if change:
        connection.execute(_ADD_REMAINING, {"which": item_id, "change": change})
