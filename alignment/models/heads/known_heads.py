"""All reward heads by name, and making one from a recipe's name and arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from alignment.errors import UserError
from alignment.models.heads.base_head import RewardHead
from alignment.models.heads.many_score_heads import EnsembleHead, ObjectivesHead, QuantileHead
from alignment.models.heads.single_score_heads import AttentionHead, LikelihoodHead, LinearHead, MlpHead

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
