"""Figures with their 95 % intervals: proportions, means, win rates, correlations and the trend over grades.

Every figure is a plain dict ``{"value", "ci95": [low, high], "n"}``, ready for ``report.json``. Answers to
the same prompt (and comparisons of the same conversation) are not independent, so every function takes
``clusters``: one label per value. Two kinds of interval are used, and nothing else:

* **Shares** (violations, refusals, stops, accuracy): Wilson's score interval, which stays honest at 0 % and
  100 %, with the number of values replaced by the effective number when values share a cluster.
* **Means** (helpfulness, KL, length, win rate): percentile bootstrap over whole clusters, 1,000 resamples,
  from a seed. The order of the rows does not matter.

Sources: Wilson 1927; Korn and Graubard 1998 (effective sample size); Efron and Tibshirani 1993, chapter 13;
Armitage 1955.

Shapes: n values, K clusters, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]
Clusters = Sequence[Hashable] | npt.NDArray[Any] | None

RESAMPLES = 1_000
Z95 = float(stats.norm.ppf(0.975))


class Figure(TypedDict):
    """One reported number: its value, its 95 % interval and how many values it rests on."""

    value: float
    ci95: list[float]
    n: int


class WinRateFigure(TypedDict):
    """Shares of wins, ties and losses, and ``win_rate = win + tie / 2`` with its interval."""

    win: float
    tie: float
    loss: float
    win_rate: float
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
    data = _vector(values)
    if data.min() < 0 or data.max() > 1:
        raise ValueError(f"a share needs values in [0, 1], got {data.min()} to {data.max()}")
    sums, counts = _totals(data, _cluster_index(len(data), clusters))
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
    data = _vector(values)
    index = _cluster_index(len(data), clusters)
    order = np.argsort(data) if clusters is None else np.lexsort((data, index))  # the order of the rows must not matter
    sums, counts = _totals(data[order], index if clusters is None else index[order])
    picks = _resamples(len(sums), seed)
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    return Figure(value=float(data.mean()), ci95=_percentiles(means), n=len(data))


def win_rate(outcomes: npt.ArrayLike, *, clusters: Clusters = None, seed: int) -> WinRateFigure:
    """Win, tie and loss shares of paired outcomes, and the win rate with its interval.

    Where every outcome is the same a bootstrap sees no variance; Wilson's interval is reported then.

    Args:
        outcomes: (n,) 1 a win, 0 a tie, -1 a loss.
        clusters: (n,) label of each pair's prompt; ``None``: each pair its own.
        seed: of the resampling.
    """
    data = _vector(outcomes)
    if not np.isin(data, (-1.0, 0.0, 1.0)).all():
        raise ValueError("outcomes are 1 (win), 0 (tie) or -1 (loss)")
    points = (data + 1) / 2
    constant = bool(np.all(points == points[0]))
    figure = share(points, clusters=clusters) if constant else mean_interval(points, clusters=clusters, seed=seed)
    return WinRateFigure(
        win=float(np.mean(data == 1)),
        tie=float(np.mean(data == 0)),
        loss=float(np.mean(data == -1)),
        win_rate=figure["value"],
        ci95=figure["ci95"],
        n=figure["n"],
    )


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
    left, right = _vector(x), _vector(y)
    if len(left) != len(right):
        raise ValueError(f"a correlation needs as many x as y, got {len(left)} and {len(right)}")
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    index = _cluster_index(len(left), clusters)
    order = np.lexsort((right, left)) if clusters is None else np.lexsort((right, left, index))
    left, right = (
        (left - left.mean())[order],
        (right - right.mean())[order],
    )  # centred: well-conditioned moments
    index = index if clusters is None else index[order]
    moments = [left, right, left * left, right * right, left * right]
    columns = [_totals(moment, index) for moment in moments]
    counts = columns[0][1]
    picks = _resamples(len(counts), seed)
    total = counts[picks].sum(axis=1)
    drawn = [sums[picks].sum(axis=1) / total for sums, _ in columns]
    resampled = _pearson(*drawn)
    usable = resampled[np.isfinite(resampled)]
    value = float(_pearson(*(np.asarray(moment.mean()) for moment in moments)))
    return Figure(value=value, ci95=_percentiles(usable) if len(usable) else [-1.0, 1.0], n=len(left))


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
    x, weights = _vector(values), _vector(ranks)
    if len(x) != len(weights):
        raise ValueError(f"a trend needs as many values as ranks, got {len(x)} and {len(weights)}")
    centred = weights - weights.mean()
    terms = centred * (x - x.mean())
    if clusters is None:
        variance = float(x.var() * np.sum(centred**2))
    else:
        variance = float(np.sum(_totals(terms, _cluster_index(len(terms), clusters))[0] ** 2))
    if variance <= 1e-12:
        return None
    return float(stats.norm.sf(terms.sum() / math.sqrt(variance)))


def correctness(score_differences: npt.ArrayLike) -> Array:
    """(n,) 1 where chosen scored higher than rejected, 0 where lower, one half where equal."""
    differences = np.asarray(score_differences, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise ValueError(f"{int((~np.isfinite(differences)).sum())} score differences are not finite")
    right: Array = (np.sign(differences) + 1) / 2
    return right


def compare_scores(ours: npt.ArrayLike, theirs: npt.ArrayLike, *, tie_margin: float = 0.0) -> npt.NDArray[np.int64]:
    """(n,) 1 where ours is higher by more than ``tie_margin``, -1 where lower by more, else 0."""
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    if not np.isfinite(difference).all():
        raise ValueError("scores to compare must be finite")
    return np.where(np.abs(difference) <= tie_margin, 0, np.sign(difference)).astype(np.int64)


def _wilson(p: float, n: float) -> list[float]:
    """Wilson's score interval, clipped to [0, 1] against rounding."""
    z2 = Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return [0.0 if p == 0 else max(centre - half, 0.0), 1.0 if p == 1 else min(centre + half, 1.0)]


def _vector(values: npt.ArrayLike) -> Array:
    """(n,) finite float64 with n >= 1, or ``ValueError``."""
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size == 0:
        raise ValueError(f"expected a non-empty list of numbers, got shape {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError(f"{int((~np.isfinite(data)).sum())} of {data.size} numbers are not finite")
    return data


def _cluster_index(n: int, clusters: Clusters) -> npt.NDArray[np.int64]:
    """(n,) number in [0, K) of each value's cluster."""
    if clusters is None:
        return np.arange(n)
    labels = [str(label) for label in clusters]
    if len(labels) != n:
        raise ValueError(f"expected one cluster label per value, got {len(labels)} for {n}")
    index: npt.NDArray[np.int64] = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return index


def _totals(data: Array, index: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """(K,) sum and (K,) count of each cluster's values."""
    sums: Array = np.bincount(index, weights=data).astype(np.float64)
    counts: Array = np.bincount(index).astype(np.float64)
    return sums, counts


def _resamples(n_clusters: int, seed: int) -> npt.NDArray[np.int64]:
    """(B, K) indices of the clusters in each bootstrap resample."""
    return np.random.default_rng(seed).integers(n_clusters, size=(RESAMPLES, n_clusters))


def _percentiles(draws: Array) -> list[float]:
    """The central 95 % of bootstrap draws."""
    low, high = np.percentile(draws, (2.5, 97.5))
    return [float(low), float(high)]


def _pearson(x: Array, y: Array, xx: Array, yy: Array, xy: Array) -> Array:
    """Correlation from first and second moments; not a number where a resample does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Array = (xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y))
    return np.clip(ratio, -1.0, 1.0)
