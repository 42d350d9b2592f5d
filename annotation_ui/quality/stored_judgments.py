"""Judgments and skips as they stand now, read from the store for the quality report; and what each account has done."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from sys import intern
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, select

from alignment.data.records import Dimension, Grade, Part, SafetyBin
from annotation_ui import texts
from annotation_ui.quality.judged_pairs import JudgedPair, SkippedPair
from annotation_ui.store import tables
from annotation_ui.store.database import Store
from annotation_ui.store.rows import Source
from annotation_ui.vocabulary import Slot

_WORK = ("queue", "annotator")
"""Sources of items whose judgments are data."""


def annotator_names(store: Store) -> dict[str, str]:
    """Annotator id -> user name; only admins may see these."""
    with store.read() as connection:
        rows = connection.execute(select(tables.annotator.c.id, tables.annotator.c.username))
        return {row.id: row.username for row in rows}


def judged_pairs(connection: Connection, project_name: str | None = None) -> list[JudgedPair]:
    """Current judgments of work, gold items among them, in one query."""
    # Ask for the fields in the order of ``_JudgedRow``.
    judgment = tables.current_judgment.c
    query = _of_work(
        select(
            judgment.annotator_id,
            judgment.chosen_slot,
            judgment.grade,
            judgment.safety,
            judgment.active_ms,
            judgment.flags_json,
            judgment.created_at,
            tables.comparison.c.pair_id,
            tables.comparison.c.left_slot,
            tables.comparison.c.turn,
            tables.project.c.name.label("project"),
            tables.project.c.dimension,
            tables.item.c.batch,
            tables.item.c.part,
            tables.item.c.source,
            tables.item.c.expected_json,
        ).join_from(tables.current_judgment, tables.comparison, tables.comparison.c.id == judgment.comparison_id),
        (*_WORK, "gold"),
        project_name,
    )
    # Read them in pieces, the earliest judgment first.
    rows = connection.execute(query.order_by(judgment.id), execution_options={"yield_per": 1000})
    return [_judged(_JudgedRow._make(row)) for row in rows]


def skipped_pairs(connection: Connection, project_name: str | None = None) -> list[SkippedPair]:
    """Pairs that were skipped and not judged after all, without gold items."""
    later = tables.judgment.alias("later")
    query = _of_work(
        select(tables.judgment.c.annotator_id, tables.project.c.name, tables.judgment.c.skip_reason).join_from(
            tables.judgment, tables.comparison, tables.comparison.c.id == tables.judgment.c.comparison_id
        ),
        _WORK,
        project_name,
    ).where(
        tables.judgment.c.kind == "skip",
        ~select(later.c.id).where(later.c.supersedes == tables.judgment.c.id).exists(),
    )
    return [SkippedPair(*row) for row in connection.execute(query.order_by(tables.judgment.c.id))]


def _of_work(query: Select[Any], sources: tuple[str, ...], project_name: str | None) -> Select[Any]:
    """A query on comparisons, held to work on items of some sources by annotators who have not withdrawn."""
    query = (
        query.join(tables.pair, tables.pair.c.id == tables.comparison.c.pair_id)
        .join(tables.item, tables.item.c.id == tables.pair.c.item_id)
        .join(tables.project, tables.project.c.id == tables.comparison.c.project_id)
        .join(tables.annotator, tables.annotator.c.id == tables.comparison.c.annotator_id)
        .where(
            tables.comparison.c.kind == "work",
            tables.item.c.source.in_(sources),
            tables.annotator.c.withdrawn_at.is_(None),
        )
    )
    return query if project_name is None else query.where(tables.project.c.name == project_name)


class _JudgedRow(NamedTuple):
    """A judgment that holds, with what the report needs of its comparison, project and item."""

    annotator_id: str
    chosen_slot: Slot
    grade: Grade
    safety: SafetyBin | None
    active_ms: int | None
    flags_json: str
    created_at: str
    pair_id: str
    left_slot: Slot
    turn: int
    project: str
    dimension: Dimension
    batch: str
    part: Part
    source: Source
    expected_json: str | None


_one: Callable[[Any], Any] = intern
"""A word as the one object of its kind: hundreds of thousands of rows share a few words."""


def _judged(row: _JudgedRow) -> JudgedPair:
    is_gold = row.source == "gold"
    return JudgedPair(
        pair_id=row.pair_id,
        annotator=_one(row.annotator_id),
        project=_one(row.project),
        dimension=_one(row.dimension),
        batch=_one(row.batch),
        part=_one(row.part),
        choice=_one(row.chosen_slot),
        left_slot=_one(row.left_slot),
        grade=_one(row.grade),
        safety=row.safety,
        active_ms=row.active_ms,
        judged_at=row.created_at,
        flags=_flags(row.flags_json),
        is_gold=is_gold,
        # The known answer is to the first turn; what people ask next has none.
        gold_ok=as_known(row.expected_json, row.chosen_slot, row.safety) if is_gold and row.turn == 1 else None,
    )


@cache
def _flags(flags_json: str) -> tuple[str, ...]:
    return tuple(json.loads(flags_json))


def as_known(expected_json: str | None, choice: Slot, safety: SafetyBin | None) -> bool | None:
    """Whether a judgment agrees with the known answer, in the choice and, where both have it, in what is safe.

    Args:
        expected_json: an exercise (``annotation_ui.desk.exercises``), or its ``expected`` alone.
        choice: the chosen slot.
        safety: the bin, where it was asked.

    Returns:
        ``None`` where no answer is known.
    """
    known = json.loads(expected_json) if expected_json else {}
    known = known.get("expected", known)
    if "choice" not in known:
        return None
    if choice != known["choice"]:
        return False
    return safety is None or known.get("safety") is None or safety == known["safety"]


def accounts_at_work(store: Store) -> list[dict[str, Any]]:
    """A line for each account: what it is, how much it has done, whether it is qualified."""
    # how much each has judged, and when last
    judged = tables.comparison.c
    done = (
        select(judged.annotator_id, func.count().label("n"), func.max(judged.judged_at).label("last"))
        .where(judged.state == "judged", judged.kind == "work")
        .group_by(judged.annotator_id)
    )
    # whose tests are passed, in which projects
    passed = (
        select(tables.qualification.c.annotator_id, tables.project.c.name)
        .join(tables.project, tables.project.c.id == tables.qualification.c.project_id)
        .where(tables.qualification.c.passed)
    )
    with store.read() as connection:
        counts = {row.annotator_id: row for row in connection.execute(done)}
        qualified: dict[str, set[str]] = {}
        for row in connection.execute(passed):
            qualified.setdefault(row.annotator_id, set()).add(row.name)
        # a line for each, by name
        people = connection.execute(select(tables.annotator).order_by(tables.annotator.c.username)).all()
    return [
        {
            "username": row.username,
            "id": row.id,
            "role": row.role,
            "state": texts.ACCOUNT_STATES["withdrawn" if row.withdrawn_at else "active" if row.active else "closed"],
            "qualified": ", ".join(sorted(qualified.get(row.id, ()))) or texts.NOT_QUALIFIED,
            "judgments": counts[row.id].n if row.id in counts else 0,
            "last": counts[row.id].last[:16].replace("T", " ") if row.id in counts else "",
        }
        for row in people
    ]
