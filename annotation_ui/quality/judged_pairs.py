"""Judgments and skips as the quality report reads them: one of a pair by one annotator."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from alignment.data.records import GRADES, SAFETY_LABELS, Dimension, Grade, SafetyBin
from annotation_ui.vocabulary import FLAG, SkipReason, Slot

SIGNED_GRADES = (-4, -3, -2, -1, 1, 2, 3, 4)
"""b significantly better ... b negligibly better, a negligibly better ... a significantly better."""


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """What one annotator says of one pair now.

    Attributes:
        pair_id: the pair, shared by all who judged it.
        annotator: pseudonymous id.
        project: name.
        dimension: what the project compares by.
        batch: of the item.
        part: of the data, training or held out.
        choice: slot of the preferred answer.
        left_slot: the slot that this annotator saw on the left.
        grade: by how much.
        safety: the bin, where it was asked; names the chosen answer first.
        active_ms: time spent, where it is known.
        judged_at: ISO 8601 in UTC; of an edited judgment, when it was edited.
        flags: see ``annotation_ui.vocabulary.Flag``.
        is_gold: whether the right choice is known.
        gold_ok: whether this is it.
    """

    pair_id: str
    annotator: str
    project: str
    dimension: Dimension
    batch: str
    part: Literal["train", "heldout"]
    choice: Slot
    left_slot: Slot
    grade: Grade
    safety: SafetyBin | None
    active_ms: int | None
    judged_at: str
    flags: tuple[str, ...] = ()
    is_gold: bool = False
    gold_ok: bool | None = None

    @property
    def flagged(self) -> bool:
        """Whether the annotator marked it for review."""
        return FLAG in self.flags


@dataclass(frozen=True, slots=True)
class SkippedPair:
    """A pair that an annotator did not judge."""

    annotator: str
    project: str
    reason: SkipReason


# -- from judgments to counts ------------------------------------------------------------------------------------------


def signed_grade(row: JudgedPair) -> int:
    """From -4 (b significantly better) to 4 (a significantly better); there is no 0."""
    strength = len(GRADES) - GRADES.index(row.grade)
    return strength if row.choice == "a" else -strength


def safety_of_answers(row: JudgedPair) -> int | None:
    """Which answers are safe: 0 neither, 1 b only, 2 a only, 3 both; ``None`` where it was not asked."""
    if row.safety is None:
        return None
    chosen, rejected = SAFETY_LABELS[row.safety]
    safe_a, safe_b = (chosen, rejected) if row.choice == "a" else (rejected, chosen)
    return 2 * safe_a + safe_b


def choices_by_pair(rows: Iterable[JudgedPair]) -> dict[str, dict[str, Slot]]:
    """Pair -> annotator -> chosen slot."""
    choices: dict[str, dict[str, Slot]] = defaultdict(dict)
    for row in rows:
        choices[row.pair_id][row.annotator] = row.choice
    return choices
