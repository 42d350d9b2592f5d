"""Judgments: what annotators say, as rows that are only ever added.

A submission has an id that the server makes for each showing: the comparison's id and how many rows there are about it.
Sent twice, it is saved once; sent from a second tab after the first was saved, it is recognised as late.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, case, exists, func, insert, select

from annotation_ui import texts
from annotation_ui.store import tables
from annotation_ui.store.database import app_version, now
from annotation_ui.store.judgment_values import checked_id
from annotation_ui.store.rows import ComparisonRow, JudgmentRow, PastRow, ProjectRow
from annotation_ui.vocabulary import Refused

_COMPARED = ("kind", "chosen_slot", "grade", "safety", "skip_reason", "flags_json", "note")
"""What makes two submissions with one id the same."""

_ABOUT = tables.judgment.c.comparison_id == bindparam("comparison_id")
_COUNT = select(func.count()).select_from(tables.judgment).where(_ABOUT)
_COUNT_AND_LAST = select(func.count(), func.max(tables.judgment.c.id)).where(_ABOUT)
_LATEST = select(tables.judgment).where(_ABOUT).order_by(tables.judgment.c.id.desc()).limit(1)
_SUBMITTED = select(tables.judgment).where(tables.judgment.c.submission_id == bindparam("submission_id"))
_ADD = insert(tables.judgment)
_LATER, _NEXT_TURN = tables.judgment.alias("later"), tables.comparison.alias("next_turn")
_GOES_ON = exists().where(
    _NEXT_TURN.c.conversation_id == tables.comparison.c.conversation_id, _NEXT_TURN.c.turn > tables.comparison.c.turn
)


_RECENT = (
    select(
        tables.comparison.c.id,
        tables.comparison.c.left_slot,
        tables.comparison.c.judged_at,
        (~_GOES_ON).label("is_last"),
        tables.judgment.c.kind,
        tables.judgment.c.chosen_slot,
        tables.judgment.c.grade,
        tables.judgment.c.skip_reason,
        tables.pair.c.prompt_json,
    )
    .select_from(tables.judgment)
    .join(tables.comparison, tables.comparison.c.id == tables.judgment.c.comparison_id)
    .join(tables.pair, tables.pair.c.id == tables.comparison.c.pair_id)
    .where(
        tables.judgment.c.annotator_id == bindparam("annotator_id"),
        ~exists().where(_LATER.c.supersedes == tables.judgment.c.id),
        tables.comparison.c.project_id == bindparam("project_id"),
        tables.comparison.c.kind == "work",
        tables.comparison.c.state.in_(("judged", "skipped")),
    )
    .order_by(tables.judgment.c.id.desc())
    .limit(bindparam("at_most"))
)
_COUNT_OWN = select(func.count(case((tables.comparison.c.judged_at >= bindparam("day"), 1))), func.count()).where(
    tables.comparison.c.annotator_id == bindparam("annotator_id"),
    tables.comparison.c.project_id == bindparam("project_id"),
    tables.comparison.c.kind == "work",
    tables.comparison.c.state == "judged",
)


def submission_id(connection: Connection, comparison_id: str) -> str:
    """The id that the next thing said about a comparison has to carry."""
    return f"{comparison_id}.{connection.execute(_COUNT, {'comparison_id': comparison_id}).scalar_one()}"


def latest(connection: Connection, comparison_id: str) -> JudgmentRow | None:
    """The last row about a comparison, which the next one supersedes."""
    row = connection.execute(_LATEST, {"comparison_id": comparison_id}).one_or_none()
    return None if row is None else JudgmentRow._make(row)


def current(connection: Connection, comparison_id: str) -> JudgmentRow | None:
    """The judgment of a comparison that holds now, if there is one."""
    last = latest(connection, comparison_id)
    return last if last is not None and last.kind == "judgment" else None


def is_saved(connection: Connection, comparison: ComparisonRow, given_id: str, values: dict[str, Any]) -> bool:
    """Whether the very same was saved before, and holds.

    Args:
        connection: of a write.
        comparison: what is judged.
        given_id: the submission id that came with it.
        values: of the columns, as ``values_of`` gives them.

    Raises:
        Refused: something else was said under this id, or since.
    """
    row = connection.execute(_SUBMITTED, {"submission_id": checked_id(given_id)}).one_or_none()
    if row is None:
        return False
    saved, last = JudgmentRow._make(row), latest(connection, comparison.id)
    same = saved.comparison_id == comparison.id and all(getattr(saved, key) == values.get(key) for key in _COMPARED)
    if same and last is not None and last.id == saved.id:
        return True
    raise Refused(texts.JUDGED_ELSEWHERE)


def append(
    connection: Connection, comparison: ComparisonRow, project: ProjectRow, given_id: str, values: dict[str, Any]
) -> None:
    """Add a row about a comparison.

    Args:
        connection: of a write.
        comparison: what something is said about.
        project: it is in.
        given_id: the submission id that came with it.
        values: of the columns, as ``values_of`` or ``values_of_skip`` gives them.

    Raises:
        Refused: something was said about the comparison since it was shown.
    """
    count, last = connection.execute(_COUNT_AND_LAST, {"comparison_id": comparison.id}).one()
    if given_id != f"{comparison.id}.{count}":
        raise Refused(texts.CHANGED_ELSEWHERE)
    # The new row supersedes the last one.
    row = {
        "submission_id": given_id,
        "comparison_id": comparison.id,
        "annotator_id": comparison.annotator_id,
        "supersedes": last,
        "app_version": app_version(),
        "guidelines_sha256": project.guidelines_sha256,
        "created_at": now(),
        **values,
    }
    connection.execute(_ADD, row)


def recent(connection: Connection, annotator_id: str, project_id: str, limit: int) -> list[PastRow]:
    """The annotator's latest comparisons that were judged or skipped, with what was said; the latest first.

    Args:
        connection: of a read.
        annotator_id: whose.
        project_id: where.
        limit: how many at most.
    """
    own = {"annotator_id": annotator_id, "project_id": project_id, "at_most": limit}
    return [PastRow._make(row) for row in connection.execute(_RECENT, own)]


def count_own(connection: Connection, annotator_id: str, project_id: str) -> tuple[int, int]:
    """How many comparisons an annotator has judged in a project: today (UTC), and in all."""
    own = {"annotator_id": annotator_id, "project_id": project_id, "day": now()[:10]}
    today, total = connection.execute(_COUNT_OWN, own).one()
    return today, total
