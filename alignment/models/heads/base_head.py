"""What every reward head is: opinions on a dialogue, a score made of them, and how two dialogues compare.

A plain head has one opinion, its score, and needs ``forward`` only. A head with several says how they make a score and,
where it knows better than "the difference of scores", how sure it is that one answer beats another.

Scores are always computed in float32, whatever the transformer or autocast runs in.

PPO's value head (``TokenValueHead``), which can start from a reward head's linear map, stands beside it, and so do the
layers and the checks of arguments that heads share.

Shapes: B batch, T prompt+response, H hidden, M opinions of a head.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignment.errors import UserError


class RewardHead(nn.Module, ABC):
    """Scores an answer from the hidden states of the dialogue that it ends."""

    needs_likelihood: ClassVar[bool] = False
    """Whether the reward model has to form the answer's log-probabilities for this head."""
    objectives: tuple[str, ...] | None = None
    """What the comparisons that it learns from may be about; ``None``: anything."""

    @abstractmethod
    def forward(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Score each dialogue.

        Args:
            hidden: (B, T, H) last hidden states.
            last_index: (B,) index of the last token that counts.
            likelihood: (B, 2) mean and least log-probability of the answer's tokens, nats; only where
                ``needs_likelihood``.

        Returns:
            (B,) float32 raw scores, before any sigmoid.
        """

    def opinions(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """What the losses look at: (B, M) float32; the score alone unless a head has several opinions."""
        return self(hidden, last_index, likelihood)[:, None]

    def combine(self, opinions: Tensor) -> Tensor:
        """The score (B,) that follows from a dialogue's opinions (B, M)."""
        return opinions[:, 0]

    def disagreement(self, opinions: Tensor) -> Tensor | None:
        """How far a dialogue's opinions (B, M) are apart, (B,), in units of the score; ``None`` where that is moot."""
        return None

    def log_odds(self, chosen: Tensor, rejected: Tensor, margin: Tensor, objectives: Sequence[str]) -> Tensor:
        """Log-odds (B, M') that the chosen answer is better by the margin: what the preference losses work on.

        Several columns are as many statements on a pair, each with a loss of its own (their mean counts).

        Args:
            chosen: (B, M) opinions on the preferred answers.
            rejected: (B, M) opinions on the others.
            margin: (B,) margins by grade.
            objectives: B names of what each pair was compared by.
        """
        return chosen - rejected - margin[:, None]

    def value_weight(self) -> Tensor:
        """Weight (1, H) of the one linear map that makes the score of a state: what PPO's value head can start from.

        Raises:
            UserError: the head is of another kind.
        """
        raise UserError(
            "a value head can start from the reward heads 'linear' and 'likelihood' only, not from "
            f"{type(self).__name__}; train the helpfulness model with one of them, or pass ppo.value=head"
        )

    def anchored(self, opinions: Tensor) -> Tensor:
        """Raw scores (B, M') of dialogues that absolute labels (safe, unsafe) and centring apply to."""
        return opinions


def pool_last(hidden: Tensor, last_index: Tensor) -> Tensor:
    """Hidden state (B, H) of the last token that counts, from (B, T, H) and (B,)."""
    return hidden[torch.arange(len(hidden), device=hidden.device), last_index]


def linear_float32(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """Apply a layer in float32 even inside autocast, which would round scores to bf16's three digits."""
    with torch.autocast(inputs.device.type, enabled=False):
        bias = None if layer.bias is None else layer.bias.float()
        return functional.linear(inputs.float(), layer.weight.float(), bias)


def score_layer(width: int, n_scores: int = 1) -> nn.Linear:
    """``width`` -> ``n_scores`` without bias, weights of standard deviation 1 / sqrt(width + 1): a unit-sized start."""
    layer = nn.Linear(width, n_scores, bias=False)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(width + 1))
    return layer


def whole_number(head: str, name: str, value: object, *, least: int) -> int:
    """Check a head's argument that counts something.

    Args:
        head: name of the head, for the message.
        name: name of the argument, for the message.
        value: what the user gave.
        least: the smallest count allowed.

    Raises:
        UserError: ``value`` is not a whole number, or below ``least``.
    """
    if not isinstance(value, int | float) or not math.isfinite(value) or value != int(value) or value < least:
        raise UserError(f"reward head {head!r}: {name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def number(head: str, name: str, value: object, *, least: float, most: float = math.inf) -> float:
    """Check a head's argument that measures something.

    Args:
        head: name of the head, for the message.
        name: name of the argument, for the message.
        value: what the user gave.
        least: the smallest number allowed.
        most: the largest number allowed.

    Raises:
        UserError: ``value`` is not a finite number, or outside the range.
    """
    if not isinstance(value, int | float) or not math.isfinite(value) or not least <= value <= most:
        limits = "" if least == -math.inf else f" of at least {least:g}"
        limits = limits if most == math.inf else f" from {least:g} to {most:g}"
        raise UserError(f"reward head {head!r}: {name} must be a number{limits}, got {value!r}")
    return float(value)


class TokenValueHead(nn.Module):
    """The value function's head: a linear map with bias of each token's hidden state."""

    def __init__(self, hidden_size: int) -> None:
        """Make a head that values everything at zero until it is trained."""
        super().__init__()
        self.value = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    @classmethod
    def from_reward_head(cls, head: RewardHead) -> TokenValueHead:
        """Start from a copy of a reward head's linear map (bias 0); the reward head itself is not touched.

        Raises:
            UserError: the head is of another kind.
        """
        weight = head.value_weight()
        made = cls(weight.shape[1])
        with torch.no_grad():
            made.value.weight.copy_(weight)
        return made.to(weight.device)

    def forward(self, hidden: Tensor) -> Tensor:
        """Value of each position: (B, R, H) -> (B, R) float32."""
        return linear_float32(self.value, hidden).squeeze(-1)
