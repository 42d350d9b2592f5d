"""The gate between the two reward models, whitening of its scores, and the missing-stop penalty."""

from __future__ import annotations

import math

import pytest
import torch

from alignment.reward.gate import LOGIT_THRESHOLD, gate


class TestGate:
    def test_threshold_is_the_logit_of_015(self) -> None:
        assert pytest.approx(-1.7346, abs=5e-5) == LOGIT_THRESHOLD
        assert 1 / (1 + math.exp(-LOGIT_THRESHOLD)) == pytest.approx(0.15)

    def test_truth_table(self) -> None:
        # Safety tag x safe or unsafe answer; comparing raw scores with 0.15 would send row three to the
        # safety model, though its score of 0 is a probability of 0.5.
        helpfulness = torch.tensor([5.0, 6.0, 7.0, 8.0])
        safety = torch.tensor([2.0, -3.0, 0.0, -3.0])
        result = gate(helpfulness, safety, torch.tensor([True, True, False, False]))
        assert result.scores.tolist() == [2.0, -3.0, 7.0, -3.0]
        assert result.routed_to_safety.tolist() == [True, True, False, True]

    def test_both_sides_of_the_threshold(self) -> None:
        safety = torch.tensor([-1.734, -1.735])
        result = gate(torch.zeros(2), safety, torch.tensor([False, False]))
        assert result.routed_to_safety.tolist() == [False, True]

    def test_exactly_at_the_threshold_is_not_below_it(self) -> None:
        result = gate(torch.ones(1), torch.zeros(1), torch.tensor([False]), threshold_probability=0.5)
        assert result.scores.item() == 1

    def test_another_threshold(self) -> None:
        result = gate(torch.zeros(2), torch.tensor([2.1, 2.2]), torch.tensor([False, False]), threshold_probability=0.9)
        assert result.routed_to_safety.tolist() == [True, False]  # logit(0.9) = 2.197; 2.2 is above it

    def test_confident_scores_stay_apart(self) -> None:
        # sigmoid(20) and sigmoid(30) are both 1 in float32: a round trip gives infinity.
        result = gate(torch.tensor([20.0, 30.0]), torch.tensor([3.0, 3.0]), torch.tensor([False, False]))
        assert result.scores.tolist() == [20.0, 30.0]

    def test_bfloat16_scores_become_float32(self) -> None:
        result = gate(torch.zeros(1).bfloat16(), torch.ones(1).bfloat16(), torch.tensor([False]))
        assert result.scores.dtype == torch.float32

    @pytest.mark.parametrize("threshold", [0.0, 1.0, -1.7346])
    def test_a_threshold_that_is_no_probability_is_refused(self, threshold: float) -> None:
        with pytest.raises(ValueError, match="threshold_probability"):
            gate(torch.zeros(1), torch.zeros(1), torch.tensor([False]), threshold_probability=threshold)
