"""Who works on which item: leases that run out, each item once per annotator, gold items in between.

An item goes to as many annotators as its overlap says. One that was fetched is out on a lease; when the lease runs out
before a judgment, the item goes to somebody else, and a judgment that comes later all the same is kept.
"""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import Connection, and_, exists, func, insert, select, update

from annotation_ui.accounts import in_minutes
from annotation_ui.schema import assignment, item, pair
from annotation_ui.store import new_id, now

HELD = ("leased", "done", "skipped")
"""States in which an item does not come to the same annotator again."""
_COUNTED = 200
"""The queue is counted up to this."""


def _for(annotator_id: str, project_row: Any, source: str, *, live: bool) -> Any:
    """Condition: items of a source that may go to this annotator; without variants, only those with answers."""
    mine = exists().where(
        assignment.c.item_id == item.c.id, assignment.c.annotator_id == annotator_id, assignment.c.state.in_(HELD)
    )
    ready = exists().where(
        pair.c.item_id == item.c.id, pair.c.prompt_sha256 == item.c.prompt_sha256, pair.c.state == "complete"
    )
    own = (item.c.project_id == project_row.id, item.c.source == source, item.c.remaining > 0)
    return and_(*own, ~mine) if live else and_(*own, ~mine, ready)


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
    query = select(item).where(_for(annotator_id, project_row, source, live=live))
    return connection.execute(query.order_by(item.c.priority.desc(), item.c.place).limit(1)).one_or_none()


def _draws_gold(connection: Connection, annotator_id: str, project_row: Any, gold_share: float) -> bool:
    """A function of what the annotator has finished: giving an item back does not draw again."""
    finished = (
        select(func.count())
        .select_from(assignment)
        .join(item, item.c.id == assignment.c.item_id)
        .where(assignment.c.annotator_id == annotator_id, item.c.project_id == project_row.id)
        .where(assignment.c.state.in_(("done", "skipped")))
    )
    had = connection.execute(finished).scalar_one()
    return random.Random(f"{annotator_id}/{project_row.id}/{had}").random() < gold_share


def lease(connection: Connection, annotator_id: str, item_id: str, *, lease_minutes: float) -> None:
    """Give an item to an annotator for some time."""
    until = in_minutes(lease_minutes)
    before = _row(connection, annotator_id, item_id)
    if before is None:
        connection.execute(
            insert(assignment).values(
                id=new_id("asg"),
                item_id=item_id,
                annotator_id=annotator_id,
                state="leased",
                lease_expires_at=until,
                created_at=now(),
            )
        )
        _add_remaining(connection, item_id, -1)
        return
    _set(connection, before, "leased", until)


def end(connection: Connection, annotator_id: str, item_id: str, state: str) -> None:
    """Say how an annotator's work on an item stands: ``done``, ``skipped`` or ``returned``."""
    _set(connection, _row(connection, annotator_id, item_id), state)


def expire(connection: Connection) -> int:
    """Put items whose lease has run out back into the queue; returns how many."""
    over = connection.execute(
        select(assignment).where(assignment.c.state == "leased", assignment.c.lease_expires_at < now())
    ).all()
    for row in over:
        _set(connection, row, "expired")
    return len(over)


def count_left(connection: Connection, annotator_id: str, project_row: Any, *, live: bool) -> int:
    """Items that may come to an annotator, counted up to 200; gold items too, or the count would give them away."""

    def count(source: str) -> int:
        some = select(item.c.id).where(_for(annotator_id, project_row, source, live=live)).limit(_COUNTED).subquery()
        return connection.execute(select(func.count()).select_from(some)).scalar_one()

    in_queue = count("queue")
    return min(_COUNTED, in_queue + count("gold")) if in_queue else 0


def _row(connection: Connection, annotator_id: str, item_id: str) -> Any:
    same = (assignment.c.item_id == item_id, assignment.c.annotator_id == annotator_id)
    return connection.execute(select(assignment).where(*same)).one_or_none()


def _set(connection: Connection, row: Any, state: str, until: str | None = None) -> None:
    values = {"state": state, "lease_expires_at": until or row.lease_expires_at}
    connection.execute(update(assignment).where(assignment.c.id == row.id).values(**values))
    takes = ("leased", "done")
    _add_remaining(connection, row.item_id, (row.state in takes) - (state in takes))


def _add_remaining(connection: Connection, item_id: str, change: int) -> None:
    if change:
        values = {"remaining": item.c.remaining + change}
        connection.execute(update(item).where(item.c.id == item_id).values(**values))
