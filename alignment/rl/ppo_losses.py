"""The losses of PPO and what they are computed from, as functions of tensors.

Sources: the clipped surrogate of Schulman et al. 2017 (arXiv:1707.06347), eq. 7; the clipped value loss of
OpenAI's baselines, as in Huang et al. 2024 (arXiv:2403.17031); the clip range 0.2 of Llama 2, section
3.2.3.

Every field of a result, the loss included, is a sum over the tokens that count here divided by
``n_tokens``, the number of such tokens in the whole minibatch of all micro-batches and processes. So
losses, gradients and metrics of micro-batches simply add up to those of the minibatch, however it was
split. (A data-parallel wrapper that averages gradients over processes needs the loss multiplied by their
number.)

Shapes: B batch, R response.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alignment.rl.kl_penalty import kl_k3
from alignment.tensors.masking import at_least_float32, masked_sum, zero_padding


class PolicyLoss(NamedTuple):
    """Scalars that add up over micro-batches; only ``loss`` carries a gradient."""

    loss: Tensor
    clip_fraction: Tensor
    """Share of tokens whose gradient the clip removed."""
    ratio_mean: Tensor
    """Mean of pi / pi_old; 1 before the first step on a batch."""
    approx_kl: Tensor
    """KL(pi_old || pi) by k3 on samples of pi_old: how far the update has moved, never negative."""


class ValueLoss(NamedTuple):
    """Scalars that add up over micro-batches; only ``loss`` carries a gradient."""

    loss: Tensor
    clip_fraction: Tensor
    """Share of tokens for which the clipped error is the larger one."""


def _check(n_tokens: int, clip_range: float) -> None:
    """Refuse a normaliser or a clip range without meaning."""
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be the token count of the whole minibatch, at least 1, got {n_tokens}")
    if clip_range <= 0:
        raise ValueError(f"clip_range must be above 0, got {clip_range} (math.inf switches clipping off)")


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_range: float,
    n_tokens: int,
) -> PolicyLoss:
    """PPO's clipped surrogate (Schulman et al. 2017, eq. 7), negated to be minimised.

    Args:
        logprobs: log-probabilities under the policy being trained, any shape, such as (B, R).
        old_logprobs: same shape, under the policy that sampled, recomputed in the trainer.
        advantages: same shape.
        mask: same shape, True = counts.
        clip_range: epsilon; beyond ``1 +- epsilon`` the ratio earns nothing.
        n_tokens: tokens that count in the whole minibatch.
    """
    _check(n_tokens, clip_range)
    # Padding is replaced before exp(): the gradient of exp(NaN), even times zero, is NaN.
    new = zero_padding(at_least_float32(logprobs), mask)
    old = zero_padding(at_least_float32(old_logprobs.detach()), mask)
    gains = zero_padding(at_least_float32(advantages.detach()), mask)
    ratio = torch.exp(new - old)
    # L_t = -min(r_t A_t, clip(r_t, 1 - eps, 1 + eps) A_t)
    plain = -gains * ratio
    clipped = -gains * ratio.clamp(1 - clip_range, 1 + clip_range)
    return PolicyLoss(
        loss=masked_sum(torch.maximum(plain, clipped), mask) / n_tokens,
        clip_fraction=masked_sum((clipped > plain).to(plain.dtype), mask) / n_tokens,
        ratio_mean=masked_sum(ratio.detach(), mask) / n_tokens,
        approx_kl=masked_sum(kl_k3(old, new.detach()), mask) / n_tokens,
    )


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip_range: float, n_tokens: int
) -> ValueLoss:
    """Half the squared error, the larger of the plain one and the one with the value kept near its old self.

    ``0.5 * max((V - G)^2, (V_old + clip(V - V_old, +-eps) - G)^2)`` per token (OpenAI baselines).

    Args:
        values: V under the value function being trained, any shape, such as (B, R).
        old_values: same shape, at rollout time.
        returns: same shape, the targets G.
        mask: same shape, True = counts.
        clip_range: epsilon, in the unit of the returns.
        n_tokens: tokens that count in the whole minibatch.
    """
    _check(n_tokens, clip_range)
    new = zero_padding(at_least_float32(values), mask)
    old = zero_padding(at_least_float32(old_values.detach()), mask)
    targets = zero_padding(at_least_float32(returns.detach()), mask)
    plain = (new - targets).square()
    clipped = (old + (new - old).clamp(-clip_range, clip_range) - targets).square()
    return ValueLoss(
        loss=0.5 * masked_sum(torch.maximum(plain, clipped), mask) / n_tokens,
        clip_fraction=masked_sum((clipped > plain).to(plain.dtype), mask) / n_tokens,
    )
