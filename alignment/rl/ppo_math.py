"""PPO's equations as functions of tensors: score shaping, KL penalty, token rewards, advantages (GAE), clipped losses.

Sources: the reward ``R = score - beta * KL(policy || reference)`` of Llama 2, section 3.2.3, which holds beta fixed;
the estimators k1 and k3 of Schulman, "Approximating KL divergence" (2020); the adaptive controller of beta of Ziegler
et al. 2019 (arXiv:1909.08593), section 2.2: a proportional one on its log, which steers the divergence towards a
target; generalised advantage estimation, Schulman et al. 2016 (arXiv:1506.02438), equation 16; the clipped surrogate
of Schulman et al. 2017 (arXiv:1707.06347), eq. 7; the clipped value loss of OpenAI's baselines, as in Huang et al.
2024 (arXiv:2403.17031); the clip range 0.2 of Llama 2, section 3.2.3.

Where the paper is silent:

1. The divergence is spread over the tokens: each one pays ``beta * k1`` and the score arrives with the last
   one, so the rewards of a response sum to the paper's ``R``. Only k1 belongs in a reward: the gradient
   that k3 leaves there vanishes near the reference.
2. WHITEN (section 3.2.3) takes mean and standard deviation over the responses of the global batch, after the gate's
   choice between the two reward models and before the divergence is subtracted. Every process holds the whole batch.
3. A response without a stop token is punished after whitening, in units of the whitened score.
4. A response is an episode that ends with its last token, whether it stopped or ran into the length limit:
   no value is bootstrapped from beyond it.

Every field of a loss, the loss itself included, is a sum over the tokens that count here divided by
``n_tokens``, the number of such tokens in the whole minibatch of all micro-batches and processes. So
losses, gradients and metrics of micro-batches simply add up to those of the minibatch, however it was
split. (A data-parallel wrapper that averages gradients over processes needs the loss multiplied by their
number.)

Rewards and advantages are constants of the update: no gradient goes through them.

Shapes: B batch, R response. Response masks are prefixes: True for the first ``length`` tokens of a row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alignment.masks_padding_logprobs import (
    MIN_STD,
    at_least_float32,
    last_index,
    masked_moments,
    masked_sum,
    zero_padding,
)

LARGEST_ERROR = 0.2
"""Relative error beyond which the controller does not react more strongly (Ziegler et al. 2019)."""


def whiten(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Bring the values that count to mean 0 and standard deviation 1.

    Equal values (``std < MIN_STD``; a single value is one such case) have no scale to divide by: they become 0.

    Args:
        values: any shape.
        mask: same shape, True = counts; ``None`` means that all do.

    Returns:
        The shape of ``values``, at least float32, without gradient; exactly 0 where the mask is False.
    """
    counts = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    moments = masked_moments(values, counts)
    std = moments.variance.sqrt()
    scale = torch.where(std < MIN_STD, torch.ones_like(std), std)
    whitened = (values.detach().to(scale.dtype) - moments.mean) / scale
    return zero_padding(whitened, counts).to(at_least_float32(values).dtype)


def missing_stop_penalty(scores: Tensor, stopped: Tensor, *, penalty: float) -> Tensor:
    """Subtract ``penalty`` from the score (B,) of each response that met no stop token.

    Comes after whitening: before it, the penalty would stretch the spread that all other scores are divided
    by.

    Args:
        scores: (B,).
        stopped: (B,) bool, True where the response ended with a stop token.
        penalty: at least 0, in the unit of the scores.
    """
    if penalty < 0:
        raise ValueError(f"penalty must not be negative, got {penalty}: it is subtracted")
    return torch.where(stopped, scores, scores - penalty)


def shape_scores(scores: Tensor, stopped: Tensor, *, penalty: float, whitening: bool = True) -> Tensor:
    """Gated raw scores to final ones (B,), in the only right order: whiten, then punish missing stops.

    Args:
        scores: (B,) gated raw scores of the global batch.
        stopped: (B,) bool, True where the response ended with a stop token.
        penalty: subtracted where it did not.
        whitening: to mean 0 and standard deviation 1 (equal scores become 0); False keeps the raw scale.
    """
    unpunished = whiten(scores) if whitening else at_least_float32(scores)
    return missing_stop_penalty(unpunished, stopped, penalty=penalty)


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


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """``1 - Var[returns - values] / Var[returns]`` over the tokens that count.

    1 is a perfect critic, 0 one as good as a constant, below 0 a harmful one; 0 where the returns do not
    vary.

    Args:
        values: the values at rollout time, any shape, such as (B, R).
        returns: same shape.
        mask: same shape, True = counts.
    """
    errors = masked_moments(at_least_float32(returns) - at_least_float32(values), mask).variance
    spread = masked_moments(returns, mask).variance
    share = errors / torch.where(spread > 0, spread, torch.ones_like(spread))
    return torch.where(spread > 0, 1 - share, torch.zeros_like(share))
