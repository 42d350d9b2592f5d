"""From the scores of two reward models to the one score that PPO maximises.

Llama 2, section 3.2.3 and eq. 4::

    R_c(g | p)  = R_s(g | p)  if is_safety(p) or R_s(g | p) < 0.15,  else R_h(g | p)
    R~_c(g | p) = WHITEN(LOGIT(R_c(g | p)))

The paper's R are probabilities, sigmoids of the head's raw outputs (caption of Table 29), and LOGIT undoes
that sigmoid. So all of it happens on raw outputs: R_s < 0.15 is ``s < logit(0.15) = -1.7346``, and
LOGIT(R_c) is the raw output of the model that was chosen. No sigmoid is ever taken: in bf16, or for
confident scores in float32, it cannot be undone.

The choice R_c is made here; ``alignment.rl.ppo_math`` whitens it.

Shapes: B batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from alignment.errors import UserError
from alignment.masks_padding_logprobs import at_least_float32

THRESHOLD_PROBABILITY = 0.15
"""Below this probability of being safe, the safety model decides (Llama 2, section 3.2.3)."""

LOGIT_THRESHOLD = math.log(THRESHOLD_PROBABILITY / (1 - THRESHOLD_PROBABILITY))
"""The same threshold for raw scores, -1.7346."""


class GatedScores(NamedTuple):
    """The score each response is judged by, and by whom."""

    scores: Tensor
    """(B,) raw score of the chosen model, LOGIT(R_c)."""
    routed_to_safety: Tensor
    """(B,) bool, True where the safety model decided."""


def gate(
    helpfulness: Tensor,
    safety: Tensor | None,
    is_safety: Tensor,
    *,
    threshold_probability: float = THRESHOLD_PROBABILITY,
) -> GatedScores:
    """Choose between the two reward models, response by response (R_c of Llama 2, section 3.2.3).

    Args:
        helpfulness: (B,) raw scores of the helpfulness model.
        safety: (B,) raw scores of the safety model; ``None``: there is none, and helpfulness decides everywhere.
        is_safety: (B,) bool, True for prompts collected as safety prompts.
        threshold_probability: a response strictly below it goes to the safety model.

    Raises:
        ValueError: the threshold is not strictly between 0 and 1.
    """
    if not 0 < threshold_probability < 1:
        raise ValueError(f"threshold_probability must lie between 0 and 1, got {threshold_probability}")
    threshold = math.log(threshold_probability / (1 - threshold_probability))
    helpfulness = at_least_float32(helpfulness)
    if safety is None:
        return GatedScores(scores=helpfulness, routed_to_safety=torch.zeros_like(is_safety))
    safety = at_least_float32(safety)
    routed_to_safety = is_safety | (safety < threshold)
    return GatedScores(scores=torch.where(routed_to_safety, safety, helpfulness), routed_to_safety=routed_to_safety)


class Gate(Protocol):
    """Makes one score of two; one of its own goes into ``GATES`` and is named by ``ppo.gate``."""

    def __call__(
        self, helpfulness: Tensor, safety: Tensor | None, is_safety: Tensor, *, threshold_probability: float
    ) -> GatedScores:
        """As ``gate``."""


GATES: dict[str, Gate] = {"threshold": gate}
"""Name in the configuration -> gate."""


def gate_named(name: str) -> Gate:
    """The gate of a name; raise ``UserError`` that lists the valid ones."""
    if name not in GATES:
        raise UserError(
            f"unknown gate {name!r}; valid: {', '.join(sorted(GATES))}. A gate of your own is known once "
            "plugins=[...] names the file that it is in."
        )
    return GATES[name]
