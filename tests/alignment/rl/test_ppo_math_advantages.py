"""Divergence estimators, token rewards and GAE, against enumeration, hand arithmetic and slow loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alignment.masks_padding_logprobs import lengths_to_mask
from alignment.rl.ppo_math import KLController, generalized_advantages, kl_k1, kl_k3, token_rewards

NAN = math.nan
# A policy and a reference over three tokens, far apart, so that the two directions of KL differ:
# KL(policy || ref) = .7 ln(.7/.1) + .2 ln(.2/.3) + .1 ln(.1/.6) = 1.1018, KL(ref || policy) = 1.0021.
POLICY = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
REFERENCE = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)


def exact_kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


class TestEstimators:
    @pytest.mark.parametrize("estimator", [kl_k1, kl_k3])
    def test_expectation_is_the_exact_divergence_from_policy_to_reference(
        self, estimator: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        forward = exact_kl(POLICY.tolist(), REFERENCE.tolist())
        assert abs(forward - exact_kl(REFERENCE.tolist(), POLICY.tolist())) > 0.05  # else direction is untested
        expectation = (POLICY * estimator(POLICY.log(), REFERENCE.log())).sum().item()
        assert expectation == pytest.approx(forward, abs=1e-12)

    def test_by_hand(self) -> None:
        # pi = 1/2, ref = 1/4: k1 = ln 2, k3 = 1/2 - 1 + ln 2.
        policy, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
        assert kl_k1(policy, reference).item() == pytest.approx(0.693147, abs=1e-6)
        assert kl_k3(policy, reference).item() == pytest.approx(0.193147, abs=1e-6)

    def test_k3_keeps_its_digits_near_equality(self) -> None:
        # k3 is x^2 / 2 for small x; exp(x) - 1 - x in float32 would return 0 or noise of 1e-7.
        assert kl_k3(torch.tensor([1e-4]), torch.tensor([0.0])).item() == pytest.approx(5e-9, rel=0.01)


class TestTokenRewards:
    LOGPROBS = torch.tensor([[-1.0, -2.0, NAN], [-1.0, -1.0, -3.0]])
    REFERENCE = torch.tensor([[-1.5, -1.0, 7.0], [-1.0, -2.0, -1.0]])
    MASK = lengths_to_mask(torch.tensor([2, 3]), 3)

    def test_by_hand(self) -> None:
        # k1: row 0 = 0.5, -1 | row 1 = 0, 1, -2; beta 0.1; scores 4 and -5 on tokens 1 and 2.
        rewards = token_rewards(self.LOGPROBS, self.REFERENCE, torch.tensor([4.0, -5.0]), self.MASK, beta=0.1)
        torch.testing.assert_close(rewards, torch.tensor([[-0.05, 4.1, 0.0], [0.0, -0.1, -4.8]]))
        assert rewards[0, 2].item() == 0

    def test_sum_is_score_minus_beta_times_the_divergence(self) -> None:
        rewards = token_rewards(self.LOGPROBS, self.REFERENCE, torch.tensor([4.0, -5.0]), self.MASK, beta=0.1)
        torch.testing.assert_close(rewards.sum(1), torch.tensor([4 - 0.1 * -0.5, -5 - 0.1 * -1.0]))

    def test_bfloat16_is_widened_and_no_gradient_flows(self) -> None:
        logprobs = torch.tensor([[-1.0]], dtype=torch.bfloat16, requires_grad=True)
        rewards = token_rewards(logprobs, torch.tensor([[-1.0]]), torch.tensor([1.0]), torch.tensor([[True]]), beta=1.0)
        assert rewards.dtype == torch.float32
        assert not rewards.requires_grad

    def test_a_response_without_tokens_is_refused(self) -> None:
        with pytest.raises(ValueError, match="count no token"):
            token_rewards(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1), torch.zeros(1, 2) > 0, beta=0.1)


def slow_advantages(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Equation 16 as it is printed: A_t = sum_l (gamma lambda)^l delta_{t+l}, over the real tokens only."""
    n = len(rewards)
    following = [*values[1:], 0.0]
    deltas = [rewards[t] + gamma * following[t] - values[t] for t in range(n)]
    return [sum((gamma * lam) ** k * deltas[t + k] for k in range(n - t)) for t in range(n)]


