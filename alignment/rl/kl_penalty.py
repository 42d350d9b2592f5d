"""The divergence from the reference and its price, beta in ``R = score - beta * KL(policy || reference)``.

Sources: Llama 2, section 3.2.3, which holds beta fixed; the estimators k1 and k3 of Schulman, "Approximating KL
divergence" (2020); the adaptive controller of Ziegler et al. 2019 (arXiv:1909.08593), section 2.2: a proportional one
on the log of beta, which steers the divergence towards a target.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_ERROR = 0.2
"""Relative error beyond which the controller does not react more strongly (Ziegler et al. 2019)."""


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """k1 = log pi - log ref: unbiased for KL(policy || reference) on samples of the policy, of either sign.

    Args:
        logprobs: log pi(token) under the policy that the tokens were sampled from, any shape.
        ref_logprobs: log ref(token) of the same tokens, same shape.
    """
    return logprobs - ref_logprobs


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """k3 = (r - 1) - log r, r = ref / pi: unbiased for KL(policy || reference), never negative, low variance.

    For logging; swapping the arguments estimates something else. ``expm1`` keeps the digits that ``exp(x) -
    1`` loses where the two policies nearly agree.
    """
    difference = kl_k1(logprobs, ref_logprobs)
    return torch.expm1(-difference) + difference


class KLController:
    """Holds beta; with a target, moves it after every update.

    ``e = clip(KL / target - 1, -0.2, 0.2)``, then ``beta *= 1 + e * episodes / horizon``.
    """

    def __init__(self, beta: float, *, target_nats: float | None, horizon_episodes: int) -> None:
        """Start with a price.

        Args:
            beta: of one nat of divergence.
            target_nats: divergence per answer to steer towards; ``None``: beta stays.
            horizon_episodes: episodes in which the controller reacts.
        """
        self.beta = beta
        self.target = target_nats
        self.horizon = horizon_episodes

    def observe(self, kl_nats: float, n_episodes: int) -> None:
        """Take note of one update.

        Args:
            kl_nats: mean over answers of the divergence from the reference, nats.
            n_episodes: answers in the batch.
        """
        if self.target is not None:
            error = min(max(kl_nats / self.target - 1, -LARGEST_ERROR), LARGEST_ERROR)
            self.beta *= 1 + error * n_episodes / self.horizon

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint holds of it."""
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.beta = state["beta"]
