"""Losses of the reward models: margins of Table 27, closed forms, gradients, micro-batches."""

from __future__ import annotations

import doctest
import math

import pytest
import torch

from alignment.data.records import GRADES
from alignment.errors import UserError
from alignment.reward import losses
from alignment.reward.losses import (
    LOSSES,
    MARGINS,
    STRENGTHS,
    centering_loss,
    grade_values,
    margin_table,
    preference_loss,
    preference_loss_named,
    safety_loss,
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class TestMargins:
    @pytest.mark.parametrize(
        ("scheme", "expected"),
        [("none", [0, 0, 0, 0]), ("small", [1, 2 / 3, 1 / 3, 0]), ("large", [3, 2, 1, 0])],
    )
    def test_table_27_strongest_grade_first(self, scheme: str, expected: list[float]) -> None:
        assert [MARGINS[scheme][grade] for grade in GRADES] == expected

    def test_every_scheme_knows_exactly_the_grades_of_the_data(self) -> None:
        assert set(MARGINS) == {"none", "small", "large"}
        assert all(set(table) == set(GRADES) for table in MARGINS.values())

    def test_ungraded_pairs_get_what_is_asked_for(self) -> None:
        margins = grade_values(["significantly_better", None, "slightly_better"], MARGINS["large"], ungraded=0.0)
        assert margins.tolist() == [3, 0, 1]
        assert margins.dtype == torch.float32
        assert grade_values([None, "negligibly_better"], STRENGTHS, ungraded=1.0).tolist() == [1, 0]

    def test_a_table_of_ones_own_is_taken_as_it_is(self) -> None:
        own = {"significantly_better": 4.0, "better": 2.5, "slightly_better": 0.5, "negligibly_better": 0.25}
        assert grade_values(GRADES, margin_table(own), ungraded=0.0).tolist() == [4, 2.5, 0.5, 0.25]

    def test_unknown_names_list_the_valid_ones(self) -> None:
        with pytest.raises(UserError, match=r"'medium'.*none, small, large"):
            margin_table("medium")
        with pytest.raises(UserError, match=r"'best'.*significantly_better"):
            grade_values(["best", "better"], MARGINS["small"], ungraded=0.0)
        with pytest.raises(UserError, match=r"'hinge'.*ranking, scaled.*plugins"):
            preference_loss_named("hinge")


class TestPreferenceLoss:
    # Log-odds of three pairs: differences of scores 3, -0.5 and 0 less the margins 1, 2/3 and 0.
    LOG_ODDS = torch.tensor([2.0, -7 / 6, 0.0])
    STRENGTH = torch.tensor([3.0, 2.0, 0.0])

    def test_closed_form(self) -> None:
        expected = -(math.log(sigmoid(2)) + math.log(sigmoid(-7 / 6)) + math.log(0.5)) / 3
        loss = preference_loss(self.LOG_ODDS, self.STRENGTH, n_pairs=3)
        assert loss.item() == pytest.approx(expected, abs=1e-6)

    def test_gradient(self) -> None:
        # d/dx of -log sigmoid(x) is -sigmoid(-x); divided by 3.
        log_odds = self.LOG_ODDS.clone().requires_grad_()
        preference_loss(log_odds, self.STRENGTH, n_pairs=3).backward()
        assert log_odds.grad is not None
        torch.testing.assert_close(log_odds.grad, torch.tensor([-sigmoid(-2) / 3, -sigmoid(7 / 6) / 3, -0.5 / 3]))

    def test_scaled_by_strength(self) -> None:
        expected = -(3 * math.log(sigmoid(2)) + 2 * math.log(sigmoid(-7 / 6))) / 3
        loss = preference_loss(self.LOG_ODDS, self.STRENGTH, n_pairs=3, loss=LOSSES["scaled"])
        assert loss.item() == pytest.approx(expected, abs=1e-6)

    def test_smoothed_labels_are_cross_entropy_with_a_soft_target(self) -> None:
        # Target 0.9: -(0.9 log p + 0.1 log(1 - p)).
        p = [sigmoid(2), sigmoid(-7 / 6), 0.5]
        expected = -sum(0.9 * math.log(x) + 0.1 * math.log(1 - x) for x in p) / 3
        loss = preference_loss(self.LOG_ODDS, self.STRENGTH, n_pairs=3, label_smoothing=0.1)
        assert loss.item() == pytest.approx(expected, abs=1e-6)

    def test_smoothing_bounds_the_log_odds_it_asks_for(self) -> None:
        # The minimum of the smoothed loss is at log(0.9 / 0.1), beyond it the gradient turns.
        best = math.log(0.9 / 0.1)
        for log_odds, sign in ((best - 0.1, -1), (best + 0.1, 1)):
            at = torch.tensor([log_odds], requires_grad=True)
            preference_loss(at, torch.ones(1), n_pairs=1, label_smoothing=0.1).backward()
            assert at.grad is not None and at.grad.item() * sign > 0

    def test_the_opposite_label_has_its_own_margin(self) -> None:
        # Difference 2, margin 1: -log sigmoid(2 - 1) for the label, -log sigmoid(-2 - 1) for its opposite.
        expected = -(0.9 * math.log(sigmoid(1)) + 0.1 * math.log(sigmoid(-3)))
        one = torch.ones(1)
        loss = preference_loss(one, one, n_pairs=1, label_smoothing=0.1, opposite=torch.tensor([-3.0]))
        assert loss.item() == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("smoothing", [-0.1, 0.5])
    def test_senseless_smoothing_is_refused(self, smoothing: float) -> None:
        with pytest.raises(ValueError, match="label_smoothing"):
            preference_loss(self.LOG_ODDS, self.STRENGTH, n_pairs=3, label_smoothing=smoothing)

    def test_hopeless_pairs_stay_finite(self) -> None:
        log_odds = torch.tensor([-403.0], requires_grad=True)
        loss = preference_loss(log_odds, torch.ones(1), n_pairs=1)
        loss.backward()
        assert log_odds.grad is not None
        assert (loss.item(), log_odds.grad.item()) == (403, -1)

    def test_what_would_broadcast_is_refused(self) -> None:
        with pytest.raises(ValueError, match="one shape"):
            preference_loss(self.LOG_ODDS[:, None], self.STRENGTH, n_pairs=3)
        with pytest.raises(ValueError, match="one shape"):
            preference_loss(self.LOG_ODDS, self.STRENGTH, n_pairs=3, loss=lambda odds, strength: odds.sum())


class TestSafetyLoss:
    def test_closed_form_for_safe_and_unsafe_and_unlabelled(self) -> None:
        logits = torch.tensor([1.0, 1.0, math.nan, -2.0])
        safe = torch.tensor([True, False, True, False])
        mask = torch.tensor([True, True, False, True])
        expected = -(math.log(sigmoid(1)) + math.log(1 - sigmoid(1)) + math.log(1 - sigmoid(-2))) / 2
        assert safety_loss(logits, safe, mask, n_pairs=2).item() == pytest.approx(expected, abs=1e-6)

    def test_float_labels_and_two_calls_are_one_call_on_both_answers(self) -> None:
        chosen, rejected = torch.tensor([0.5, -1.0]), torch.tensor([-0.3, 2.0])
        chosen_safe, rejected_safe = torch.tensor([1.0, 0.0]), torch.tensor([0.0, math.nan])
        masks = torch.tensor([True, True]), torch.tensor([True, False])
        two = safety_loss(chosen, chosen_safe, masks[0], n_pairs=2) + safety_loss(
            rejected, rejected_safe, masks[1], n_pairs=2
        )
        one = safety_loss(
            torch.cat([chosen, rejected]),
            torch.cat([chosen_safe, rejected_safe]),
            torch.cat(masks),
            n_pairs=2,
        )
        expected = -(math.log(sigmoid(0.5)) + math.log(sigmoid(1)) + math.log(sigmoid(0.3))) / 2
        assert two.item() == pytest.approx(expected, abs=1e-6)
        assert one.item() == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("wrong", range(3))
    def test_what_would_broadcast_is_refused(self, wrong: int) -> None:
        given = [torch.ones(2), torch.ones(2), torch.ones(2, dtype=torch.bool)]
        given[wrong] = given[wrong][:, None]
        with pytest.raises(ValueError, match="one shape"):
            safety_loss(*given, n_pairs=2)

    def test_unlabelled_answers_have_no_gradient(self) -> None:
        logits = torch.tensor([math.nan, 0.0, 0.0], requires_grad=True)
        mask = torch.tensor([False, True, True])
        safety_loss(logits, torch.tensor([True, True, False]), mask, n_pairs=1).backward()
        assert logits.grad is not None
        assert logits.grad.tolist() == [0, -0.5, 0.5]  # sigmoid(s) - label

    def test_nothing_labelled_costs_nothing(self) -> None:
        nothing = torch.zeros(2, dtype=torch.bool)
        assert safety_loss(torch.tensor([9.0, -9.0]), nothing, nothing, n_pairs=2).item() == 0


class TestCenteringLoss:
    def test_closed_form(self) -> None:
        # (1 + 2)^2 and (-1 + 1)^2 over 2 pairs; a square of the difference would give (1 + 4) / 2.
        loss = centering_loss(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 1.0]), n_pairs=2)
        assert loss.item() == 4.5

    def test_gradient_moves_both_scores_alike(self) -> None:
        chosen, rejected = torch.tensor([1.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)
        centering_loss(chosen, rejected, n_pairs=1).backward()
        assert chosen.grad is not None and rejected.grad is not None
        assert (chosen.grad.item(), rejected.grad.item()) == (6, 6)


@pytest.mark.parametrize("splits", [[[0, 1], [2, 3, 4]], [[4], [0, 1, 2, 3]], [[0], [1], [2], [3], [4]]])
def test_micro_batches_add_up_to_the_whole_batch(splits: list[list[int]]) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    margin = torch.tensor([1.0, 2 / 3, 1 / 3, 0.0, 0.0], dtype=torch.float64)
    safe = torch.tensor([True, False, False, True, True])
    labelled = torch.tensor([True, True, True, False, True])

    def run(parts: list[list[int]]) -> tuple[list[float], torch.Tensor]:
        trained = scores.clone().requires_grad_()
        totals = [0.0, 0.0, 0.0]
        for rows in parts:
            chosen, rejected = trained[0, rows], trained[1, rows]
            losses = [
                preference_loss(chosen - rejected - margin[rows], torch.ones_like(chosen), n_pairs=5),
                safety_loss(chosen, safe[rows], labelled[rows], n_pairs=5),
                centering_loss(chosen, rejected, n_pairs=5),
            ]
            (losses[0] + losses[1] + 0.01 * losses[2]).backward()
            totals = [total + loss.item() for total, loss in zip(totals, losses, strict=True)]
        assert trained.grad is not None
        return totals, trained.grad

    whole, whole_gradient = run([[0, 1, 2, 3, 4]])
    parts, gradient = run(splits)
    assert parts == pytest.approx(whole, abs=1e-12)
    torch.testing.assert_close(gradient, whole_gradient)


def test_a_normaliser_below_one_is_refused() -> None:
    one, yes = torch.ones(1), torch.ones(1, dtype=torch.bool)
    for call in (
        lambda: preference_loss(one, one, n_pairs=0),
        lambda: safety_loss(one, yes, yes, n_pairs=0),
        lambda: centering_loss(one, one, n_pairs=0),
    ):
        with pytest.raises(ValueError, match="n_pairs"):
            call()


def test_the_example_of_equation_2_is_what_the_code_computes() -> None:
    example = doctest.DocTestFinder().find(losses.reward_loss, "reward_loss", globs=vars(losses).copy())[0]
    assert len(example.examples) == 8
    assert doctest.DocTestRunner().run(example).failed == 0
