"""What reviewers look at: judgments that were flagged, or that came with a note."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select, true

from alignment.data.records import Dialogue
from annotation_ui.items import load_messages
from annotation_ui.schema import annotator, answer, comparison, current_judgment, pair, project
from annotation_ui.session import Flag
from annotation_ui.store import Store

PER_PAGE = 100
FLAGS: dict[Flag, str] = {
    "for_review": "marked for review",
    "chosen_unsafe_other_safe": "prefers an unsafe answer to a safe one",
}


@dataclass(frozen=True)
class Flagged:
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


def flagged(store: Store, before: int | None = None) -> list[Flagged]:
    """Judgments that were flagged, or came with a note, the latest first: a page of them, from before a judgment."""
    said = current_judgment.c
    query = (
        select(current_judgment, comparison.c.pair_id, pair.c.prompt_json, project.c.title)
        .join_from(current_judgment, comparison, comparison.c.id == said.comparison_id)
        .join(pair, pair.c.id == comparison.c.pair_id)
        .join(project, project.c.id == comparison.c.project_id)
        .join(annotator, annotator.c.id == said.annotator_id)
        .where(comparison.c.kind == "work", annotator.c.withdrawn_at.is_(None))
        .where(or_(said.flags_json != "[]", said.note.is_not(None)))
        .where(true() if before is None else said.id < before)
        .order_by(said.id.desc())
        .limit(PER_PAGE)
    )
    with store.read() as connection:
        rows = connection.execute(query).all()
        wanted = select(answer).where(answer.c.pair_id.in_([row.pair_id for row in rows]))
        texts = {(row.pair_id, row.slot): row.text for row in connection.execute(wanted)}
    return [_flagged(row, texts) for row in rows]


def _flagged(row: Any, texts: dict[tuple[str, str], str]) -> Flagged:
    other = "b" if row.chosen_slot == "a" else "a"
    flags: Sequence[Flag] = json.loads(row.flags_json)
    return Flagged(
        id=row.id,
        project=row.title,
        annotator_id=row.annotator_id,
        judged_at=row.created_at,
        dialogue=load_messages(row.prompt_json),
        chosen=texts[row.pair_id, row.chosen_slot],
        other=texts[row.pair_id, other],
        grade=row.grade.replace("_", " "),
        safety=None if row.safety is None else row.safety.replace("_", " "),
        why=tuple(FLAGS[flag] for flag in flags),
        note=row.note,
    )
