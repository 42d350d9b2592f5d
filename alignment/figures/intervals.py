"""Figures with their 95 % intervals: proportions, means, correlations and the trend over grades.

Every figure is a plain dict ``{"value", "ci95": [low, high], "n"}``, ready for ``report.json``. Answers to
the same prompt (and comparisons of the same conversation) are not independent, so every function takes
``clusters``: one label per value. Two kinds of interval are used, and nothing else:

* **Shares** (violations, refusals, stops, accuracy): Wilson's score interval, which stays honest at 0 % and
  100 %, with the number of values replaced by the effective number when values share a cluster.
* **Means** (helpfulness, KL, length, win rate) and what else follows from totals (correlations, accuracies of
  reward models): percentile bootstrap over whole clusters, 1,000 resamples, from a seed. The order of the rows
  does not matter.

The bootstrap (Efron and Tibshirani 1993, chapter 13) resamples statistics that follow from totals of columns only
(means, ratios, moments): it needs the totals of each cluster and how often it was drawn, not the rows.

Sources: Wilson 1927; Korn and Graubard 1998 (effective sample size); Armitage 1955.

Shapes: n values, K clusters, B resamples, M columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]
Clusters = Sequence[Hashable] | npt.NDArray[Any] | None

RESAMPLES = 1_000
DRAWN_AT_ONCE = 2**22
"""Picks of clusters held in memory together."""


def bootstrap(
    columns: Sequence[npt.ArrayLike],
    statistic: Callable[[Array], Array],
    *,
    clusters: Clusters = None,
    seed: int,
) -> tuple[float, Array]:
    """A statistic of column totals, and its values in resamples of whole clusters.

    Args:
        columns: M columns of n finite numbers.
        statistic: totals (..., M) -> (...); not a number where totals leave it undefined.
        clusters: (n,) label of each row's cluster; ``None``: each row its own.
        seed: of the resampling.

    Returns:
        Its value over all rows, and those of the resamples in which it is defined.
    """
    data = np.stack([vector(column) for column in columns], axis=1)
    index = cluster_index(len(data), clusters)
    keys = list(data.T[::-1])
    order = np.lexsort(keys if clusters is None else [*keys, index])  # the order of the rows must not matter
    rows = data[order]
    totals = rows if clusters is None else np.stack([totals_of(column, index[order])[0] for column in rows.T], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        value, draws = float(statistic(totals.sum(axis=0))), statistic(_resampled_totals(totals, seed))
    return value, draws[np.isfinite(draws)]


def percentiles(draws: Array) -> list[float]:
    """The central 95 % of bootstrap draws."""
    low, high = np.percentile(draws, (2.5, 97.5))
    return [float(low), float(high)]


def vector(values: npt.ArrayLike) -> Array:
    """(n,) finite float64 with n >= 1, or ``ValueError``."""
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError(f"expected a non-empty list of numbers, got shape {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError(f"{int((~np.isfinite(data)).sum())} of {data.size} numbers are not finite")
    return data


def cluster_index(n: int, clusters: Clusters) -> npt.NDArray[np.int64]:
    """(n,) number in [0, K) of each value's cluster."""
    if clusters is None:
        return np.arange(n)
    labels = [str(label) for label in clusters]
    if len(labels) != n:
        raise ValueError(f"expected one cluster label per value, got {len(labels)} for {n}")
    index: npt.NDArray[np.int64] = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return index


