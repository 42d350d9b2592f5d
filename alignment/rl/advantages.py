"""From log-probabilities, scores and values to per-token rewards and advantages.

Sources: the reward ``R = score - beta * KL(policy || reference)`` of Llama 2, section 3.2.3; generalised advantage
estimation, Schulman et al. 2016 (arXiv:1506.02438), equation 16.

Where the paper is silent:

1. The divergence is spread over the tokens: each one pays ``beta * k1`` and the score arrives with the last
   one, so the rewards of a response sum to the paper's ``R``. Only k1 belongs in a reward: the gradient
   that k3 leaves there vanishes near the reference.
2. A response is an episode that ends with its last token, whether it stopped or ran into the length limit:
   no value is bootstrapped from beyond it.

Everything here is a constant of the update: no result carries a gradient.

Shapes: B batch, R response. Response masks are prefixes: True for the first ``length`` tokens of a row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alignment.rl.kl_penalty import kl_k1
from alignment.tensors.masking import at_least_float32, last_index, zero_padding


class Advantages(NamedTuple):
    """What the update learns from; exactly zero in padding."""

    advantages: Tensor
    """(B, R) A_t, how much better than expected the response went from token t on."""
    returns: Tensor
    """(B, R) A_t + V_t, the target of the value function."""


@torch.no_grad()
def token_rewards(
    logprobs: Tensor, ref_logprobs: Tensor, scores: Tensor, response_mask: Tensor, *, beta: float
) -> Tensor:
    """Reward of each token: ``-beta * (log pi - log ref)``, plus the score on the last token that counts.

    Llama 2, section 3.2.3, with the divergence as the sum over response tokens of log pi - log ref.

    Args:
        logprobs: (B, R) log-probabilities under the policy that sampled.
        ref_logprobs: (B, R) under the frozen reference, at the same temperature.
        scores: (B,) one score per response.
        response_mask: (B, R), True = counts; at least one token per row.
        beta: price of one nat of divergence.

    Returns:
        (B, R), at least float32, exactly zero in padding.
    """
    k1 = kl_k1(at_least_float32(logprobs), at_least_float32(ref_logprobs))
    rewards = -beta * zero_padding(k1, response_mask)
    rows = torch.arange(len(scores), device=scores.device)
    rewards[rows, last_index(response_mask)] += scores.to(rewards.dtype)
    return rewards


@torch.no_grad()
def generalized_advantages(
    rewards: Tensor, values: Tensor, response_mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> Advantages:
    """Generalised advantage estimates, Schulman et al. 2016, eq. 16, and the returns they imply.

    Args:
        rewards: (B, R) reward of each token.
        values: (B, R) V_t, the value before token t was chosen.
        response_mask: (B, R), True = counts, a prefix of each row.
        gamma: discount per token.
        lam: 0 trusts the values (one-step errors), 1 the rewards (Monte Carlo).

    Returns:
        Advantages, at least float32.

    Raises:
        ValueError: a token counts after one that does not; the recursion would run across the hole.
    """
    if bool((response_mask[:, 1:] > response_mask[:, :-1]).any()):
        raise ValueError("a response mask must be a prefix of each row: build it with lengths_to_mask")
    rewards = zero_padding(at_least_float32(rewards), response_mask)
    values = zero_padding(at_least_float32(values), response_mask)
    advantages = torch.zeros_like(rewards)
    next_value = torch.zeros_like(rewards[:, 0])
    next_advantage = torch.zeros_like(rewards[:, 0])
    # delta_t = r_t + gamma * V_{t+1} - V_t
    # A_t     = delta_t + gamma * lam * A_{t+1},  with V = A = 0 after the last token.
    # Padding holds r = V = 0, hence A = 0: the recursion starts from zero at the last token that counts.
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = delta + gamma * lam * next_advantage
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    return Advantages(advantages=advantages, returns=advantages + values)
