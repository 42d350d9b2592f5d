"""How often a reward model agrees with people on pairs that they judged: accuracy, by grade, and its trend."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alignment.data.records import GRADES
from alignment.errors import UserError
from alignment.figures.intervals import Array, Clusters, Figure, resampled_share, share, trend_p_value


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


def correctness(score_differences: npt.ArrayLike) -> Array:
    """(n,) 1 where chosen scored higher than rejected, 0 where lower, one half where equal."""
    differences = np.asarray(score_differences, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise ValueError(f"{int((~np.isfinite(differences)).sum())} score differences are not finite")
    right: Array = (np.sign(differences) + 1) / 2
    return right
