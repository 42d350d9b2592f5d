"""The clipped losses and their diagnostics; and PPO's pieces together on a bandit."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alignment.masks_padding_logprobs import token_logprobs
from alignment.rl.ppo_math import (
    PolicyLoss,
    ValueLoss,
    clipped_policy_loss,
    clipped_value_loss,
    explained_variance,
    generalized_advantages,
    token_rewards,
    whiten,
)

NAN = math.nan


def policy_loss(ratios: list[float], advantages: list[float], n_tokens: int | None = None) -> PolicyLoss:
    """Loss of tokens with given probability ratios, all counting, clip range 0.2."""
    return clipped_policy_loss(
        torch.tensor(ratios, dtype=torch.float64).log(),
        torch.zeros(len(ratios), dtype=torch.float64),
        torch.tensor(advantages, dtype=torch.float64),
        torch.ones(len(ratios), dtype=torch.bool),
        clip_range=0.2,
        n_tokens=n_tokens or len(ratios),
    )


class TestClippedPolicyLoss:
    @pytest.mark.parametrize(
        ("ratio", "advantage", "loss", "clipped"),
        [
            (1.5, 2.0, -2.4, 1.0),  # good and already likelier: capped at 1.2 * 2
            (1.5, -2.0, 3.0, 0.0),  # bad and likelier: the full -1.5 * -2
            (0.5, 2.0, -1.0, 0.0),  # good and less likely: the full -0.5 * 2
            (0.5, -2.0, 1.6, 1.0),  # bad and already less likely: capped at 0.8 * 2
            (1.1, 2.0, -2.2, 0.0),
        ],
    )
    def test_the_four_quadrants(self, ratio: float, advantage: float, loss: float, clipped: float) -> None:
        result = policy_loss([ratio], [advantage])
        assert result.loss.item() == pytest.approx(loss)
        assert result.clip_fraction.item() == clipped

    def test_diagnostics_by_hand(self) -> None:
        result = policy_loss([1.5, 1.0, 0.5, 1.0], [2.0, 1.0, 2.0, 1.0])
        assert result.loss.item() == pytest.approx(-(2.4 + 1 + 1 + 1) / 4)
        assert result.clip_fraction.item() == 0.25
        assert result.ratio_mean.item() == pytest.approx(1.0)
        # k3 with samples of the old policy: (r - 1) - ln r.
        expected = ((0.5 - math.log(1.5)) + (-0.5 - math.log(0.5))) / 4
        assert result.approx_kl.item() == pytest.approx(expected)

    def test_direction_of_approx_kl(self) -> None:
        # Tokens in the proportions of the old policy, so the mean is the exact KL(old || new).
        old, new = [0.5, 0.25, 0.25], [1 / 16, 1 / 16, 7 / 8]
        tokens = [0, 0, 1, 2]
        result = clipped_policy_loss(
            torch.tensor([math.log(new[t]) for t in tokens]),
            torch.tensor([math.log(old[t]) for t in tokens]),
            torch.ones(4),
            torch.ones(4, dtype=torch.bool),
            clip_range=0.2,
            n_tokens=4,
        )
        exact = sum(p * math.log(p / q) for p, q in zip(old, new, strict=True))
        assert result.approx_kl.item() == pytest.approx(exact, abs=1e-6)
        assert abs(exact - sum(q * math.log(q / p) for p, q in zip(old, new, strict=True))) > 0.05

    def test_first_step_is_the_policy_gradient(self) -> None:
        # At ratio 1 the gradient in each log-probability is -A / n.
        logprobs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
        advantages = torch.tensor([1.0, -3.0, 0.5])
        result = clipped_policy_loss(
            logprobs,
            logprobs.detach(),
            advantages,
            torch.ones(3, dtype=torch.bool),
            clip_range=0.2,
            n_tokens=3,
        )
        result.loss.backward()
        assert logprobs.grad is not None
        torch.testing.assert_close(logprobs.grad, -advantages / 3)
        assert (result.ratio_mean.item(), result.approx_kl.item(), result.clip_fraction.item()) == (1, 0, 0)

    def test_a_clipped_token_has_no_gradient(self) -> None:
        logprobs = torch.tensor([math.log(1.5), math.log(1.1)], requires_grad=True)
        result = clipped_policy_loss(
            logprobs,
            torch.zeros(2),
            torch.ones(2),
            torch.ones(2, dtype=torch.bool),
            clip_range=0.2,
            n_tokens=2,
        )
        result.loss.backward()
        assert logprobs.grad is not None
        torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, -1.1 / 2]))

    def test_only_the_loss_and_the_trained_log_probs_carry_gradient(self) -> None:
        new, old, advantages = (torch.zeros(2, requires_grad=True) for _ in range(3))
        result = clipped_policy_loss(new, old, advantages, torch.ones(2, dtype=torch.bool), clip_range=0.2, n_tokens=2)
        assert [field.requires_grad for field in result] == [True, False, False, False]
        result.loss.backward()
        assert old.grad is None and advantages.grad is None


class TestClippedValueLoss:
    @pytest.mark.parametrize(
        ("value", "target", "loss", "clipped"),
        [
            (1.5, 2.0, 0.5 * 0.8**2, 1.0),  # moved 0.5 towards the target: held at 1.2, error 0.8
            (1.5, 0.0, 0.5 * 1.5**2, 0.0),  # moved away from the target: the plain error is larger
            (1.1, 2.0, 0.5 * 0.9**2, 0.0),
            (0.5, 0.0, 0.5 * 0.8**2, 1.0),  # downwards: held at 0.8
        ],
    )
    def test_by_hand_from_an_old_value_of_one(self, value: float, target: float, loss: float, clipped: float) -> None:
        result = clipped_value_loss(
            torch.tensor([value]),
            torch.tensor([1.0]),
            torch.tensor([target]),
            torch.tensor([True]),
            clip_range=0.2,
            n_tokens=1,
        )
        assert result.loss.item() == pytest.approx(loss, rel=1e-5)
        assert result.clip_fraction.item() == clipped

    def test_infinity_switches_clipping_off(self) -> None:
        result = clipped_value_loss(
            torch.tensor([5.0]),
            torch.tensor([1.0]),
            torch.tensor([6.0]),
            torch.tensor([True]),
            clip_range=math.inf,
            n_tokens=1,
        )
        assert result.loss.item() == 0.5

    def test_only_the_values_carry_gradient(self) -> None:
        new, old, returns = (torch.zeros(2, requires_grad=True) for _ in range(3))
        result = clipped_value_loss(new, old, returns + 1, torch.ones(2, dtype=torch.bool), clip_range=0.2, n_tokens=2)
        result.loss.backward()
        assert new.grad is not None
        assert new.grad.tolist() == [-0.5, -0.5]  # (V - G) / n
        assert old.grad is None and returns.grad is None


LossFunction = Callable[..., PolicyLoss | ValueLoss]


@pytest.mark.parametrize("function", [clipped_policy_loss, clipped_value_loss])
class TestBothLosses:
    LENGTHS = torch.tensor([2, 5, 1, 4])
    MASK = torch.arange(5) < LENGTHS.unsqueeze(1)

    def inputs(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(2)
        return [torch.randn(4, 5, generator=generator, dtype=torch.float64) * 0.5 for _ in range(3)]

    def run(self, function: LossFunction, tensors: list[Tensor], splits: list[list[int]]) -> tuple[list[float], Tensor]:
        """Sum of every field over micro-batches of given rows, and the gradient they accumulate."""
        trained = tensors[0].clone().requires_grad_()
        totals: list[float] = []
        for rows in splits:
            result = function(
                trained[rows],
                tensors[1][rows],
                tensors[2][rows],
                self.MASK[rows],
                clip_range=0.2,
                n_tokens=12,
            )
            result.loss.backward()
            fields = [field.item() for field in result]
            totals = [a + b for a, b in zip(totals or [0.0] * len(fields), fields, strict=True)]
        assert trained.grad is not None
        return totals, trained.grad

    @pytest.mark.parametrize("splits", [[[0, 1], [2, 3]], [[1], [0, 2, 3]], [[3], [2], [1], [0]]])
    def test_micro_batches_add_up(self, function: LossFunction, splits: list[list[int]]) -> None:
        whole, whole_gradient = self.run(function, self.inputs(), [[0, 1, 2, 3]])
        parts, gradient = self.run(function, self.inputs(), splits)
        assert parts == pytest.approx(whole, abs=1e-12)
        torch.testing.assert_close(gradient, whole_gradient)
        assert 0 < whole[1] < 1  # some tokens are clipped, not all

    def test_padding_never_matters(self, function: LossFunction) -> None:
        tensors = self.inputs()
        zeros, zero_gradient = self.run(function, [t.where(self.MASK, 0.0) for t in tensors], [[0, 1, 2, 3]])
        for garbage in (NAN, math.inf, -1e30):
            dirty = [t.where(self.MASK, garbage) for t in tensors]
            fields, gradient = self.run(function, dirty, [[0, 1, 2, 3]])
            assert fields == zeros
            assert torch.equal(gradient, zero_gradient)
        assert zero_gradient[0, 2:].tolist() == [0.0] * 3

    def test_padding_is_not_part_of_the_mean(self, function: LossFunction) -> None:
        tensors = self.inputs()
        flat = [t[self.MASK] for t in tensors]
        flat_mask = torch.ones(12, dtype=torch.bool)
        expected = function(*flat, flat_mask, clip_range=0.2, n_tokens=12)
        fields, _ = self.run(function, tensors, [[0, 1, 2, 3]])
        assert fields == pytest.approx([field.item() for field in expected])

    @pytest.mark.parametrize(("clip_range", "n_tokens"), [(0.2, 0), (0.0, 12), (-0.2, 12)])
    def test_meaningless_numbers_are_refused(self, function: LossFunction, clip_range: float, n_tokens: int) -> None:
        with pytest.raises(ValueError, match=r"n_tokens|clip_range"):
            function(*self.inputs(), self.MASK, clip_range=clip_range, n_tokens=n_tokens)


class TestExplainedVariance:
    def test_by_hand(self) -> None:
        # Returns 0, 2, 4, 6 (variance 5); errors 1, -1, 1, -1 (variance 1): 1 - 1/5. The padding is poison.
        values = torch.tensor([[-1.0, 3.0, NAN], [3.0, 7.0, NAN]])
        returns = torch.tensor([[0.0, 2.0, NAN], [4.0, 6.0, 1e9]])
        mask = torch.tensor([[True, True, False], [True, True, False]])
        assert explained_variance(values, returns, mask).item() == pytest.approx(0.8)

    def test_a_constant_offset_explains_all_and_constant_returns_nothing(self) -> None:
        mask = torch.ones(3, dtype=torch.bool)
        returns = torch.tensor([1.0, 2.0, 3.0])
        assert explained_variance(returns + 5, returns, mask).item() == 1
        assert explained_variance(returns, torch.ones(3), mask).item() == 0


class TestBandit:
    """One prompt, one token out of 32, a known reward: the optimum is pi_0 * exp(r / beta) / Z."""

    BETA = 0.5

    def train(self, rewards: Tensor, reference: Tensor, *, whitened: bool) -> Tensor:
        """Log-probabilities after PPO: 1,024 samples an update, four minibatches, a learnt baseline."""
        generator = torch.Generator().manual_seed(0)
        logits = reference.clone().requires_grad_()
        value = torch.zeros((), requires_grad=True)
        optimiser = torch.optim.Adam([logits, value], lr=0.1)
        updates = 150
        mask = torch.ones(1024, 1, dtype=torch.bool)
        for update in range(updates):
            optimiser.param_groups[0]["lr"] = 0.1 * (1 - update / updates)
            with torch.no_grad():
                tokens = torch.multinomial(logits.softmax(0), 1024, replacement=True, generator=generator)
                old = logits.log_softmax(0)[tokens].unsqueeze(1)
                old_values = value.expand(1024, 1).clone()
            earned = token_rewards(old, reference[tokens].unsqueeze(1), rewards[tokens], mask, beta=self.BETA)
            estimates = generalized_advantages(earned, old_values, mask)
            advantages = whiten(estimates.advantages, mask) if whitened else estimates.advantages
            for rows in torch.arange(1024).split(256):
                new = token_logprobs(logits.expand(256, -1), tokens[rows], temperature=1.0).unsqueeze(1)
                policy = clipped_policy_loss(new, old[rows], advantages[rows], mask[rows], clip_range=0.2, n_tokens=256)
                critic = clipped_value_loss(
                    value.expand(256, 1),
                    old_values[rows],
                    estimates.returns[rows],
                    mask[rows],
                    clip_range=0.2,
                    n_tokens=256,
                )
                optimiser.zero_grad()
                (policy.loss + critic.loss).backward()
                optimiser.step()
        return logits.detach().log_softmax(0)

    @pytest.mark.parametrize("whitened", [False, True])
    def test_converges_to_the_closed_form(self, whitened: bool) -> None:
        generator = torch.Generator().manual_seed(3)
        rewards = torch.randn(32, generator=generator)
        reference = torch.randn(32, generator=generator).log_softmax(0)
        optimum = (reference + rewards / self.BETA).log_softmax(0)
        learnt = self.train(rewards, reference, whitened=whitened)
        divergence = (learnt.exp() * (learnt - optimum)).sum().item()
        start = (reference.exp() * (reference - optimum)).sum().item()
        assert start > 1  # the optimum is far from where training starts
        assert divergence <= 0.01
