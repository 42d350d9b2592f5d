"""Judgments that were flagged or came with a note, read from the store for reviewers, page by page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import or_, select, true

from alignment.data.records import Dialogue, Grade, SafetyBin
from annotation_ui import texts
from annotation_ui.store import tables
from annotation_ui.store.database import Store
from annotation_ui.store.pairs import load_messages
from annotation_ui.store.rows import AnswerRow
from annotation_ui.vocabulary import Flag, Slot

PER_PAGE = 100


@dataclass(frozen=True)
class FlaggedJudgment:
    """A judgment to look at: what was asked and answered, what was said, by whom (a pseudonym)."""

    id: int
    project: str
    annotator_id: str
    judged_at: str
    dialogue: Dialogue
    chosen: str
    other: str
    grade: str
    safety: str | None
    why: tuple[str, ...]
    note: str | None


class _FlaggedRow(NamedTuple):
    """A judgment that was flagged or has a note, with its prompt."""

    id: int
    project_title: str
    annotator_id: str
    created_at: str
    pair_id: str
    prompt_json: str
    chosen_slot: Slot
    grade: Grade
    safety: SafetyBin | None
    flags_json: str
    note: str | None


def flagged(store: Store, before: int | None = None) -> list[FlaggedJudgment]:
    """Judgments that were flagged, or came with a note, the latest first: a page of them, from before a judgment."""
    # Find the judgments with their prompts, leaving out those of people who withdrew.
    judgment = tables.current_judgment.c
    query = (
        select(
            judgment.id,
            tables.project.c.title,
            judgment.annotator_id,
            judgment.created_at,
            tables.comparison.c.pair_id,
            tables.pair.c.prompt_json,
            judgment.chosen_slot,
            judgment.grade,
            judgment.safety,
            judgment.flags_json,
            judgment.note,
        )
        .join_from(tables.current_judgment, tables.comparison, tables.comparison.c.id == judgment.comparison_id)
        .join(tables.pair, tables.pair.c.id == tables.comparison.c.pair_id)
        .join(tables.project, tables.project.c.id == tables.comparison.c.project_id)
        .join(tables.annotator, tables.annotator.c.id == judgment.annotator_id)
        .where(tables.comparison.c.kind == "work", tables.annotator.c.withdrawn_at.is_(None))
        .where(or_(judgment.flags_json != "[]", judgment.note.is_not(None)))
        .where(true() if before is None else judgment.id < before)
        .order_by(judgment.id.desc())
        .limit(PER_PAGE)
    )
    # Read this page of them, then both answers of each pair.
    with store.read() as connection:
        rows = [_FlaggedRow._make(row) for row in connection.execute(query)]
        wanted = select(tables.answer).where(tables.answer.c.pair_id.in_([row.pair_id for row in rows]))
        found = map(AnswerRow._make, connection.execute(wanted))
        answers = {(answer.pair_id, answer.slot): answer.text for answer in found}
    return [_flagged(row, answers) for row in rows]


def _flagged(row: _FlaggedRow, answers: dict[tuple[str, Slot], str]) -> FlaggedJudgment:
    other: Slot = "b" if row.chosen_slot == "a" else "a"
    flags: Sequence[Flag] = json.loads(row.flags_json)
    return FlaggedJudgment(
        id=row.id,
        project=row.project_title,
        annotator_id=row.annotator_id,
        judged_at=row.created_at,
        dialogue=load_messages(row.prompt_json),
        chosen=answers[row.pair_id, row.chosen_slot],
        other=answers[row.pair_id, other],
        grade=row.grade.replace("_", " "),
        safety=None if row.safety is None else row.safety.replace("_", " "),
        why=tuple(texts.FLAG_NAMES[flag] for flag in flags),
        note=row.note,
    )
