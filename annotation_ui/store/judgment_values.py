"""What an annotator sends as a judgment or a skip, checked, and as values of a row."""

from __future__ import annotations

import json
from typing import Any

from alignment.data.records import SAFETY_LABELS
from annotation_ui import texts
from annotation_ui.store.database import storable
from annotation_ui.vocabulary import FLAG, UNSAFE_PREFERRED, Flag, Refused, Slot, Submission, meaning_of, slot_on

MAX_NOTE_CHARS = 2000
MAX_ACTIVE_MS = 24 * 60 * 60 * 1000


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
