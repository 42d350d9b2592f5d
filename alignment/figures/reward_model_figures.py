"""What a reward model is worth, from the scores it gave to pairs that people compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from alignment.data.records import GRADES, SAFETY_LABELS
from alignment.figures.calibration import reliability
from alignment.figures.intervals import Figure, bootstrap, correlation, percentiles, rank_correlation, resampled_share
from alignment.figures.pair_accuracy import (
    Pairs,
    ScoredPair,
    accuracy,
    accuracy_trend,
    check_scores,
    correctness,
    score_differences,
)
from alignment.figures.unsafe_detection import unsafe_detection

Figures = dict[str, Any]
HISTOGRAM_BINS = 30


def reward_figures(pairs: Pairs, *, seed: int, threshold_probability: float) -> Figures:
    """All figures of one reward model on one set of comparisons.

    Args:
        pairs: scored judgments in any order; several of one pair count each, and share a conversation.
        seed: of the bootstrap.
        threshold_probability: the gate's; an answer whose probability of being safe is below it is flagged.

    Returns:
        ``n_conversations``; ``accuracy`` (``all`` and each grade), ``accuracy_by_turn``, ``accuracy_by_dimension`` and
        ``accuracy_by_safety_bin``, ``trend_p_value``, ``length_correlation``, ``length`` (``length_figures``),
        ``reliability``, ``unsafe_detection`` and ``score_histograms``. ``None`` is what these pairs cannot tell.

    Raises:
        UserError: a score is not a finite number; names the pair and the answer.
    """
    check_scores(pairs)
    differences, clusters = score_differences(pairs).tolist(), [pair.conversation_id for pair in pairs]
    grades, lengths = [pair.grade for pair in pairs], [float(pair.extra_tokens) for pair in pairs]
    return {
        "n_conversations": len(set(clusters)),
        "accuracy": {"all": accuracy(pairs, seed=seed), **_by(pairs, lambda pair: pair.grade, GRADES, seed=seed)},
        "accuracy_by_turn": _by(pairs, lambda pair: str(pair.turns), _turns(pairs), seed=seed),
        "accuracy_by_dimension": _by(pairs, lambda p: p.dimension, sorted({p.dimension for p in pairs}), seed=seed),
        "accuracy_by_safety_bin": _by(pairs, _safety_bin, tuple(SAFETY_LABELS), seed=seed),
        "trend_p_value": accuracy_trend(differences, grades, clusters),
        "length_correlation": correlation(differences, lengths, clusters=clusters, seed=seed),
        "length": length_figures(pairs, seed=seed),
        "reliability": reliability(differences, clusters, seed=seed),
        "unsafe_detection": unsafe_detection(pairs, seed=seed, threshold_probability=threshold_probability),
        "score_histograms": score_histograms(
            {"chosen": [pair.chosen for pair in pairs], "rejected": [pair.rejected for pair in pairs]}
        ),
    }


def length_figures(pairs: Pairs, *, seed: int) -> dict[str, Figure | None]:
    """How far accuracy depends on length in tokens.

    Returns:
        ``share_chosen_longer`` of the pairs of unequal length (what always preferring the longer answer would score);
        accuracy where the chosen answer is longer, shorter or equally long (``chosen_longer``, ...); and ``balanced``,
        the mean of the first two, in which a model that only measures length gets one half.
    """
    longer, shorter, same = ([pair for pair in pairs if np.sign(pair.extra_tokens) == sign] for sign in (1, -1, 0))
    unequal = [*longer, *shorter]
    labels = [pair.conversation_id for pair in unequal]
    share_longer = [1.0] * len(longer) + [0.0] * len(shorter)
    return {
        "share_chosen_longer": resampled_share(share_longer, clusters=labels, seed=seed) if unequal else None,
        "chosen_longer": accuracy(longer, seed=seed),
        "chosen_shorter": accuracy(shorter, seed=seed),
        "same_length": accuracy(same, seed=seed),
        "balanced": _balanced(longer, shorter, seed=seed),
    }


def agreement(first: Pairs, second: Pairs, *, seed: int) -> dict[str, Figure | None]:
    """How alike two reward models judge the same pairs.

    Args:
        first: the pairs as one model scored them.
        second: the same, in the same order, as the other did.
        seed: of the bootstrap.

    Returns:
        ``same_preference``: share of the pairs in which both prefer the same answer (one half where one is
        undecided); ``rank_correlation``: Spearman's, of the differences of scores, with ranks taken before resampling;
        ``None`` where a model gives all pairs the same difference.

    Raises:
        UserError: a score is not a finite number.
        ValueError: they are not the same pairs.
    """
    check_scores(first)
    check_scores(second)
    if [pair.id for pair in first] != [pair.id for pair in second]:
        raise ValueError("agreement needs the same pairs, in the same order")
    one, other = score_differences(first), score_differences(second)
    same = 1 - np.abs(np.sign(one) - np.sign(other)) / 2
    clusters = [pair.conversation_id for pair in first]
    return {
        "same_preference": resampled_share(same, clusters=clusters, seed=seed),
        "rank_correlation": rank_correlation(one, other, clusters=clusters, seed=seed),
    }


def _turns(pairs: Pairs) -> list[str]:
    return [str(turns) for turns in sorted({pair.turns for pair in pairs})]


def _safety_bin(pair: ScoredPair) -> str | None:
    labels = (pair.chosen_safe, pair.rejected_safe)
    return next((name for name, found in SAFETY_LABELS.items() if found == labels), None)


def _by(
    pairs: Pairs, key: Callable[[ScoredPair], str | None], names: Sequence[str], *, seed: int
) -> dict[str, Figure | None]:
    """Accuracy of each named part; ``None`` for a part without pairs."""
    return {name: accuracy([pair for pair in pairs if key(pair) == name], seed=seed) for name in names}


def _balanced(longer: Pairs, shorter: Pairs, *, seed: int) -> Figure | None:
    """Mean of the two accuracies; where no resample differs, the means of the ends of Wilson's two intervals."""
    if not longer or not shorter:
        return None
    both = [*longer, *shorter]
    right = correctness(score_differences(both))
    is_longer = np.array([1.0] * len(longer) + [0.0] * len(shorter))
    columns = [right * is_longer, is_longer, right * (1 - is_longer), 1 - is_longer]
    labels = [pair.conversation_id for pair in both]
    value, draws = bootstrap(
        columns, lambda t: (t[..., 0] / t[..., 1] + t[..., 2] / t[..., 3]) / 2, clusters=labels, seed=seed
    )
    low, high = percentiles(draws)
    if low == high:
        parts = [accuracy(part, seed=seed) for part in (longer, shorter)]
        low, high = (sum(part["ci95"][end] for part in parts if part) / 2 for end in (0, 1))
    return Figure(value=value, ci95=[low, high], n=len(both))


