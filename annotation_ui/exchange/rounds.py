"""A round of the pipeline that people judge: its pairs go into the queue, and it is over when enough are judged.

A round's items share a batch, which is taken up each time the round begins or goes on, so that a pipeline that was
killed goes on with what is there. Items of the same round from another policy or other settings leave the queue, and so
does what is left once the round is over; what was said of them stays on record, and counts if they are taken up again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from sqlalchemy import Connection, and_, case, func, or_, select

from alignment.data.records import HELDOUT_PAIRS, Comparison, Dimension, Part
from annotation_ui.exchange.export_judgments import comparisons
from annotation_ui.exchange.selection import OTHER_PART, ExportFilter, Selection
from annotation_ui.store import tables
from annotation_ui.store.database import Store, now
from annotation_ui.store.items import NewItem, add_items, set_overlap
from annotation_ui.store.projects import project_named
from annotation_ui.vocabulary import LOCAL_USER, is_simulated

PRIORITY = 1000
"""Of a round's items: the pipeline waits for them, so they come before what else is in the queue."""


@dataclass(frozen=True)
class Goal:
    """How many judgments of a kind end a round."""

    dimension: Dimension
    part: Part
    judgments: int


@dataclass(frozen=True)
class Standing:
    """How far that is: judgments that the round takes, and pairs that somebody could still judge."""

    goal: Goal
    judged: int
    waiting: int

    @property
    def is_over(self) -> bool:
        """Whether there is enough, or all that can be had."""
        return self.judged >= self.goal.judgments or self.waiting == 0


def has_batch(store: Store, batch: str) -> bool:
    """Whether a batch's items are in the store."""
    with store.read() as connection:
        of_batch = select(tables.item.c.id).where(tables.item.c.batch == batch)
        return connection.execute(of_batch.limit(1)).first() is not None


def take_up(store: Store, batch: str, round_name: str, items: Mapping[str, Sequence[NewItem]]) -> None:
    """Put a round's pairs into the queue, new ones and those of the batch that are there: all of them or none.

    Args:
        store: where.
        batch: of all these items, such as ``round-1-5e07-3f2a``.
        round_name: with which the batches of this round begin; the others among them leave the queue.
        items: project -> items with answers; none where they are there already.
    """
    of_project = (
        select(tables.project.c.overlap).where(tables.project.c.id == tables.item.c.project_id).scalar_subquery()
    )
    others = and_(tables.item.c.batch.startswith(f"{round_name}-", autoescape=True), tables.item.c.batch != batch)
    with store.write() as connection:
        for name, new in items.items():
            add_items(connection, project_named(connection, name), new)
        set_overlap(connection, tables.item.c.batch == batch, of_project)
        set_overlap(connection, others, 0)


def put_away(store: Store, batch: str) -> None:
    """Take what is left of a batch off the queue."""
    with store.write() as connection:
        set_overlap(connection, tables.item.c.batch == batch, 0)


# -- how far it is ----------------------------------------------------------------------------------------------------


def taken(batch: str, part: Literal["train", "heldout", "all"] = "all") -> ExportFilter:
    """Which judgments a round takes: those that it waits for, and those that it writes."""
    return ExportFilter.model_validate({"part": part, "batches": (batch,), "margins": "none"})


class RoundProgress:
    """How far a round is, looked at again and again; judgments are counted only where there are others since.

    Args:
        store: where.
        batch: of the round.
        goals: what ends it.
    """

    def __init__(self, store: Store, batch: str, goals: Sequence[Goal]) -> None:
        self.store, self.batch, self.goals = store, batch, goals
        self._counted_at = (-1, -1)
        self._judged: Counter[tuple[str, str]] = Counter()

    def look(self) -> list[Standing]:
        """How far the round is now."""
        with self.store.read() as connection:
            self._count(connection)
            waiting = _waiting(connection, self.batch)
        return [
            Standing(each, self._judged[each.dimension, each.part], waiting[each.dimension, each.part])
            for each in self.goals
        ]

    def _count(self, connection: Connection) -> None:
        selection = Selection.begin(connection, taken(self.batch))
        withdrawn = (
            select(func.count()).select_from(tables.annotator).where(tables.annotator.c.withdrawn_at.is_not(None))
        )
        at = (selection.newest, connection.execute(withdrawn).scalar_one())
        if at != self._counted_at:
            self._judged = Counter((row.dimension, row.part) for row, _ in selection.judgments())
            self._counted_at = at


def _waiting(connection: Connection, batch: str) -> Counter[tuple[str, str]]:
    """Items that are out on a lease, or in the queue for at least one person who is not through with them."""
    people, state = _people(connection), tables.assignment.c.state
    has_expired = and_(state == "leased", tables.assignment.c.lease_expires_at < now())
    is_through = and_(state.in_(("skipped", "done")), tables.assignment.c.annotator_id.in_(people))
    # Per item: how many more may have it, who has it, and how many are through with it.
    per_item = (
        select(
            tables.item.c.project_id,
            tables.item.c.part,
            (tables.item.c.remaining + func.count(case((has_expired, 1)))).label("free"),
            func.count(case((and_(state == "leased", ~has_expired), 1))).label("leased"),
            func.count(case((is_through, 1))).label("through"),
        )
        .outerjoin(tables.assignment, tables.assignment.c.item_id == tables.item.c.id)
        .where(tables.item.c.batch == batch, tables.item.c.source == "queue")
        .group_by(tables.item.c.id, tables.item.c.project_id, tables.item.c.part, tables.item.c.remaining)
        .subquery()
    )
    # It waits where it is out, or where there is somebody it can still go to.
    somebody = max(len(people), 1)  # where all accounts are closed, somebody may still come
    query = (
        select(tables.project.c.dimension, per_item.c.part, func.count())
        .join_from(per_item, tables.project, tables.project.c.id == per_item.c.project_id)
        .where(or_(per_item.c.leased > 0, and_(per_item.c.free > 0, per_item.c.through < somebody)))
        .group_by(tables.project.c.dimension, per_item.c.part)
    )
    return Counter({(row[0], row[1]): row[2] for row in connection.execute(query)})


def _people(connection: Connection) -> list[str]:
    """Ids of those who can judge: not simulated, and the app's own account only while there is no other."""
    accounts = connection.execute(
        select(tables.annotator.c.id, tables.annotator.c.username).where(tables.annotator.c.active)
    ).all()
    people = {row.username: row.id for row in accounts if not is_simulated(row.username)}
    local = people.pop(LOCAL_USER, None)
    return list(people.values()) or ([local] if local else [])


class RoundJudgments(NamedTuple):
    """What people said of a round, and what was left out by reason."""

    comparisons: dict[Part, list[Comparison]]
    left_out: dict[str, int]


def collected(store: Store, batch: str, left_out: Mapping[str, int]) -> RoundJudgments:
    """The judgments of a round by part, and all that was left out."""
    found: dict[Part, list[Comparison]] = {}
    reasons = Counter(left_out)
    for part in get_args(Part):
        found[part], also = comparisons(store, taken(batch, part))
        del also[OTHER_PART[part]]
        reasons.update({f"{HELDOUT_PAIRS if part == 'heldout' else ''}{reason}": n for reason, n in also.items()})
    return RoundJudgments(found, dict(+reasons))
