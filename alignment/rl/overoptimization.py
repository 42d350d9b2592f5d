"""Has the policy learned to please its reward models rather than to be better? A guard tells.

The guard is a reward model that pays no policy, trained on comparisons that the others have not seen (Gao et al. 2023,
arXiv:2210.10760, tell over-optimisation by a gold reward that falls while the proxy rises; the guard stands in for it).
The policy is compared with itself on the same held-out prompts, so differences are paired.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FALSE_ALARMS = 0.025
"""Chance of a false alarm at one look, whatever the number of snapshots."""


@dataclass(frozen=True)
class HeldoutScores:
    """What the reward models and the guard said of one snapshot, prompt by prompt."""

    update: int
    rewards: tuple[float, ...]
    """Gated raw scores."""
    guards: tuple[float, ...] | None
    """The guard's raw scores; ``None`` without a guard."""

    @property
    def reward(self) -> float:
        """Mean reward."""
        return statistics.fmean(self.rewards)

    @property
    def guard(self) -> float | None:
        """Mean of the guard."""
        return None if self.guards is None else statistics.fmean(self.guards)

    @property
    def merit(self) -> float:
        """What the best snapshot is chosen by: the guard, or without one the reward."""
        return self.reward if self.guard is None else self.guard


def best_of(snapshots: Sequence[HeldoutScores]) -> HeldoutScores | None:
    """The snapshot of the greatest merit, the earliest of equal ones; ``None`` of none."""
    return max(snapshots, key=lambda item: (item.merit, -item.update), default=None)


def overoptimized(snapshots: Sequence[HeldoutScores]) -> str | None:
    """What to say if, since its best snapshot, the guard has fallen while the reward has risen; else ``None``.

    The best of many noisy snapshots looks better than it is: the fall has to be significant for any two of them
    (Bonferroni).
    """
    best = best_of(snapshots)
    if best is None or best is snapshots[-1]:
        return None
    last = snapshots[-1]
    if last.guards is None or best.guards is None or last.reward <= best.reward:
        return None
    falls = [before - now for before, now in zip(best.guards, last.guards, strict=True)]
    fall = statistics.fmean(falls)
    error = statistics.stdev(falls) / math.sqrt(len(falls)) if len(falls) > 1 else math.inf
    pairs = len(snapshots) * (len(snapshots) - 1) / 2
    if fall <= statistics.NormalDist().inv_cdf(1 - FALSE_ALARMS / pairs) * error:
        return None
    return (
        f"over-optimisation: from update {best.update} to {last.update} the reward rose by "
        f"{last.reward - best.reward:.2f} while the guard fell by {fall:.2f} (standard error {error:.2f})"
    )
