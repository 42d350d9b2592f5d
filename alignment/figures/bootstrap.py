"""A statistic and how it varies over resamples of whole clusters: the percentile bootstrap.

Only statistics that follow from totals of columns are resampled (means, ratios, moments), so a resample needs the
totals of each cluster and how often it was drawn, not the rows.

Source: Efron and Tibshirani 1993, chapter 13.

Shapes: n values, K clusters, B resamples, M columns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

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
