"""How scores become rewards: whitening, and the penalty for a missing stop token."""

from __future__ import annotations

import math

import pytest
import torch

from alignment.rl.ppo_math import missing_stop_penalty, shape_scores, whiten

NAN = math.nan
MASK = torch.tensor([[True, True, False], [True, True, True]])
# Counted: 1, 3, 5, 7, 9 -> mean 5, population variance 40/5 = 8.
VALUES = torch.tensor([[1.0, 3.0, NAN], [5.0, 7.0, 9.0]])


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


class TestMissingStop:
    def test_only_unstopped_responses_pay(self) -> None:
        scores = missing_stop_penalty(torch.tensor([1.0, 1.0]), torch.tensor([True, False]), penalty=2.0)
        assert scores.tolist() == [1.0, -1.0]

    def test_a_negative_penalty_is_refused(self) -> None:
        with pytest.raises(ValueError, match="penalty"):
            missing_stop_penalty(torch.zeros(1), torch.tensor([False]), penalty=-1.0)


class TestShapeScores:
    SCORES = torch.tensor([8.0, 10.0, 12.0, 14.0])  # mean 11, variance 5
    STOPPED = torch.tensor([True, True, True, False])

    def test_whitening_takes_off_a_mean_far_from_zero(self) -> None:
        shaped = shape_scores(self.SCORES, self.STOPPED, penalty=0.0)
        torch.testing.assert_close(shaped, torch.tensor([-3.0, -1.0, 1.0, 3.0]) / math.sqrt(5))

    def test_equal_scores_become_zero(self) -> None:
        assert shape_scores(torch.full((3,), 0.3), torch.ones(3).bool(), penalty=1.0).tolist() == [0.0] * 3

    def test_penalty_comes_after_whitening(self) -> None:
        shaped = shape_scores(self.SCORES, self.STOPPED, penalty=1.0)
        root = math.sqrt(5)
        torch.testing.assert_close(shaped, torch.tensor([-3 / root, -1 / root, 1 / root, 3 / root - 1]))

    def test_without_whitening_the_scale_stays(self) -> None:
        shaped = shape_scores(self.SCORES, self.STOPPED, penalty=1.0, whitening=False)
        assert shaped.tolist() == [8.0, 10.0, 12.0, 13.0]