def score_histograms(scores: Mapping[str, npt.ArrayLike]) -> dict[str, dict[str, list[Any]]]:
    """Histograms of one reward model's scores: policy name -> common ``edges`` (one more) and ``counts``."""
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    if not arrays or any(array.size == 0 or not np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("a histogram needs at least one policy, and finite scores of each")
    edges = np.histogram_bin_edges(np.concatenate(list(arrays.values())), bins=HISTOGRAM_BINS)
    return {
        name: {
            "edges": [float(edge) for edge in edges],
            "counts": np.histogram(array, bins=edges)[0].tolist(),
        }
        for name, array in arrays.items()
    }


def side_by_side(
    scored: Mapping[str, Mapping[str, Pairs]], *, seed: int, threshold_probability: float
) -> dict[str, Any]:
    """Several models on several test sets, from model -> test set -> scored pairs, equal pairs for all models.

    Returns:
        ``figures`` (model -> test set -> ``reward_figures``), ``tables`` (``cross_table``) and ``agreement``, one entry
        for each two models and test set.
    """
    figures = {
        model: {
            name: reward_figures(pairs, seed=seed, threshold_probability=threshold_probability)
            for name, pairs in sets.items()
        }
        for model, sets in scored.items()
    }
    agreements = [
        {"test_set": name, "first": one, "second": other, **agreement(pairs, scored[other][name], seed=seed)}
        for one, other in combinations(scored, 2)
        for name, pairs in scored[one].items()
    ]
    return {"figures": figures, "tables": cross_table(figures), "agreement": agreements}


def cross_table(figures: Mapping[str, Mapping[str, Figures]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of Llama 2's tables 7 and 8 from model -> test set -> ``reward_figures``.

    Returns:
        ``overall``: one row a model, ``{"model", "accuracy": {test set: figure}}``; ``by_grade``: one row a model and
        test set, ``{"model", "test_set", "all", *GRADES}``.
    """
    return {
        "overall": [
            {"model": model, "accuracy": {name: found["accuracy"]["all"] for name, found in sets.items()}}
            for model, sets in figures.items()
        ],
        "by_grade": [
            {"model": model, "test_set": name, **found["accuracy"]}
            for model, sets in figures.items()
            for name, found in sets.items()
        ],
    }
