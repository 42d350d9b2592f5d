"""Win rates of one policy against another: wins, ties and losses from scores, with intervals."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import numpy.typing as npt

from alignment.figures.intervals import Clusters, resampled_share, vector


class OutcomeShares(TypedDict):
    """Shares of wins, ties and losses, and ``win_rate = win + tie / 2``."""

    win: float
    tie: float
    loss: float
    win_rate: float


class WinRateFigure(OutcomeShares):
    """The same with the interval of the win rate, and how many pairs it rests on."""

    ci95: list[float]
    n: int


def win_rate(outcomes: npt.ArrayLike, *, clusters: Clusters = None, seed: int) -> WinRateFigure:
    """Win, tie and loss shares of paired outcomes, and the win rate with its interval.

    Args:
        outcomes: (n,) 1 a win, 0 a tie, -1 a loss.
        clusters: (n,) label of each pair's prompt; ``None``: each pair its own.
        seed: of the resampling.
    """
    shares = outcome_shares(outcomes)
    figure = resampled_share((vector(outcomes) + 1) / 2, clusters=clusters, seed=seed)
    return WinRateFigure(**shares, ci95=figure["ci95"], n=figure["n"])


def outcome_shares(outcomes: npt.ArrayLike) -> OutcomeShares:
    """Shares of wins (1), ties (0) and losses (-1) among outcomes (n,), and the win rate, without an interval."""
    data = vector(outcomes)
    if not np.isin(data, (-1.0, 0.0, 1.0)).all():
        raise ValueError("outcomes are 1 (win), 0 (tie) or -1 (loss)")
    return OutcomeShares(
        win=float(np.mean(data == 1)),
        tie=float(np.mean(data == 0)),
        loss=float(np.mean(data == -1)),
        win_rate=float(((data + 1) / 2).mean()),
    )


def compare_scores(ours: npt.ArrayLike, theirs: npt.ArrayLike, *, tie_margin: float = 0.0) -> npt.NDArray[np.int64]:
    """(n,) 1 where ours is higher by more than ``tie_margin``, -1 where lower by more, else 0."""
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    if not np.isfinite(difference).all():
        raise ValueError("scores to compare must be finite")
    return np.where(np.abs(difference) <= tie_margin, 0, np.sign(difference)).astype(np.int64)
