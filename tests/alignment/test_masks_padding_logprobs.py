"""Masks, padding and statistics, against hand arithmetic and with poison in the padding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from alignment.masks_padding_logprobs import (
    last_index,
    lengths_to_mask,
    masked_mean,
    masked_moments,
    masked_sum,
    masked_variance,
    take_tokens,
)
from alignment.rl.ppo_math import whiten

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


class TestWhiten:
    def test_centred_by_hand(self) -> None:
        std = math.sqrt(8)
        expected = torch.tensor([[-4 / std, -2 / std, 0.0], [0.0, 2 / std, 4 / std]])
        torch.testing.assert_close(whiten(VALUES, MASK), expected)

    def test_without_mask_everything_counts(self) -> None:
        torch.testing.assert_close(whiten(torch.tensor([2.0, 6.0])), torch.tensor([-1.0, 1.0]))

    @pytest.mark.parametrize("size", [1, 4])
    def test_equal_values_and_a_single_one_become_zero(self, size: int) -> None:
        assert whiten(torch.full((size,), 3.0)).tolist() == [0.0] * size

    def test_rounding_is_not_blown_up(self) -> None:
        assert whiten(torch.tensor([0.1, 0.1 + 1e-8, 0.1 - 1e-8])).abs().max().item() < 1e-6

    def test_nothing_counts_gives_zeros(self) -> None:
        assert whiten(VALUES, torch.zeros_like(MASK)).tolist() == [[0.0] * 3] * 2

    def test_bfloat16_comes_back_in_float32(self) -> None:
        assert whiten(torch.tensor([1.0, 2.0], dtype=torch.bfloat16)).dtype == torch.float32


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
