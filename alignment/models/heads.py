"""Heads that turn hidden states of a transformer into scores: one per answer (reward) or per token (value).

A reward head is a small module with one method and one entry in ``HEADS``. To add one, subclass
``RewardHead``, give its options as keyword-only arguments of ``__init__``, and name it in the table. A
saved reward model carries the name and the arguments of its head, so that ``build_head`` makes the same one
again.

Llama 2, section 3.2.2, replaces the next-token head by a regression head with a scalar output; its initial
scale is from Huang et al. 2024 (arXiv:2403.17031). Scores are always computed in float32, whatever the
transformer or autocast runs in.

Shapes: B batch, T prompt+response, R response, H hidden.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignment.errors import UserError

LIKELIHOOD_SCALE = (100.0, 20.0)
"""Of the mean and the least log-probability: two weights alone then learn at the pace of a whole layer's."""


class RewardHead(nn.Module, ABC):
    """Scores an answer from the hidden states of the dialogue that it ends."""

    needs_likelihood: ClassVar[bool] = False
    """Whether the reward model has to form the answer's log-probabilities for this head."""

    def opinions(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """What the losses compare: (B, M) float32, each of the M a raw score; one unless a head has several."""
        return self(hidden, last_index, likelihood)[:, None]

    def combine(self, opinions: Tensor) -> Tensor:
        """The score (B,) that follows from a dialogue's opinions (B, M)."""
        return opinions[:, 0]

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


def pool_last(hidden: Tensor, last_index: Tensor) -> Tensor:
    """Hidden state (B, H) of the last token that counts, from (B, T, H) and (B,)."""
    return hidden[torch.arange(len(hidden), device=hidden.device), last_index]


def _linear_float32(layer: nn.Linear, inputs: Tensor) -> Tensor:
    """Apply a layer in float32 even inside autocast, which would round scores to bf16's three digits."""
    with torch.autocast(inputs.device.type, enabled=False):
        bias = None if layer.bias is None else layer.bias.float()
        return functional.linear(inputs.float(), layer.weight.float(), bias)


def _score_layer(width: int, n_scores: int = 1) -> nn.Linear:
    """``width`` -> ``n_scores`` without bias, weights of standard deviation 1 / sqrt(width + 1): a unit-sized start."""
    layer = nn.Linear(width, n_scores, bias=False)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(width + 1))
    return layer


