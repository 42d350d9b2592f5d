"""Judgments to try the quality report on: made up, seeded, in memory."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from alignment.data.records import GRADES, SAFETY_LABELS, Dimension, SafetyBin
from annotation_ui.quality.judged_pairs import SIGNED_GRADES, JudgedPair, SkippedPair
from annotation_ui.vocabulary import SkipReason, Slot

ANNOTATORS = [f"ann_{number:x}{'0123456789abcdef' * 2}"[:28] for number in range(0xA1, 0xA9)]
"""The last but one always works fast, the last one leans to the left."""


def judged(pair_id: str, annotator: str, signed: int = 2, **changes: Any) -> JudgedPair:
    """A judgment with a signed grade; everything else as given, or plain."""
    plain = JudgedPair(
        pair_id=pair_id,
        annotator=annotator,
        project="helpful",
        dimension="helpfulness",
        batch="b1",
        part="train",
        choice="a" if signed > 0 else "b",
        left_slot="a",
        grade=GRADES[4 - abs(signed)],
        safety=None,
        active_ms=30_000,
        judged_at="2026-03-02T10:00:00.000Z",
    )
    return replace(plain, **changes)


def swap_sides(row: JudgedPair) -> JudgedPair:
    """The same said of the same answers, which stood the other way round."""
    left: Slot = "b" if row.left_slot == "a" else "a"
    return replace(row, left_slot=left)


def example(n_pairs: int = 600, *, seed: int = 0, overlap: int = 2) -> list[JudgedPair]:
    """Two projects, four batches of drifting grades, gold items, and people with habits."""
    rng = random.Random(seed)
    rows: list[JudgedPair] = []
    for number in range(n_pairs):
        dimension: Dimension = "safety" if number % 3 == 0 else "helpfulness"
        batch, truth = 1 + 4 * number // n_pairs, rng.gauss(0, 2.6 - 0.4 * (4 * number // n_pairs))
        gold = number % 20 == 1
        for annotator in rng.sample(ANNOTATORS, overlap if number % 2 == 0 or gold else 1):
            rows.append(_said(rng, number, annotator, dimension, f"batch-{batch}", truth, gold))
    return rows


def _said(
    rng: random.Random, number: int, annotator: str, dimension: Dimension, batch: str, truth: float, gold: bool
) -> JudgedPair:
    left: Slot = rng.choice(("a", "b"))
    seen = truth + rng.gauss(0, 1.2)
    if annotator == ANNOTATORS[-1]:
        seen += 2.5 if left == "a" else -2.5
    nearest = min(SIGNED_GRADES, key=lambda grade: abs(grade - seen))
    quick = 0.2 if annotator == ANNOTATORS[-2] else 1.0
    return judged(
        f"pair_{number}",
        annotator,
        nearest,
        project="safe" if dimension == "safety" else "helpful",
        dimension=dimension,
        batch=batch,
        part="heldout" if number % 10 == 0 else "train",
        left_slot=left,
        safety=_bin(rng, number, nearest > 0) if dimension == "safety" else None,
        active_ms=None if rng.random() < 0.05 else int(quick * 1000 * rng.lognormvariate(3.4, 0.5)),
        judged_at=f"2026-03-{2 + number // 40:02d}T{8 + number % 10:02d}:{rng.randrange(60):02d}:00.000Z",
        flags=("for_review",) if rng.random() < 0.04 else (),
        is_gold=gold,
        gold_ok=(nearest > 0) == (truth > 0) if gold else None,
    )


def _bin(rng: random.Random, number: int, chose_a: bool) -> SafetyBin:
    """Which answers are safe, mostly as the pair's number has it."""
    safe = [number % 2 == 0, number % 5 > 0]
    if rng.random() < 0.2:
        safe[0] = not safe[0]
    seen = (safe[0], safe[1]) if chose_a else (safe[1], safe[0])
    return next(name for name, labels in SAFETY_LABELS.items() if labels == seen)


def skipped(n: int = 25) -> list[SkippedPair]:
    """Skips for some of the reasons."""
    reasons: tuple[SkipReason, ...] = ("both_equal", "both_equal", "no_expertise", "disturbing")
    return [SkippedPair(ANNOTATORS[number % 5], "helpful", reasons[number % 4]) for number in range(n)]