class TestGeneralizedAdvantages:
    def test_by_hand(self) -> None:
        # gamma 1/2, lambda 1/2; deltas: 1 + .5*2 - 4 = -2, 2 + .5*6 - 2 = 3, 8 - 6 = 2.
        # A_2 = 2, A_1 = 3 + 2/4 = 3.5, A_0 = -2 + 3.5/4 = -1.125; returns add V = 4, 2, 6.
        result = generalized_advantages(
            torch.tensor([[1.0, 2.0, 8.0]]),
            torch.tensor([[4.0, 2.0, 6.0]]),
            torch.tensor([[True, True, True]]),
            gamma=0.5,
            lam=0.5,
        )
        assert result.advantages.tolist() == [[-1.125, 3.5, 2.0]]
        assert result.returns.tolist() == [[2.875, 5.5, 8.0]]

    def test_gamma_is_one_and_lambda_095_by_default(self) -> None:
        result = generalized_advantages(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2), torch.ones(1, 2) > 0)
        torch.testing.assert_close(result.advantages, torch.tensor([[0.95, 1.0]]))

    @pytest.mark.parametrize("garbage", [NAN, math.inf, 1e9, 0.0])
    def test_every_length_against_the_printed_sum_whatever_stands_in_padding(self, garbage: float) -> None:
        lengths = [1, 3, 6]
        generator = torch.Generator().manual_seed(1)
        rewards = torch.randn(3, 6, generator=generator, dtype=torch.float64)
        values = torch.randn(3, 6, generator=generator, dtype=torch.float64)
        mask = lengths_to_mask(torch.tensor(lengths), 6)
        expected = [
            slow_advantages(rewards[row, :length].tolist(), values[row, :length].tolist(), 0.9, 0.8)
            for row, length in enumerate(lengths)
        ]
        fill = torch.full_like(rewards, garbage)
        result = generalized_advantages(
            torch.where(mask, rewards, fill), torch.where(mask, values, fill), mask, gamma=0.9, lam=0.8
        )
        for row, length in enumerate(lengths):
            assert result.advantages[row, :length].tolist() == pytest.approx(expected[row])
            returns = [a + v for a, v in zip(expected[row], values[row, :length].tolist(), strict=True)]
            assert result.returns[row, :length].tolist() == pytest.approx(returns)
            assert result.advantages[row, length:].tolist() == [0.0] * (6 - length)
            assert result.returns[row, length:].tolist() == [0.0] * (6 - length)

    def test_lambda_one_gives_rewards_to_go_as_returns(self) -> None:
        rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[9.0, -4.0, 2.0]])
        result = generalized_advantages(rewards, values, torch.ones(1, 3) > 0, lam=1.0)
        torch.testing.assert_close(result.returns, torch.tensor([[6.0, 5.0, 3.0]]))

    def test_a_hole_in_the_mask_is_refused(self) -> None:
        mask = torch.tensor([[True, False, True]])
        with pytest.raises(ValueError, match="prefix"):
            generalized_advantages(torch.zeros(1, 3), torch.zeros(1, 3), mask)


class TestKLController:
    def test_without_a_target_beta_stays(self) -> None:
        controller = KLController(0.2, target_nats=None, horizon_episodes=10000)
        controller.observe(40.0, 1000)
        assert controller.beta == 0.2

    @pytest.mark.parametrize(
        ("kl", "factor"),
        [
            pytest.param(4.4, 1 + 0.1 * 500 / 10000, id="a tenth above the target"),
            pytest.param(3.6, 1 - 0.1 * 500 / 10000, id="a tenth below"),
            pytest.param(40.0, 1 + 0.2 * 500 / 10000, id="far above: clipped"),
            pytest.param(-1.0, 1 - 0.2 * 500 / 10000, id="far below: clipped"),
        ],
    )
    def test_adaptive_as_in_ziegler(self, kl: float, factor: float) -> None:
        controller = KLController(0.2, target_nats=4.0, horizon_episodes=10000)
        controller.observe(kl, 500)
        assert controller.beta == pytest.approx(0.2 * factor)
