"""Masks, padding, statistics and log-probabilities, against hand arithmetic and with poison in the padding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from alignment.masks_padding_logprobs import (
    entropy,
    last_index,
    lengths_to_mask,
    masked_mean,
    masked_moments,
    masked_sum,
    masked_variance,
    take_tokens,
    token_logprobs,
)

NAN = math.nan
MASK = torch.tensor([[True, True, False], [True, True, True]])
# Counted: 1, 3, 5, 7, 9 -> sum 25, mean 5, deviations -4 -2 0 2 4, population variance 40/5 = 8 (n-1: 10).
VALUES = torch.tensor([[1.0, 3.0, NAN], [5.0, 7.0, 9.0]])


class TestLengthsToMask:
    def test_true_counts_and_zero_and_full_rows_work(self) -> None:
        mask = lengths_to_mask(torch.tensor([0, 2, 3]), 3)
        assert mask.dtype == torch.bool
        assert mask.tolist() == [[False] * 3, [True, True, False], [True] * 3]

    @pytest.mark.parametrize("lengths", [[1, 4], [-1, 2]])
    def test_impossible_lengths_are_refused(self, lengths: list[int]) -> None:
        with pytest.raises(ValueError, match="between 0 and 3"):
            lengths_to_mask(torch.tensor(lengths), 3)


class TestStatistics:
    def test_over_everything(self) -> None:
        assert masked_sum(VALUES, MASK).item() == 25
        assert masked_mean(VALUES, MASK).item() == 5
        assert masked_variance(VALUES, MASK).item() == 8

    def test_along_rows(self) -> None:
        assert masked_sum(VALUES, MASK, dim=1).tolist() == [4, 21]
        assert masked_mean(VALUES, MASK, dim=1).tolist() == [2, 7]
        torch.testing.assert_close(masked_variance(VALUES, MASK, dim=1), torch.tensor([1.0, 8 / 3]))

    def test_along_columns(self) -> None:
        assert masked_mean(VALUES, MASK, dim=0).tolist() == [3, 5, 9]
        assert masked_variance(VALUES, MASK, dim=0).tolist() == [4, 4, 0]

    def test_nothing_counts(self) -> None:
        nothing = torch.zeros_like(MASK)
        assert masked_sum(VALUES, nothing).item() == 0
        assert math.isnan(masked_mean(VALUES, nothing).item())

    def test_nan_in_padding_reaches_no_gradient(self) -> None:
        values = VALUES.clone().requires_grad_()
        masked_mean(values, MASK).backward()
        assert values.grad is not None
        torch.testing.assert_close(values.grad, torch.tensor([[0.2, 0.2, 0.0], [0.2, 0.2, 0.2]]))

    @pytest.mark.parametrize("mask", [MASK.float(), MASK.long(), MASK[:1]])
    def test_a_mask_of_another_dtype_or_shape_is_refused(self, mask: Tensor) -> None:
        with pytest.raises(ValueError, match="a mask is bool"):
            masked_sum(VALUES, mask)

    def test_a_large_mean_costs_no_digits(self) -> None:
        # A sum of squares in float32 would lose the variance of 2/3 beside 1e12.
        moments = masked_moments(torch.tensor([999_999.0, 1_000_000.0, 1_000_001.0]))
        assert moments.mean.item() == 1_000_000
        assert moments.variance.item() == pytest.approx(2 / 3)


class TestLastIndex:
    def test_right_left_and_full(self) -> None:
        mask = torch.tensor([[True, False, False], [False, True, True], [True, True, True], [True, True, False]])
        assert last_index(mask).tolist() == [0, 2, 2, 1]

    def test_an_empty_row_is_refused_by_number(self) -> None:
        with pytest.raises(ValueError, match=r"rows \[1\]"):
            last_index(torch.tensor([[True, False], [False, False]]))


@pytest.mark.parametrize("trailing", [(), (3,)])
def test_take_tokens_by_a_slow_loop(trailing: tuple[int, ...]) -> None:
    values = torch.randn(4, 6, *trailing)
    rows, columns = torch.tensor([2, 0, 2]), torch.tensor([[5, 0], [1, 1], [3, 4]])
    taken = take_tokens(values, rows, columns)
    assert taken.shape == (3, 2, *trailing)
    for n in range(3):
        for w in range(2):
            assert torch.equal(taken[n, w], values[rows[n], columns[n, w]])


class TestTokenLogprobs:
    LOGITS = torch.tensor([[0.0, math.log(3.0), math.log(4.0)], [math.log(2.0), 0.0, 0.0]])

    def test_by_hand(self) -> None:
        # softmax: 1/8, 3/8, 4/8 and 2/4, 1/4, 1/4.
        logprobs = token_logprobs(self.LOGITS, torch.tensor([1, 2]), temperature=1.0)
        torch.testing.assert_close(logprobs.exp(), torch.tensor([3 / 8, 1 / 4]))

    def test_temperature_divides_the_logits(self) -> None:
        # At 1/2 the odds are squared: 1, 9, 16 of 26 and 4, 1, 1 of 6.
        logprobs = token_logprobs(self.LOGITS, torch.tensor([1, 0]), temperature=0.5)
        torch.testing.assert_close(logprobs.exp(), torch.tensor([9 / 26, 4 / 6]))

    def test_bfloat16_logits_are_widened_first(self) -> None:
        # bf16 arithmetic would give a log-probability with three digits: -6.90625 here.
        logits = torch.zeros(1, 1000, dtype=torch.bfloat16)
        logprob = token_logprobs(logits, torch.tensor([3]), temperature=1.0)
        assert logprob.dtype == torch.float32
        assert logprob.item() == pytest.approx(-math.log(1000), abs=1e-5)

    def test_large_logits_stay_finite(self) -> None:
        logprobs = token_logprobs(torch.tensor([[1e4, 0.0]]), torch.tensor([1]), temperature=1.0)
        assert logprobs.item() == -1e4

    @pytest.mark.parametrize("temperature", [0.0, -1.0])
    def test_temperature_must_be_positive(self, temperature: float) -> None:
        with pytest.raises(ValueError, match="temperature"):
            token_logprobs(self.LOGITS, torch.tensor([0, 0]), temperature=temperature)


class TestEntropy:
    def test_by_hand(self) -> None:
        logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(3.0), 0.0, -math.inf, -math.inf]])
        mixed = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
        torch.testing.assert_close(entropy(logits, temperature=1.0), torch.tensor([math.log(4), mixed]))

    def test_temperature(self) -> None:
        sharp = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))  # odds 3 squared: 9 to 1
        assert entropy(torch.tensor([[math.log(3.0), 0.0]]), temperature=0.5).item() == pytest.approx(sharp)

    def test_gradient_is_finite_at_probability_zero(self) -> None:
        logits = torch.tensor([[0.0, 1.0, -500.0, -math.inf]], requires_grad=True)
        entropy(logits, temperature=1.0).sum().backward()
        assert logits.grad is not None
        assert bool(logits.grad.isfinite().all())
