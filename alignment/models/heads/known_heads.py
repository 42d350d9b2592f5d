"""The heads by name: those that give a dialogue one score, the table of all reward heads, and making one.

Those with several opinions are in ``alignment.models.heads.many_score_heads``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignment.errors import UserError
from alignment.models.heads.base_head import RewardHead, linear_float32, pool_last, score_layer, whole_number
from alignment.models.heads.many_score_heads import EnsembleHead, ObjectivesHead, QuantileHead

LIKELIHOOD_SCALE = (100.0, 20.0)
"""Of the mean and the least log-probability: two weights alone then learn at the pace of a whole layer's."""


class LinearHead(RewardHead):
    """One linear map of the last token's hidden state.

    Without bias, as in ``AutoModelForSequenceClassification``: ``score.weight`` (1, H) can be exported as
    it is.
    """

    def __init__(self, hidden_size: int) -> None:
        """Make a head for hidden states of size ``hidden_size``."""
        super().__init__()
        self.score = score_layer(hidden_size)

    def forward(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Score (B, T, H) at (B,) -> (B,) float32."""
        return linear_float32(self.score, pool_last(hidden, last_index)).squeeze(-1)

    def value_weight(self) -> Tensor:
        """The weight (1, H) of the score."""
        return self.score.weight


class MlpHead(RewardHead):
    """One hidden layer with GELU on the last token's hidden state, then a linear map."""

    def __init__(self, hidden_size: int, *, width: int = 256) -> None:
        """Make a head with ``width`` units between hidden state and score."""
        super().__init__()
        width = whole_number("mlp", "width", width, least=1)
        self.inner = nn.Linear(hidden_size, width)
        self.score = score_layer(width)

    def forward(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Score (B, T, H) at (B,) -> (B,) float32."""
        inner = functional.gelu(linear_float32(self.inner, pool_last(hidden, last_index)))
        return linear_float32(self.score, inner).squeeze(-1)


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
        self.score = score_layer(hidden_size)
        self.likelihood = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(self.likelihood.weight)

    def forward(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Score (B, T, H) at (B,) with likelihoods (B, 2) -> (B,) float32."""
        if likelihood is None:
            raise ValueError("the likelihood head needs the answers' log-probabilities")
        scaled = likelihood.float() * torch.tensor(LIKELIHOOD_SCALE, device=likelihood.device)
        from_likelihood = linear_float32(self.likelihood, scaled).squeeze(-1)
        return linear_float32(self.score, pool_last(hidden, last_index)).squeeze(-1) + from_likelihood

    def value_weight(self) -> Tensor:
        """The weight (1, H) of the score."""
        return self.score.weight


class AttentionHead(RewardHead):
    """A learned query looks at all tokens of the dialogue; what it gathers is scored by a linear map.

    The query starts at zero, which makes the first scores those of the mean over the tokens.
    """

    def __init__(self, hidden_size: int) -> None:
        """Make a head for hidden states of size ``hidden_size``."""
        super().__init__()
        self.query = nn.Linear(hidden_size, 1, bias=False)
        nn.init.zeros_(self.query.weight)
        self.score = score_layer(hidden_size)

    def forward(self, hidden: Tensor, last_index: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Score (B, T, H) up to (B,) -> (B,) float32."""
        counts = torch.arange(hidden.shape[1], device=hidden.device) <= last_index[:, None]
        states = hidden.float().masked_fill(counts.logical_not()[..., None], 0.0)
        logits = linear_float32(self.query, states).squeeze(-1) / math.sqrt(states.shape[-1])
        weights = logits.masked_fill(counts.logical_not(), -math.inf).softmax(dim=1)
        return linear_float32(self.score, (weights[..., None] * states).sum(dim=1)).squeeze(-1)


HeadArgument = int | float | str | list[int | float | str]
"""What a head's option can be."""


HEADS: dict[str, type[RewardHead]] = {
    "linear": LinearHead,
    "mlp": MlpHead,
    "likelihood": LikelihoodHead,
    "attention": AttentionHead,
    "ensemble": EnsembleHead,
    "quantile": QuantileHead,
    "objectives": ObjectivesHead,
}
"""Name in the configuration -> class."""


def head_arguments(name: str) -> tuple[str, ...]:
    """Names of the arguments that a head takes.

    Raises:
        UserError: there is no such head; lists the valid names.
    """
    if name not in HEADS:
        raise UserError(
            f"unknown reward head {name!r}; valid heads: {', '.join(sorted(HEADS))}. A head of your own is known once "
            "plugins=[...] names the file that it is in."
        )
    parameters = inspect.signature(HEADS[name]).parameters.values()
    return tuple(item.name for item in parameters if item.kind is inspect.Parameter.KEYWORD_ONLY)


def build_head(name: str, hidden_size: int, *, arguments: Mapping[str, HeadArgument] | None = None) -> RewardHead:
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
    made: Callable[..., RewardHead] = HEADS[name]
    return made(hidden_size, **given)
