"""Reward heads with several opinions on a dialogue: an ensemble, a distribution of scores, named objectives.

Shapes: B batch, T prompt+response, H hidden, M opinions of a head.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from alignment.errors import UserError
from alignment.models.heads.base_head import RewardHead, linear_float32, number, pool_last, score_layer, whole_number

RULES = ("mean", "min", "cautious")


def combined(opinions: Tensor, rule: str, *, caution: float) -> Tensor:
    """One score (B,) of several opinions (B, M): their mean, the least, or the mean less ``caution`` deviations."""
    if rule == "min":
        return opinions.min(dim=1).values
    mean = opinions.mean(dim=1)
    return mean if rule == "mean" else mean - caution * opinions.std(dim=1, correction=0)


class ManyOpinionsHead(RewardHead):
    """Base of heads that form several opinions and combine them to a score."""

    @abstractmethod
    def opinions(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Opinions (B, M) float32 on each dialogue; arguments as in ``forward``."""

    @abstractmethod
    def combine(self, opinions: Tensor) -> Tensor:
        """The score (B,) of opinions (B, M)."""

    def forward(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Score (B, T, H) at (B,) -> (B,) float32."""
        return self.combine(self.opinions(hidden, last_index, likelihood))


class EnsembleHead(ManyOpinionsHead):
    """Linear heads on one trunk that start apart, after the ensembles of Coste et al. 2024 (arXiv:2310.02743).

    Theirs are separate models; these share an adapter, cost no more than one, and are less independent.
    ``combine`` says how their opinions make a score: ``mean``; ``min``, the most pessimistic one (worst-case
    optimisation there); or ``cautious``, the mean less ``caution`` standard deviations (there, the variance; a
    deviation has the unit of a score). The gate's threshold applies to the combined score: below the mean, the safety
    model flags more answers.
    """

    def __init__(self, hidden_size: int, *, members: int = 5, combine: str = "mean", caution: float = 1.0) -> None:
        """Make ``members`` heads for hidden states of size ``hidden_size``."""
        super().__init__()
        self.score = score_layer(hidden_size, whole_number("ensemble", "members", members, least=2))
        if combine not in RULES:
            raise UserError(f"reward head 'ensemble': combine must be mean, min or cautious, got {combine!r}")
        self.how = combine
        self.caution = number("ensemble", "caution", caution, least=0)

    def opinions(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """(B, T, H) at (B,) -> (B, M) float32."""
        return linear_float32(self.score, pool_last(hidden, last_index))

    def combine(self, opinions: Tensor) -> Tensor:
        """The score (B,) of opinions (B, M)."""
        return combined(opinions, self.how, caution=self.caution)

    def disagreement(self, opinions: Tensor) -> Tensor:
        """Standard deviation (B,) of the members' opinions (B, M)."""
        return opinions.std(dim=1, correction=0)


class QuantileHead(ManyOpinionsHead):
    """A distribution of scores for each answer, as M quantiles of equal weight, so that doubt is part of the reward.

    Whether an answer beats another is a draw from each: ``P = mean over i, j of sigmoid(q_i - q'_j - margin)``, whose
    log-odds the losses take. (The mean of the losses over i, j would be another thing: the quantiles would collapse.)
    Quantiles rather than a mean are from Dorka 2024 (arXiv:2409.10164), who fits them to ratings; here there are
    comparisons only, so they are fitted by what they say of those.

    The score is the mean of the lowest ``share`` of the quantiles: all of them by default, fewer to be cautious.
    """

    def __init__(self, hidden_size: int, *, quantiles: int = 8, share: float = 1.0) -> None:
        """Make a head with ``quantiles`` quantiles for hidden states of size ``hidden_size``."""
        super().__init__()
        count = whole_number("quantile", "quantiles", quantiles, least=2)
        self.score = score_layer(hidden_size, count)
        share = number("quantile", "share", share, least=0, most=1)
        self.lowest = max(1, round(share * count))

    def opinions(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """(B, T, H) at (B,) -> (B, M) float32, rising: the lowest quantile, then each one's distance to the next."""
        raw = linear_float32(self.score, pool_last(hidden, last_index))
        gaps = functional.softplus(raw[:, 1:]) / raw.shape[1]
        return torch.cat([raw[:, :1], raw[:, :1] + gaps.cumsum(dim=1)], dim=1)

    def combine(self, opinions: Tensor) -> Tensor:
        """The score (B,) of quantiles (B, M)."""
        return opinions[:, : self.lowest].mean(dim=1)

    def disagreement(self, opinions: Tensor) -> Tensor:
        """Standard deviation (B,) of the distribution that quantiles (B, M) stand for."""
        return opinions.std(dim=1, correction=0)

    def log_odds(self, chosen: Tensor, rejected: Tensor, margin: Tensor, objectives: Sequence[str]) -> Tensor:
        """Log-odds (B, 1) of the mean probability over all pairs of quantiles.

        Args:
            chosen: (B, M) quantiles of the preferred answers.
            rejected: (B, M) quantiles of the others.
            margin: (B,) margins by grade.
            objectives: B names of what each pair was compared by; not used here.
        """
        differences = (chosen[:, :, None] - rejected[:, None, :] - margin[:, None, None]).flatten(1)
        better = functional.logsigmoid(differences).logsumexp(dim=1)
        worse = functional.logsigmoid(-differences).logsumexp(dim=1)
        return (better - worse)[:, None]

    def anchored(self, opinions: Tensor) -> Tensor:
        """The score (B, 1): labels are about an answer, not about its quantiles."""
        return self.combine(opinions)[:, None]


class ObjectivesHead(ManyOpinionsHead):
    """One linear score for each named objective, and their weighted sum as the score.

    A comparison teaches the objective that it is about (its ``objective``, else its dimension) and no other. So one
    model can be both the helpfulness and the safety model of a small experiment, or tell several aspects of one of
    them apart. Absolute safety labels and the gate's threshold apply to the sum, which is what PPO sees.
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        objectives: Sequence[str] = ("helpfulness", "safety"),
        weights: Sequence[float] | None = None,
    ) -> None:
        """Make a score for each of ``objectives``; ``weights`` of the sum are 1 unless given."""
        super().__init__()
        names = tuple(objectives) if not isinstance(objectives, str) else ()
        if not names or len(set(names)) < len(names) or any(not isinstance(name, str) for name in names):
            raise UserError(
                f"reward head 'objectives': objectives must be a list of different names, got {objectives!r}"
            )
        weights = [1.0] * len(names) if weights is None else weights
        if not isinstance(weights, Sequence) or len(weights) != len(names):
            raise UserError(f"reward head 'objectives': weights must be as many numbers as objectives, got {weights!r}")
        self.objectives = names
        self.weights = [number("objectives", "weights", value, least=-math.inf) for value in weights]
        self.score = score_layer(hidden_size, len(names))

    def opinions(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """(B, T, H) at (B,) -> (B, M) float32, a column for each objective."""
        return linear_float32(self.score, pool_last(hidden, last_index))

    def combine(self, opinions: Tensor) -> Tensor:
        """The weighted sum (B,) of scores (B, M)."""
        weights = torch.tensor(self.weights, device=opinions.device)
        return (opinions * weights).sum(dim=1)  # autocast would round a matrix product to bfloat16

    def log_odds(self, chosen: Tensor, rejected: Tensor, margin: Tensor, objectives: Sequence[str]) -> Tensor:
        """Log-odds (B, 1) by each pair's own objective.

        Args:
            chosen: (B, M) scores of the preferred answers, a column for each objective.
            rejected: (B, M) scores of the others.
            margin: (B,) margins by grade.
            objectives: B names of the head's objectives: what each pair was compared by.
        """
        assert self.objectives is not None
        columns = torch.tensor([[self.objectives.index(name)] for name in objectives], device=chosen.device)
        return (chosen - rejected).gather(1, columns) - margin[:, None]

    def anchored(self, opinions: Tensor) -> Tensor:
        """The weighted sum (B, 1)."""
        return self.combine(opinions)[:, None]
