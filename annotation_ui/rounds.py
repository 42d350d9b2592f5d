"""A round of the pipeline that people judge: its pairs go into the queue, and it is over when enough are judged.

A round's items share a batch. Adding them again does nothing, so that a pipeline that was killed goes on with what is
there; items of the same round from another policy are taken off the queue, and what was said of them stays on record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, case, distinct, func, or_, select, update

from alignment.data.records import Dimension
from alignment.errors import UserError
from annotation_ui.items import NewItem, Part, add_items, project_about
from annotation_ui.schema import annotator, assignment, comparison, conversation, current_judgment, item, project
from annotation_ui.session import UNSAFE_PREFERRED
from annotation_ui.store import Store


@dataclass(frozen=True)
class Wanted:
    """How many judgments of a kind end a round."""

    dimension: Dimension
    part: Part
    judgments: int


@dataclass(frozen=True)
class Standing:
    """How far that is: judgments that an export takes, and pairs that somebody could still judge."""

    wanted: Wanted
    judged: int
    waiting: int

    @property
    def is_over(self) -> bool:
        """Whether there is enough, or all that can be had."""
        return self.judged >= self.wanted.judgments or self.waiting == 0


def has_batch(store: Store, batch: str) -> bool:
    """Whether a batch's items are in the store."""
    with store.read() as connection:
        return connection.execute(select(item.c.id).where(item.c.batch == batch).limit(1)).first() is not None


def add_batch(store: Store, batch: str, round_name: str, items: Mapping[Dimension, Sequence[NewItem]]) -> None:
    """Put a round's pairs into the queues of the projects about their dimension, all of them or none.

    Args:
        store: where.
        batch: of all these items, such as ``round-1-3f2a``.
        round_name: with which the batches of this round begin; the others among them leave the queue.
        items: by dimension, with answers.

    Raises:
        UserError: there is no project about a dimension.
    """
    with store.write() as connection:
        stale = and_(item.c.batch.startswith(f"{round_name}-", autoescape=True), item.c.batch != batch)
        connection.execute(update(item).where(stale).values(remaining=0))
        for dimension, new in items.items():
            row = project_about(connection, dimension)
            if row is None:
                raise UserError(f"no project of the annotation settings is about {dimension}; add one under projects:")
            add_items(connection, row, new)


def standings(store: Store, batch: str, wanted: Sequence[Wanted]) -> list[Standing]:
    """How far a round is."""
    with store.read() as connection:
        judged, waiting = _judged(connection, batch), _waiting(connection, batch)
    return [
        Standing(each, judged.get((each.dimension, each.part), 0), waiting.get((each.dimension, each.part), 0))
        for each in wanted
    ]


def _judged(connection: Connection, batch: str) -> dict[tuple[str, str], int]:
    said = current_judgment.c
    query = (
        select(project.c.dimension, item.c.part, func.count())
        .join_from(current_judgment, comparison, comparison.c.id == said.comparison_id)
        .join(conversation, conversation.c.id == comparison.c.conversation_id)
        .join(item, item.c.id == conversation.c.item_id)
        .join(project, project.c.id == item.c.project_id)
        .join(annotator, annotator.c.id == said.annotator_id)
        .where(item.c.batch == batch, item.c.source == "queue", annotator.c.withdrawn_at.is_(None))
        .where(or_(said.safety.is_(None), said.safety != UNSAFE_PREFERRED))
        .group_by(project.c.dimension, item.c.part)
    )
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def _waiting(connection: Connection, batch: str) -> dict[tuple[str, str], int]:
    """Items that are out on a lease, or in the queue for at least one account that has not skipped them."""
    people = select(func.count()).select_from(annotator).where(annotator.c.active).scalar_subquery()
    state = assignment.c.state
    per_item = (
        select(
            item.c.id,
            item.c.project_id,
            item.c.part,
            item.c.remaining,
            func.count(distinct(case((state.in_(("skipped", "done")), assignment.c.annotator_id)))).label("through"),
            func.count(case((state == "leased", 1))).label("leased"),
        )
        .outerjoin(assignment, assignment.c.item_id == item.c.id)
        .where(item.c.batch == batch, item.c.source == "queue")
        .group_by(item.c.id, item.c.project_id, item.c.part, item.c.remaining)
        .subquery()
    )
    query = (
        select(project.c.dimension, per_item.c.part, func.count())
        .join_from(per_item, project, project.c.id == per_item.c.project_id)
        .where(or_(per_item.c.leased > 0, and_(per_item.c.remaining > 0, per_item.c.through < people)))
        .group_by(project.c.dimension, per_item.c.part)
    )
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}