def _whole_number(head: str, name: str, value: float, *, least: int) -> int:
    if not isinstance(value, int | float) or not math.isfinite(value) or value != int(value) or value < least:
        raise UserError(f"reward head {head!r}: {name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


class LinearHead(RewardHead):
    """One linear map of the last token's hidden state.

    Without bias, as in ``AutoModelForSequenceClassification``: ``score.weight`` (1, H) can be exported as
    it is.
    """

    def __init__(self, hidden_size: int) -> None:
        """Make a head for hidden states of size ``hidden_size``."""
        super().__init__()
        self.score = _score_layer(hidden_size)

    def forward(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Score (B, T, H) at (B,) -> (B,) float32."""
        return _linear_float32(self.score, pool_last(hidden, last_index)).squeeze(-1)


class MlpHead(RewardHead):
    """One hidden layer with GELU on the last token's hidden state, then a linear map."""

    def __init__(self, hidden_size: int, *, width: int = 256) -> None:
        """Make a head with ``width`` units between hidden state and score."""
        super().__init__()
        width = _whole_number("mlp", "width", width, least=1)
        self.inner = nn.Linear(hidden_size, width)
        self.score = _score_layer(width)

    def forward(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Score (B, T, H) at (B,) -> (B,) float32."""
        inner = functional.gelu(_linear_float32(self.inner, pool_last(hidden, last_index)))
        return _linear_float32(self.score, inner).squeeze(-1)


class LikelihoodHead(RewardHead):
    """A linear head that also sees how likely the model itself finds the answer.

    Whether an answer fits is a matter of comparing what was said with what the model would have said. A large
    transformer has layers to spare for that comparison; the toy's three have none left, and with a plain linear head
    its reward models hardly tell right from wrong facts. The two weights start at zero, so that nothing but the
    comparisons decides whether likelihood counts for, against or not at all.
    """

    needs_likelihood = True

    def __init__(self, hidden_size: int) -> None:
        """Make a head for hidden states of size ``hidden_size``."""
        super().__init__()
        self.score = _score_layer(hidden_size)
        self.likelihood = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(self.likelihood.weight)

    def forward(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Score (B, T, H) at (B,) with likelihoods (B, 2) -> (B,) float32."""
        if likelihood is None:
            raise ValueError("the likelihood head needs the answers' log-probabilities")
        scaled = likelihood.float() * torch.tensor(LIKELIHOOD_SCALE, device=likelihood.device)
        from_likelihood = _linear_float32(self.likelihood, scaled).squeeze(-1)
        return _linear_float32(self.score, pool_last(hidden, last_index)).squeeze(-1) + from_likelihood


class AttentionHead(RewardHead):
    """A learned query looks at all tokens of the dialogue; what it gathers is scored by a linear map.

    The query starts at zero, which makes the first scores those of the mean over the tokens.
    """

    def __init__(self, hidden_size: int) -> None:
        """Make a head for hidden states of size ``hidden_size``."""
        super().__init__()
        self.query = nn.Linear(hidden_size, 1, bias=False)
        nn.init.zeros_(self.query.weight)
        self.score = _score_layer(hidden_size)

    def forward(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Score (B, T, H) up to (B,) -> (B,) float32."""
        counts = torch.arange(hidden.shape[1], device=hidden.device) <= last_index[:, None]
        states = hidden.float().masked_fill(counts.logical_not()[..., None], 0.0)
        logits = _linear_float32(self.query, states).squeeze(-1) / math.sqrt(states.shape[-1])
        weights = logits.masked_fill(counts.logical_not(), -math.inf).softmax(dim=1)
        return _linear_float32(self.score, (weights[..., None] * states).sum(dim=1)).squeeze(-1)


class ManyOpinionsHead(RewardHead):
    """Base of heads that form several opinions, each trained with a loss of its own, and combine them to a score."""

    @abstractmethod
    def opinions(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Raw scores (B, M) float32 of each dialogue; arguments as in ``forward``."""

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
        self.score = _score_layer(hidden_size, _whole_number("ensemble", "members", members, least=2))
        if combine not in ("mean", "min", "cautious"):
            raise UserError(f"reward head 'ensemble': combine must be mean, min or cautious, got {combine!r}")
        if not isinstance(caution, int | float) or not 0 <= caution < math.inf:
            raise UserError(f"reward head 'ensemble': caution must be a number of at least 0, got {caution!r}")
        self.how = combine
        self.caution = float(caution)

    def opinions(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """(B, T, H) at (B,) -> (B, M) float32."""
        return _linear_float32(self.score, pool_last(hidden, last_index))

    def combine(self, opinions: Tensor) -> Tensor:
        """The score (B,) of opinions (B, M)."""
        if self.how == "min":
            return opinions.min(dim=1).values
        mean = opinions.mean(dim=1)
        return mean if self.how == "mean" else mean - self.caution * opinions.std(dim=1, correction=0)


HEADS: dict[str, type[RewardHead]] = {
    "linear": LinearHead,
    "mlp": MlpHead,
    "likelihood": LikelihoodHead,
    "attention": AttentionHead,
    "ensemble": EnsembleHead,
}
"""Name in the configuration -> class."""


def head_arguments(name: str) -> tuple[str, ...]:
    """Names of the arguments that a head takes.

    Raises:
        UserError: there is no such head; lists the valid names.
    """
    if name not in HEADS:
        raise UserError(f"unknown reward head {name!r}; valid heads: {', '.join(sorted(HEADS))}")
    parameters = inspect.signature(HEADS[name]).parameters.values()
    return tuple(item.name for item in parameters if item.kind is inspect.Parameter.KEYWORD_ONLY)


def build_head(name: str, hidden_size: int, *, arguments: Mapping[str, int | float | str] | None = None) -> RewardHead:
    """Make the reward head of a name, freshly initialised.

    Args:
        name: a key of ``HEADS``.
        hidden_size: H of the transformer.
        arguments: options of that head; those left out take their defaults.

    Raises:
        UserError: an unknown head or argument, or a value that the head refuses.
    """
    given = dict(arguments or {})
    known = head_arguments(name)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UserError(
            f"reward head {name!r} has no argument {', '.join(map(repr, unknown))}; "
            f"valid arguments: {', '.join(known) or 'none'}"
        )
    return HEADS[name](hidden_size, **given)


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
        if not isinstance(head, (LinearHead, LikelihoodHead)):
            raise UserError(
                "a value head can start from the reward heads 'linear' and 'likelihood' only, not from "
                f"{type(head).__name__}; train the helpfulness model with one of them, or pass ppo.value=head"
            )
        made = cls(head.score.in_features)
        with torch.no_grad():
            made.value.weight.copy_(head.score.weight)
        return made.to(head.score.weight.device)

    def forward(self, hidden: Tensor) -> Tensor:
        """Value of each position: (B, R, H) -> (B, R) float32."""
        return _linear_float32(self.value, hidden).squeeze(-1)
