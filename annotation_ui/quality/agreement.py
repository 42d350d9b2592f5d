"""How far annotators agree: raw agreement, Cohen's kappa, Krippendorff's alpha, Gwet's AC1 and AC2.

Pure statistics on judgments that are already in memory. Ratings do not depend on the side on which an answer stood: a
choice is a slot, a grade is signed by the slot (``signed_grade``), and a safety rating says which of the two answers is
safe, whichever was chosen. A figure that cannot be had has no value and says why; nothing raises, nothing is nan.

* Raw agreement: of two people who judged the same pair, how often they say the same; each pair counts once, however
  many judged it.
* Gwet's AC1 (nominal) and AC2 (weighted) for any number of raters with missing ratings, with the variance over items:
  Gwet, "Computing inter-rater reliability and its variance in the presence of high agreement", 2008, and Handbook of
  Inter-Rater Reliability, 4th edition, 2014, chapters 4 and 5. Categories are those of the scale, used or not.
* AC2 of the signed grade uses quadratic weights, ``1 - (x - y)^2 / 64``: the most common choice for ordered scales.
  Linear weights stand beside it, because quadratic ones forgive a near miss across the middle (-1 for 1) almost whole.
  Llama-2 (2023) reports AC2 of its human evaluations (0.37 to 0.55 on helpfulness) without naming the weights: neither
  is known to be comparable with it.
* Krippendorff's alpha of the signed grade is ordinal: its distance grows with how many ratings lie between two grades,
  so that alpha and AC2 differ in more than what they take for chance.

Shapes: N pairs, Q categories of the scale.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Literal

import krippendorff
import numpy as np
import numpy.typing as npt
from scipy import stats

from alignment.figures.intervals import share
from annotation_ui import texts
from annotation_ui.quality.judged_pairs import (
    SIGNED_GRADES,
    JudgedPair,
    choices_by_pair,
    safety_of_answers,
    signed_grade,
)
from annotation_ui.quality.quality_figures import Kappa, Measure
from annotation_ui.vocabulary import Slot

Counts = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]
MIN_SHARED = 20
"""Pairs that two annotators must have in common before their kappa counts."""


def choice_counts(rows: Iterable[JudgedPair]) -> Counts:
    """(N, 2) how many chose slot a, and slot b."""
    return _counts(rows, lambda row: 0 if row.choice == "a" else 1, 2)


def grade_counts(rows: Iterable[JudgedPair]) -> Counts:
    """(N, 8) how many gave each of ``SIGNED_GRADES``."""
    places = {grade: place for place, grade in enumerate(SIGNED_GRADES)}
    return _counts(rows, lambda row: places[signed_grade(row)], len(SIGNED_GRADES))


def safety_counts(rows: Iterable[JudgedPair]) -> Counts:
    """(N, 4) how many said neither, b only, a only, both are safe; pairs for which it was asked."""
    return _counts(rows, safety_of_answers, 4)


def _counts(rows: Iterable[JudgedPair], category: Callable[[JudgedPair], int | None], size: int) -> Counts:
    """(N, size) ratings of each pair in each category; one a person, the last where there are more."""
    ratings = {(row.pair_id, row.annotator): rating for row in rows if (rating := category(row)) is not None}
    places: dict[str, int] = {}
    cells = [(places.setdefault(pair_id, len(places)), rating) for (pair_id, _), rating in ratings.items()]
    counts = np.zeros((len(places), size), dtype=np.int64)
    if cells:
        np.add.at(counts, tuple(np.asarray(cells).T), 1)
    return counts


# -- agreement ---------------------------------------------------------------------------------------------------------


def identity_weights(size: int) -> Weights:
    """(size, size) credit for equal ratings only: AC2 becomes AC1."""
    return np.eye(size)


def weights_by_distance(values: Sequence[float], *, power: Literal[1, 2]) -> Weights:
    """(Q, Q) ``1 - (distance / largest distance)^power``: linear (1) or quadratic (2) weights."""
    scale = np.asarray(values, dtype=np.float64)
    distances = np.abs(scale[:, None] - scale[None, :])
    weights: Weights = 1 - (distances / distances.max()) ** power
    return weights


def raw_agreement(counts: Counts) -> Measure:
    """Mean over pairs with two or more ratings of the share of rater pairs that agree, with Wilson's interval."""
    shared = counts[counts.sum(axis=1) >= 2]
    if not len(shared):
        return Measure(None, 0, missing=texts.NO_OVERLAP)
    figure = share(_credit(shared, identity_weights(shared.shape[1])))
    return Measure(figure["value"], figure["n"], (figure["ci95"][0], figure["ci95"][1]))


