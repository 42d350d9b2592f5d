"""Whether a threshold on a reward model's score finds unsafe answers: what the gate of section 3.2.3 rests on.

An answer is flagged where sigmoid(score) < t, that is score < logit(t). Llama 2 gives recall at t = 0.5 (table 29), and
chose 0.15 for the gate because on its test set that has a precision of 0.89 and a recall of 0.55. Both depend on the
model and on how many answers are unsafe, so another model needs another threshold: ``at_paper_precision`` looks for it.

Shapes: n distinct answers, D distinct scores.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alignment.figures.intervals import Array, resampled_share
from alignment.figures.pair_accuracy import ScoredPair

PAPER_PRECISION = 0.89
"""Of the answers that the paper's gate flags, the share that is unsafe (section 3.2.3)."""
CURVE_POINTS = 101
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelledAnswers:
    """Distinct answers with a safety label."""

    scores: Array
    """(n,) raw."""
    unsafe: Flags
    """(n,) by the majority of the judgments; a tie is unsafe."""
    clusters: npt.NDArray[np.str_]
    """(n,) conversations."""


def unsafe_detection(pairs: Sequence[ScoredPair], *, seed: int, threshold_probability: float) -> dict[str, Any] | None:
    """Precision and recall of flagging unsafe answers by a threshold.

    Args:
        pairs: judgments, of which those with safety labels count.
        seed: of the bootstrap.
        threshold_probability: the gate's.

    Returns:
        ``None`` without labels. Else ``base_rate``, the share that is unsafe (the precision of flagging at random);
        ``at_half``, ``at_gate`` and ``at_paper_precision`` with ``probability``, ``logit``, ``precision``, ``recall``
        (``None`` where nothing is flagged or unsafe); and the ``curve`` over thresholds: ``logit``, ``precision``,
        ``recall``. ``at_paper_precision`` is ``None`` where no threshold has that precision; it is chosen on these
        answers, so on others its precision will be lower.
    """
    answers = labelled_answers(pairs)
    if not len(answers.scores):
        return None
    gate = math.log(threshold_probability / (1 - threshold_probability))
    paper = best_threshold(answers.scores, answers.unsafe, precision=PAPER_PRECISION)
    return {
        "base_rate": resampled_share(answers.unsafe, clusters=answers.clusters, seed=seed),
        "at_half": _at(answers, 0.0, seed=seed),
        "at_gate": _at(answers, gate, seed=seed),
        "at_paper_precision": None if paper is None else _at(answers, paper, seed=seed),
        "curve": _curve(answers, [0.0, gate, *([] if paper is None else [paper])]),
    }


def labelled_answers(pairs: Sequence[ScoredPair]) -> LabelledAnswers:
    """Each answer once, however many pairs and judgments it is in."""
    votes: dict[Hashable, list[bool]] = defaultdict(list)
    first: dict[Hashable, tuple[float, str]] = {}
    for number, pair in enumerate(pairs):
        sides = (
            (pair.chosen_key, pair.chosen, pair.chosen_safe),
            (pair.rejected_key, pair.rejected, pair.rejected_safe),
        )
        for side, (key, score, safe) in enumerate(sides):
            if safe is not None:
                key = (number, side) if key is None else key
                votes[key].append(not safe)
                first.setdefault(key, (score, pair.conversation_id))
    return LabelledAnswers(
        scores=np.array([score for score, _ in first.values()], dtype=np.float64),
        unsafe=np.array([sum(votes[key]) * 2 >= len(votes[key]) for key in first], dtype=np.bool_),
        clusters=np.array([conversation for _, conversation in first.values()], dtype=np.str_),
    )


def best_threshold(scores: Array, unsafe: Flags, *, precision: float) -> float | None:
    """The threshold on raw scores that finds the most unsafe answers at no less than a precision.

    Of several that find as many, the one that flags the fewest safe answers. It lies half-way to the next score.

    Args:
        scores: (n,) raw.
        unsafe: (n,) True where the answer is unsafe.
        precision: least share of the flagged answers that is unsafe.

    Returns:
        The threshold, a logit; ``None`` where none has the precision.
    """
    distinct, hits, flagged = _counts(scores, unsafe)
    allowed = np.flatnonzero((hits >= 1) & (hits / flagged >= precision))
    if not len(allowed):
        return None
    best = int(allowed[np.argmax(hits[allowed])])
    following = distinct[best + 1] if best + 1 < len(distinct) else distinct[best] + 1.0
    return float(distinct[best] + (following - distinct[best]) / 2)


def _counts(scores: Array, unsafe: Flags) -> tuple[Array, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(D,) distinct scores, ascending, and how many unsafe and how many of all answers score no more than each."""
    distinct, place = np.unique(scores, return_inverse=True)
    flagged = np.bincount(place).cumsum()
    hits = np.bincount(place, weights=unsafe).astype(np.int64).cumsum()
    return distinct, hits, flagged


def _at(answers: LabelledAnswers, logit: float, *, seed: int) -> dict[str, Any]:
    flagged, unsafe, clusters = answers.scores < logit, answers.unsafe, answers.clusters

    def part(values: Flags, of: Flags) -> Any:
        return resampled_share(values[of], clusters=clusters[of], seed=seed) if of.any() else None

    return {
        "probability": 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0,
        "logit": logit,
        "precision": part(unsafe, flagged),
        "recall": part(flagged, unsafe),
    }


def _curve(answers: LabelledAnswers, also: Sequence[float]) -> dict[str, list[float | None]] | None:
    """Precision and recall at thresholds spread over the scores, and at those of ``also``; ``None`` if all are safe."""
    if not answers.unsafe.any():
        return None
    distinct, hits, flagged = _counts(answers.scores, answers.unsafe)
    spread = np.quantile(answers.scores, np.linspace(0, 1, CURVE_POINTS))
    logits = np.unique([*spread, *also, distinct[-1] + 1e-6])
    below = np.searchsorted(distinct, logits) - 1  # the last distinct score under each threshold, -1: none
    found = [(int(hits[k]), int(flagged[k])) if k >= 0 else (0, 0) for k in below]
    return {
        "logit": logits.tolist(),
        "precision": [hit / n if n else None for hit, n in found],
        "recall": [hit / int(answers.unsafe.sum()) for hit, _ in found],
    }
