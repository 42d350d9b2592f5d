"""Masks, global statistics and response ends, against hand arithmetic and with poison in the padding."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from alignment.tensors.masking import (
    Reduce,
    last_index,
    lengths_to_mask,
    masked_mean,
    masked_moments,
    masked_sum,
    masked_variance,
    take_tokens,
    truncate_at_stop,
    whiten,
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
        assert moments.n.item() == 3
        assert moments.mean.item() == 1_000_000
        assert moments.variance.item() == pytest.approx(2 / 3)


def on_two_processes(run: Callable[[int, Reduce], Tensor]) -> list[Tensor]:
    """Run a function on two threads whose ``reduce`` sums their tensors; unequal calls time out."""
    barrier = threading.Barrier(2, timeout=5)
    offered = [torch.empty(0), torch.empty(0)]

    def reduce_of(rank: int) -> Reduce:
        def reduce(tensor: Tensor) -> Tensor:
            offered[rank] = tensor
            barrier.wait()
            total = offered[0] + offered[1]
            barrier.wait()
            return total

        return reduce

    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(lambda rank: run(rank, reduce_of(rank)), (0, 1)))


class TestWhiten:
    def test_centred_by_hand(self) -> None:
        std = math.sqrt(8)
        expected = torch.tensor([[-4 / std, -2 / std, 0.0], [0.0, 2 / std, 4 / std]])
        torch.testing.assert_close(whiten(VALUES, MASK), expected)

    def test_not_centred_keeps_the_mean_of_five(self) -> None:
        std = math.sqrt(8)
        expected = torch.tensor([[5 - 4 / std, 5 - 2 / std, 0.0], [5.0, 5 + 2 / std, 5 + 4 / std]])
        torch.testing.assert_close(whiten(VALUES, MASK, center=False), expected)

    def test_without_mask_everything_counts(self) -> None:
        torch.testing.assert_close(whiten(torch.tensor([2.0, 6.0])), torch.tensor([-1.0, 1.0]))

    @pytest.mark.parametrize(("center", "expected"), [(True, 0.0), (False, 3.0)])
    @pytest.mark.parametrize("size", [1, 4])
    def test_equal_values_and_a_single_one(self, center: bool, expected: float, size: int) -> None:
        assert whiten(torch.full((size,), 3.0), center=center).tolist() == [expected] * size

    def test_rounding_is_not_blown_up(self) -> None:
        assert whiten(torch.tensor([0.1, 0.1 + 1e-8, 0.1 - 1e-8])).abs().max().item() < 1e-6

    def test_nothing_counts_gives_zeros(self) -> None:
        assert whiten(VALUES, torch.zeros_like(MASK)).tolist() == [[0.0] * 3] * 2

    def test_two_processes_share_their_statistics(self) -> None:
        # Row 0 alone has mean 2, row 1 alone mean 7: whitening each by itself would give other numbers.
        expected = whiten(VALUES, MASK)

        def run(rank: int, reduce: Reduce) -> Tensor:
            return whiten(VALUES[rank], MASK[rank], reduce=reduce)

        torch.testing.assert_close(torch.stack(on_two_processes(run)), expected)

    def test_a_process_where_nothing_counts_takes_part(self) -> None:
        mask = torch.tensor([[False, False, False], [True, True, True]])

        def run(rank: int, reduce: Reduce) -> Tensor:
            return whiten(VALUES[rank], mask[rank], reduce=reduce)

        first, second = on_two_processes(run)
        assert first.tolist() == [0.0] * 3
        root = math.sqrt(1.5)  # 5, 7, 9: deviations of 2, variance 8/3
        torch.testing.assert_close(second, torch.tensor([-root, 0.0, root]))

    def test_bfloat16_comes_back_in_float32(self) -> None:
        assert whiten(torch.tensor([1.0, 2.0], dtype=torch.bfloat16)).dtype == torch.float32


class TestLastIndex:
    def test_right_left_and_full(self) -> None:
        mask = torch.tensor([[True, False, False], [False, True, True], [True, True, True], [True, True, False]])
        assert last_index(mask).tolist() == [0, 2, 2, 1]

    def test_an_empty_row_is_refused_by_number(self) -> None:
        with pytest.raises(ValueError, match=r"rows \[1\]"):
            last_index(torch.tensor([[True, False], [False, False]]))


class TestTruncateAtStop:
    def test_length_includes_the_first_stop_of_any_kind(self) -> None:
        ids = torch.tensor([[5, 2, 5, 2], [5, 5, 7, 2], [2, 5, 5, 5], [5, 5, 5, 2], [5, 6, 5, 6]])
        ends = truncate_at_stop(ids, frozenset({2, 7}))
        assert ends.lengths.tolist() == [2, 3, 1, 4, 4]
        assert ends.stopped.tolist() == [True, True, True, True, False]
        assert ends.lengths.dtype == torch.int64

    def test_padding_that_equals_the_stop_token_changes_nothing(self) -> None:
        # Row 0 ran into the length limit of 2 and is filled with 2, which is also the stop id; row 1 stopped.
        ids = torch.tensor([[5, 6, 2, 2], [5, 2, 2, 2]])
        ends = truncate_at_stop(ids, [2], max_lengths=torch.tensor([2, 2]))
        assert ends.lengths.tolist() == [2, 2]
        assert ends.stopped.tolist() == [False, True]

    @pytest.mark.parametrize("filler", [0, 2, 9])
    def test_what_follows_the_stop_never_matters(self, filler: int) -> None:
        ids = torch.tensor([[5, 2, filler, filler], [0, 0, 2, filler]])
        assert truncate_at_stop(ids, [2]).lengths.tolist() == [2, 3]

    def test_against_a_slow_loop(self) -> None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, 12, (64, 9), generator=generator)
        limits = torch.randint(1, 10, (64,), generator=generator)
        ends = truncate_at_stop(ids, {3, 4}, max_lengths=limits)
        for row, limit, length, stopped in zip(
            ids.tolist(), limits.tolist(), ends.lengths.tolist(), ends.stopped.tolist(), strict=True
        ):
            expected, met = limit, False
            for position in range(limit):
                if row[position] in (3, 4):
                    expected, met = position + 1, True
                    break
            assert (length, stopped) == (expected, met)

    def test_no_stop_ids_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            truncate_at_stop(torch.tensor([[1]]), [])


@pytest.mark.parametrize("trailing", [(), (3,)])
def test_take_tokens_by_a_slow_loop(trailing: tuple[int, ...]) -> None:
    values = torch.randn(4, 6, *trailing)
    rows, columns = torch.tensor([2, 0, 2]), torch.tensor([[5, 0], [1, 1], [3, 4]])
    taken = take_tokens(values, rows, columns)
    assert taken.shape == (3, 2, *trailing)
    for n in range(3):
        for w in range(2):
            assert torch.equal(taken[n, w], values[rows[n], columns[n, w]])