def gwet(counts: Counts, weights: Weights) -> Measure:
    """Gwet's AC2 (AC1 with identity weights): any number of ratings a pair, a pair with one counts for chance only.

    The interval is from the variance over pairs and Student's t; there is none where no two pairs differ.

    Args:
        counts: (N, Q) ratings of each pair in each category; every pair has one or more.
        weights: (Q, Q) credit for two ratings, 1 for equal ones.
    """
    ratings = counts.sum(axis=1)
    shared = ratings >= 2
    n, n_shared, size = len(counts), int(shared.sum()), counts.shape[1]
    if not n_shared:
        return Measure(None, 0, missing=texts.NO_OVERLAP)
    credit = np.where(shared, _credit(counts, weights), 0.0)
    prevalence = (counts / ratings[:, None]).mean(axis=0)
    # p_e = T_w / (q (q - 1)) * sum_k pi_k (1 - pi_k)
    scale = weights.sum() / (size * (size - 1))
    chance = float(scale * (prevalence * (1 - prevalence)).sum())
    value = (float(credit[shared].mean()) - chance) / (1 - chance)
    # each pair's part in the coefficient, and in what chance is taken to be
    parts = n / n_shared * np.where(shared, credit - chance, 0.0) / (1 - chance)
    chances = scale * (counts @ (1 - prevalence)) / ratings
    parts = parts - 2 * (1 - value) * (chances - chance) / (1 - chance)
    return Measure(value, n_shared, _interval(value, parts))


def _credit(counts: Counts, weights: Weights) -> npt.NDArray[np.float64]:
    """(N,) mean credit over the rater pairs of each pair: sum_k r_k (r*_k - 1) / (r (r - 1)), r*_k = sum_l w_kl r_l."""
    ratings = counts.sum(axis=1)
    total = (counts * (counts @ weights - 1)).sum(axis=1)
    mean: npt.NDArray[np.float64] = total / np.maximum(ratings * (ratings - 1), 1)
    return mean


def _interval(value: float, parts: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    n = len(parts)
    if n < 2:
        return None
    variance = float(((parts - value) ** 2).sum()) / (n * (n - 1))
    if variance < 1e-24:
        return None
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(variance)
    return max(value - half, -1.0), min(value + half, 1.0)


def krippendorff_alpha(
    counts: Counts, values: Sequence[float], level: Literal["nominal", "ordinal", "interval"]
) -> Measure:
    """Krippendorff's alpha over pairs with two or more ratings.

    Args:
        counts: (N, Q) ratings of each pair in each category.
        values: the Q categories, in order.
        level: of measurement.
    """
    shared = counts[counts.sum(axis=1) >= 2]
    if not len(shared):
        return Measure(None, 0, missing=texts.NO_OVERLAP)
    if np.count_nonzero(shared.sum(axis=0)) < 2:
        return Measure(None, len(shared), missing=texts.NO_VARIATION)
    alpha = krippendorff.alpha(value_counts=shared, value_domain=list(values), level_of_measurement=level)
    return Measure(float(alpha), len(shared))


def cohen_kappas(rows: Iterable[JudgedPair], *, min_shared: int = MIN_SHARED) -> list[Kappa]:
    """Cohen's kappa on the choice, of every two annotators with ``min_shared`` pairs in common, ordered by id."""
    choices: dict[tuple[str, str], list[tuple[Slot, Slot]]] = defaultdict(list)
    for choice_of in choices_by_pair(rows).values():
        for first, second in combinations(sorted(choice_of), 2):
            choices[first, second].append((choice_of[first], choice_of[second]))
    return [_kappa(*names, shared) for names, shared in sorted(choices.items()) if len(shared) >= min_shared]


def _kappa(first: str, second: str, choices: Sequence[tuple[Slot, Slot]]) -> Kappa:
    if len({slot for both in choices for slot in both}) < 2:
        return Kappa(first, second, len(choices), None)
    n, differ = len(choices), sum(one != other for one, other in choices)
    first_a, second_a = (slots.count("a") for slots in zip(*choices, strict=True))
    # How often two who choose a as often as they do would differ by chance.
    by_chance = first_a * (n - second_a) / n + (n - first_a) * second_a / n
    return Kappa(first, second, n, 1 - differ / by_chance)


def mean_kappa(kappas: Sequence[Kappa]) -> Measure:
    """Mean of the kappas, weighted by the pairs in common; ``n`` counts the couples of annotators."""
    weighted = [(kappa.value, kappa.n) for kappa in kappas if kappa.value is not None]
    if not weighted:
        return Measure(None, 0, missing=texts.NO_VARIATION if kappas else texts.NO_OVERLAP)
    values, weights = zip(*weighted, strict=True)
    return Measure(float(np.average(values, weights=weights)), len(weighted))


def agreement_with_others(rows: Iterable[JudgedPair]) -> Mapping[str, Measure]:
    """How often each annotator chose as another did; a pair counts once, by the share of the others who agree."""
    agreements: dict[str, list[float]] = defaultdict(list)
    for choice_of in choices_by_pair(rows).values():
        for annotator, slot in choice_of.items():
            others = len(choice_of) - 1
            agreements[annotator] += [(list(choice_of.values()).count(slot) - 1) / others] if others else []
    return {annotator: _share_of(values) for annotator, values in agreements.items()}


def _share_of(values: Sequence[float]) -> Measure:
    if not values:
        return Measure(None, 0, missing=texts.NO_OVERLAP)
    figure = share(values)
    return Measure(figure["value"], figure["n"], (figure["ci95"][0], figure["ci95"][1]))
