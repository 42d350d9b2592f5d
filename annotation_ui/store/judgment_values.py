"""What an annotator sends as a judgment or a skip, checked, and as values of a row."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, select

from alignment.data.records import SAFETY_LABELS, SafetyBin
from annotation_ui import texts
from annotation_ui.store import tables
from annotation_ui.store.database import storable
from annotation_ui.store.rows import ProjectRow
from annotation_ui.vocabulary import FLAG, UNSAFE_PREFERRED, Flag, Refused, Slot, meaning_of, slot_on

MAX_NOTE_CHARS = 2000
MAX_ACTIVE_MS = 24 * 60 * 60 * 1000


_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Submission:
    """A judgment as it comes from the page; nothing in it is trusted.

    Attributes:
        comparison_id: what is judged.
        submission_id: made by the server for this showing; the same one twice saves once.
        option: 1 to 8.
        safety: the bin, where it was asked.
        note: free text, not exported by default.
        flagged: marked for review.
        active_ms: time spent with the page in front, milliseconds.
        input_method: ``keyboard`` or ``mouse``.
        guidelines_sha256: which guidelines the page showed; ``None``: the present ones.
    """

    comparison_id: str
    submission_id: str
    option: int
    safety: SafetyBin | None = None
    note: str = ""
    flagged: bool = False
    active_ms: int | None = None
    input_method: Literal["keyboard", "mouse"] = "mouse"
    guidelines_sha256: str | None = None


def values_of(given: Submission, left_slot: Slot, *, ask_safety: bool) -> dict[str, Any]:
    """Check a submission and turn sides into slots.

    Raises:
        Refused: something in it is missing, unknown or out of range.
    """
    if not isinstance(given.option, int) or isinstance(given.option, bool):
        raise Refused(texts.CHOOSE_FIRST)
    if not 1 <= given.option <= 8:
        raise Refused(texts.NO_OPTION.format(option=given.option))
    side, grade = meaning_of(given.option)
    if ask_safety and given.safety is None:
        raise Refused(texts.SAFETY_FIRST)
    known = isinstance(given.safety, str) and given.safety in SAFETY_LABELS
    if given.safety is not None and not (ask_safety and known):
        raise Refused(texts.NO_SAFETY)
    # Flags are the annotator's own, and one that follows from the answer.
    flags: list[Flag] = [FLAG] if given.flagged else []
    if given.safety == UNSAFE_PREFERRED:
        flags.append("chosen_unsafe_other_safe")
    return {
        "kind": "judgment",
        "chosen_slot": slot_on(side, left_slot),
        "grade": grade,
        "safety": given.safety,
        "flags_json": json.dumps(flags),
        "note": checked_note(given.note),
        "active_ms": checked_time(given.active_ms),
        "input_method": given.input_method if given.input_method in ("keyboard", "mouse") else None,
    }


def values_of_skip(reason: str, note: str, active_ms: int | None) -> dict[str, Any]:
    """Check a skip.

    Raises:
        Refused: there is no such reason.
    """
    if not isinstance(reason, str) or reason not in texts.SKIP_REASONS:
        raise Refused(texts.REASON_FIRST)
    values = {"kind": "skip", "skip_reason": reason, "flags_json": "[]"}
    return {**values, "note": checked_note(note), "active_ms": checked_time(active_ms)}


def checked_note(note: str) -> str | None:
    """A note that fits, without white space around it."""
    if not isinstance(note, str) or len(note) > MAX_NOTE_CHARS:
        raise Refused(texts.NOTE_TOO_LONG.format(most=MAX_NOTE_CHARS))
    return storable(note).strip() or None


def checked_time(active_ms: Any) -> int | None:
    """Milliseconds within reason, else nothing: no judgment is lost over a clock."""
    whole = isinstance(active_ms, int | float) and not isinstance(active_ms, bool) and active_ms == active_ms
    return int(active_ms) if whole and 0 <= active_ms <= MAX_ACTIVE_MS else None


def guidelines_read(connection: Connection, given: Any, project: ProjectRow) -> str:
    """Which guidelines a judgment was made under: earlier ones, where they changed while the page was open."""
    if given == project.guidelines_sha256 or not isinstance(given, str) or not _SHA256.fullmatch(given):
        return project.guidelines_sha256
    known = connection.execute(
        select(tables.guideline.c.sha256).where(tables.guideline.c.sha256 == given)
    ).scalar_one_or_none()
    return known or project.guidelines_sha256


def checked_id(value: Any) -> str:
    """An id from the browser that a database can look up; what cannot be one is refused."""
    if not isinstance(value, str) or not value.isascii() or "\0" in value or len(value) > 100:
        raise Refused(texts.NO_ID)
    return value
