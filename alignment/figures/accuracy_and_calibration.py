"""Pairs that people judged with a reward model's scores of their answers, and how often the model agrees.

How often the model agrees (accuracy), and whether a reward model's differences are the log-odds that they are trained
to be (Bradley and Terry 1952).

Of the pairs to which it gives a preference probability of 0.8, people should agree with 0.8. The gap between the two,
averaged over bins of confidence, is the expected calibration error (ECE; Guo et al. 2017, arXiv:1706.04599, eq. 3).

Margins or too many epochs make a model overconfident at the same accuracy. Whitening hides that from PPO; thresholds
such as the gate's, and averages of several models, depend on it.

Shapes: n judgments, M columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alignment.data.records import GRADES
from alignment.errors import UserError
from alignment.figures.bootstrap import Array, Clusters, bootstrap, percentiles
from alignment.figures.intervals import Figure, mean_interval, resampled_share, share, trend_p_value


@dataclass(frozen=True)
class ScoredPair:
    """One judgment; several of one pair are several of these, with the same conversation.

    Attributes:
        id: of the judgment.
        conversation_id: judgments with the same one are not independent.
        dimension: what was asked, such as helpfulness or safety.
        grade: strength of the preference; ``None`` where the data has none.
        turns: user turns of the prompt.
        chosen: raw score of the preferred answer, before any sigmoid.
        rejected: raw score of the other answer.
        chosen_tokens: length of the preferred answer.
        rejected_tokens: length of the other answer.
        chosen_safe: label; ``None`` where nobody was asked.
        rejected_safe: label; ``None`` where nobody was asked.
        chosen_key: equal where prompt and preferred answer are; ``None``: like no other.
        rejected_key: the same for the other answer.
    """

    id: str
    conversation_id: str
    dimension: str
    grade: str | None
    turns: int
    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int
    chosen_safe: bool | None
    rejected_safe: bool | None
    chosen_key: Hashable | None = None
    rejected_key: Hashable | None = None

    @property
    def extra_tokens(self) -> int:
        """By how many tokens the preferred answer is longer."""
        return self.chosen_tokens - self.rejected_tokens


Pairs = Sequence[ScoredPair]


def check_scores(pairs: Pairs) -> None:
    """Raise ``UserError`` naming the first score that is not a finite number; ``ValueError`` without any pair."""
    if not pairs:
        raise ValueError("no pairs to measure a reward model on")
    for pair in pairs:
        for name, score in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            if not np.isfinite(score):
                raise UserError(
                    f"pair {pair.id}: the score of its {name} answer is {score}. The model is broken, or runs in a "
                    "number format that cannot hold its activations; try model.dtype=float32."
                )


def accuracy(pairs: Pairs, *, seed: int) -> Figure | None:
    """Share of judgments whose chosen answer scores higher, a tie one half; ``None`` without any."""
    if not pairs:
        return None
    right = correctness(score_differences(pairs))
    return resampled_share(right, clusters=[pair.conversation_id for pair in pairs], seed=seed)


def score_differences(pairs: Pairs) -> Array:
    """(n,) raw score of the chosen less that of the rejected answer."""
    return np.array([pair.chosen - pair.rejected for pair in pairs])


def accuracy_by_grade(
    score_differences: Sequence[float], grades: Sequence[str | None], clusters: Clusters = None
) -> dict[str, Figure | None]:
    """Accuracy of a reward model over all comparisons and for each grade (section 3.2.2, table 8).

    Args:
        score_differences: (n,) score of the chosen minus score of the rejected answer; a tie counts one half.
        grades: (n,) strength of preference; ``None`` counts in ``all`` only.
        clusters: (n,) conversation of each comparison.

    Returns:
        ``all`` and the four grades; ``None`` for a grade without a comparison.
    """
    right = correctness(score_differences)
    labels = list(clusters) if clusters is not None else list(range(len(right)))
    if not len(right) == len(grades) == len(labels):
        raise ValueError(f"{len(right)} score differences, {len(grades)} grades, {len(labels)} clusters: not the same")
    result: dict[str, Figure | None] = {"all": share(right, clusters=labels) if len(right) else None}
    for grade in GRADES:
        where = [position for position, given in enumerate(grades) if given == grade]
        result[grade] = share(right[where], clusters=[labels[position] for position in where]) if where else None
    return result


def accuracy_trend(
    score_differences: Sequence[float], grades: Sequence[str | None], clusters: Clusters = None
) -> float | None:
    """One-sided p-value that accuracy falls from significantly better to negligibly better.

    Returns:
        The Cochran-Armitage p-value; ``None`` with fewer than two grades or where all are equally right.
    """
    right = correctness(score_differences)
    where = [position for position, grade in enumerate(grades) if grade is not None]
    ranks = [-GRADES.index(grade) for grade in grades if grade is not None]
    if len(set(ranks)) < 2:
        return None
    labels = None if clusters is None else [list(clusters)[position] for position in where]
    return trend_p_value(right[where], ranks, clusters=labels)


BINS = 10
"""Of equal width, over confidences from one half to one."""


def preference_probability(score_differences: npt.ArrayLike) -> Array:
    """(n,) probability that the chosen answer is the better one, sigmoid of the differences (n,) of scores."""
    differences = np.asarray(score_differences, dtype=np.float64)
    probability: Array = np.exp(-np.logaddexp(0.0, -differences))  # no overflow for any difference
    return probability


def reliability(score_differences: npt.ArrayLike, clusters: Sequence[Hashable], *, seed: int) -> dict[str, Any]:
    """Calibration of the preference probability.

    Args:
        score_differences: (n,) raw score of the chosen minus that of the rejected answer.
        clusters: (n,) conversation of each judgment.
        seed: of the bootstrap.

    Returns:
        ``mean_confidence``: mean of max(p, 1 - p), to be compared with the accuracy; ``ece`` and
        ``ece_if_calibrated``, as ``calibration_error``; ``brier``: mean of (1 - p)^2, a coin's 0.25; ``log_loss``: mean
        of -log p in nats, a coin's 0.693; ``by_confidence``: of each bin its ``low`` and ``high`` end, mean
        ``confidence`` and ``accuracy``, ``None`` where it is empty.
    """
    # Of each judgment: whether the model was right, how sure it was, and the bin of that confidence.
    differences = np.asarray(score_differences, dtype=np.float64)
    right, confidence = correctness(differences), preference_probability(np.abs(differences))
    place = bin_index(confidence)
    # The calibration error, and what noise alone would give, resampled over conversations.
    labels = np.array([str(label) for label in clusters])
    error, noise = calibration_error(right, confidence, labels, seed=seed)

    def mean(values: Array) -> Figure:
        return mean_interval(values, clusters=labels, seed=seed)

    # All figures, then accuracy against confidence bin by bin.
    edges = np.linspace(0.5, 1.0, BINS + 1).round(6).tolist()
    return {
        "mean_confidence": mean(confidence),
        "ece": error,
        "ece_if_calibrated": noise,
        "brier": mean((1 - preference_probability(differences)) ** 2),
        "log_loss": mean(np.logaddexp(0.0, -differences)),
        "by_confidence": [
            {
                "low": edges[number],
                "high": edges[number + 1],
                "confidence": float(confidence[inside].mean()) if inside.any() else None,
                "accuracy": resampled_share(right[inside], clusters=labels[inside], seed=seed)
                if inside.any()
                else None,
            }
            for number in range(BINS)
            for inside in [place == number]
        ],
    }


def bin_index(confidence: Array) -> npt.NDArray[np.int64]:
    """(n,) number of the bin of each confidence; an edge belongs to the bin above it, 1 to the last one."""
    return np.clip(((confidence - 0.5) * 2 * BINS).astype(np.int64), 0, BINS - 1)


def calibration_error(
    right: Array, confidence: Array, clusters: Sequence[Hashable] | npt.NDArray[Any], *, seed: int
) -> tuple[Figure, Figure]:
    """Mean over judgments of the gap between accuracy and mean confidence in their bin; and what noise alone gives.

    Gaps are absolute, so noise adds to them: a calibrated model has an error above 0 too. That is the second figure,
    from the gaps of resamples less those of the data. For the same reason resamples have a larger error than the data.
    The interval of the first figure is moved down by twice that excess (once for the noise of resampling, once for that
    of the data, which it estimates), begins at 0 where noise alone may give the value, and never ends below the value.

    Args:
        right: (n,) 1 where people agree with the model, 0 where not, one half for a tie.
        confidence: (n,) probability in [0.5, 1] that the model gives to its own preference.
        clusters: (n,) conversation of each judgment.
        seed: of the bootstrap.
    """
    inside = bin_index(confidence)[None] == np.arange(BINS)[:, None]
    gaps = (right - confidence) * inside
    columns = [*gaps, np.ones(len(right))]
    value, draws = bootstrap(columns, lambda totals: _gap(totals, 0.0), clusters=clusters, seed=seed)
    _, noise = bootstrap(columns, lambda totals: _gap(totals, gaps.mean(axis=1)), clusters=clusters, seed=seed)
    low, high = np.array(percentiles(draws)) - 2 * (draws.mean() - value)
    low = 0.0 if value <= percentiles(noise)[1] else float(np.clip(low, 0.0, value))
    return (
        Figure(value=value, ci95=[low, float(max(high, value))], n=len(right)),
        Figure(value=float(noise.mean()), ci95=percentiles(noise), n=len(right)),
    )


def _gap(totals: Array, expected: Array | float) -> Array:
    gap: Array = np.abs(totals[..., :-1] / totals[..., -1:] - expected).sum(-1)
    return gap


def correctness(score_differences: npt.ArrayLike) -> Array:
    """(n,) 1 where chosen scored higher than rejected, 0 where lower, one half where equal."""
    differences = np.asarray(score_differences, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise ValueError(f"{int((~np.isfinite(differences)).sum())} score differences are not finite")
    right: Array = (np.sign(differences) + 1) / 2
    return right