def totals_of(data: Array, index: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """(K,) sum and (K,) count of each cluster's values."""
    sums: Array = np.bincount(index, weights=data).astype(np.float64)
    counts: Array = np.bincount(index).astype(np.float64)
    return sums, counts


def _resampled_totals(totals: Array, seed: int) -> Array:
    """(B, M) totals of each bootstrap resample, from those (K, M) of each cluster."""
    chance, n = np.random.default_rng(seed), len(totals)
    drawn: list[Array] = []
    for start in range(0, RESAMPLES, step := max(1, DRAWN_AT_ONCE // n)):
        picks = chance.integers(n, size=(min(step, RESAMPLES - start), n))
        places = picks + n * np.arange(len(picks))[:, None]
        counts = np.bincount(places.ravel(), minlength=picks.size).reshape(picks.shape).astype(np.float64)
        drawn.append(np.einsum("bk,km->bm", counts, totals))
    return np.concatenate(drawn)


Z95 = float(stats.norm.ppf(0.975))


class Figure(TypedDict):
    """One reported number: its value, its 95 % interval and how many values it rests on."""

    value: float
    ci95: list[float]
    n: int


def proportion(successes: float, n: int) -> Figure:
    """Share of successes among ``n`` independent trials with Wilson's 95 % interval.

    Args:
        successes: how many succeeded; half a success is allowed (a tie).
        n: how many trials; at least 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    return Figure(value=successes / n, ci95=_wilson(successes / n, n), n=n)


def share(values: npt.ArrayLike, *, clusters: Clusters = None) -> Figure:
    """Mean of values in [0, 1] with Wilson's 95 % interval at the effective number of values.

    The effective number is ``p (1 - p) / variance of the mean``, with the variance taken between clusters,
    and never more than n. Where all values are equal there is no variance to see, and each cluster counts
    once. Equals ``proportion`` for true-or-false values that are each their own cluster.

    Args:
        values: (n,) booleans, or scores between 0 and 1.
        clusters: (n,) label of each value's cluster; ``None``: each value its own.
    """
    data = vector(values)
    if data.min() < 0 or data.max() > 1:
        raise ValueError(f"a share needs values in [0, 1], got {data.min()} to {data.max()}")
    sums, counts = totals_of(data, cluster_index(len(data), clusters))
    p, n = float(data.mean()), len(data)
    variance = float(np.sum((sums - p * counts) ** 2)) / n**2
    effective = len(sums) if variance == 0 or p in (0.0, 1.0) else min(p * (1 - p) / variance, n)
    return Figure(value=p, ci95=_wilson(p, effective), n=n)


def mean_interval(values: npt.ArrayLike, *, clusters: Clusters = None, seed: int) -> Figure:
    """Mean with a percentile bootstrap interval over whole clusters.

    Args:
        values: (n,) finite numbers.
        clusters: (n,) label of each value's cluster; ``None``: each value its own.
        seed: of the resampling; the same seed gives the same interval.
    """
    data = vector(values)
    _, draws = bootstrap([data, np.ones(len(data))], _ratio, clusters=clusters, seed=seed)
    return Figure(value=float(data.mean()), ci95=percentiles(draws), n=len(data))


def resampled_share(values: npt.ArrayLike, *, clusters: Clusters = None, seed: int) -> Figure:
    """Mean of values in [0, 1] as ``mean_interval``; Wilson's interval where no two resamples differ.

    They do not where all values are equal, or there is one cluster: a bootstrap would claim certainty.

    Args:
        values: (n,) booleans, or scores between 0 and 1.
        clusters: (n,) label of each value's cluster; ``None``: each value its own.
        seed: of the resampling.
    """
    figure = mean_interval(values, clusters=clusters, seed=seed)
    return figure if figure["ci95"][0] < figure["ci95"][1] else share(values, clusters=clusters)


def correlation(x: npt.ArrayLike, y: npt.ArrayLike, *, clusters: Clusters = None, seed: int) -> Figure | None:
    """Pearson correlation with a percentile bootstrap interval over whole clusters.

    Args:
        x: (n,) numbers, for instance differences of reward between the two answers of a comparison.
        y: (n,) numbers, for instance differences of length.
        clusters: (n,) label of each pair's cluster; ``None``: each pair its own.
        seed: of the resampling.

    Returns:
        The figure, or ``None`` where x or y does not vary: it has no correlation then.
    """
    left, right = vector(x), vector(y)
    if len(left) != len(right):
        raise ValueError(f"a correlation needs as many x as y, got {len(left)} and {len(right)}")
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    left, right = left - left.mean(), right - right.mean()  # centred: well-conditioned moments
    moments = [left, right, left * left, right * right, left * right, np.ones(len(left))]
    value, draws = bootstrap(moments, _pearson, clusters=clusters, seed=seed)
    return Figure(value=value, ci95=percentiles(draws) if len(draws) else [-1.0, 1.0], n=len(left))


def rank_correlation(x: npt.ArrayLike, y: npt.ArrayLike, *, clusters: Clusters = None, seed: int) -> Figure | None:
    """Spearman correlation: ``correlation`` of the ranks, equal values sharing their mean rank.

    Args:
        x: (n,) numbers.
        y: (n,) numbers.
        clusters: (n,) label of each pair's cluster; ``None``: each pair its own.
        seed: of the resampling.

    Returns:
        The figure, or ``None`` where x or y does not vary.
    """
    return correlation(stats.rankdata(vector(x)), stats.rankdata(vector(y)), clusters=clusters, seed=seed)


def trend_p_value(values: npt.ArrayLike, ranks: npt.ArrayLike, *, clusters: Clusters = None) -> float | None:
    """One-sided p-value that ``values`` rise with ``ranks`` (Cochran-Armitage).

    ``z = sum (w_i - mean w)(x_i - mean x) / sd``, with ``sd^2 = var(x) sum (w_i - mean w)^2`` under the
    hypothesis of no trend; with clusters, sd^2 is the sum over clusters of the squared sum of their terms.

    Args:
        values: (n,) scores in [0, 1], for instance 1 where a reward model was right.
        ranks: (n,) the position of each value's grade: higher should mean larger values.
        clusters: (n,) label of each value's cluster; ``None``: independent values.

    Returns:
        The p-value, or ``None`` where all values or all ranks are the same.
    """
    x, weights = vector(values), vector(ranks)
    if len(x) != len(weights):
        raise ValueError(f"a trend needs as many values as ranks, got {len(x)} and {len(weights)}")
    centred = weights - weights.mean()
    terms = centred * (x - x.mean())
    if clusters is None:
        variance = float(x.var() * np.sum(centred**2))
    else:
        variance = float(np.sum(totals_of(terms, cluster_index(len(terms), clusters))[0] ** 2))
    if variance <= 1e-12:
        return None
    return float(stats.norm.sf(terms.sum() / math.sqrt(variance)))


def _wilson(p: float, n: float) -> list[float]:
    """Wilson's score interval, clipped to [0, 1] against rounding."""
    z2 = Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return [0.0 if p == 0 else max(centre - half, 0.0), 1.0 if p == 1 else min(centre + half, 1.0)]


def _ratio(totals: Array) -> Array:
    ratio: Array = totals[..., 0] / totals[..., 1]
    return ratio


def _pearson(totals: Array) -> Array:
    """Correlation from totals (..., 6) of x, y, x x, y y, x y and 1; not a number where a resample does not vary."""
    x, y, xx, yy, xy = np.moveaxis(totals[..., :5] / totals[..., 5:], -1, 0)
    return np.clip((xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y)), -1.0, 1.0)
