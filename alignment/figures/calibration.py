"""Whether a reward model's differences are the log-odds that they are trained to be (Bradley and Terry 1952).

Of the pairs to which it gives a preference probability of 0.8, people should agree with 0.8. The gap between the two,
averaged over bins of confidence, is the expected calibration error (ECE; Guo et al. 2017, arXiv:1706.04599, eq. 3).

Margins or too many epochs make a model overconfident at the same accuracy. Whitening hides that from PPO; thresholds
such as the gate's, and averages of several models, depend on it.

Shapes: n judgments, M columns.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alignment.figures.intervals import Array, Figure, bootstrap, mean_interval, percentiles, resampled_share
from alignment.figures.pair_accuracy import correctness

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
