"""Figures of reward models against hand arithmetic, closed forms and slow loops. No torch, no model."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from reward_example import example_pairs, scored_pair
from scipy import stats

from alignment.data.records import GRADES
from alignment.errors import UserError
from alignment.figures import intervals
from alignment.figures.calibration import BINS, preference_probability, reliability
from alignment.figures.intervals import bootstrap
from alignment.figures.pair_accuracy import ScoredPair, accuracy
from alignment.figures.reward_model_figures import agreement, cross_table, length_figures, reward_figures, side_by_side
from alignment.figures.unsafe_detection import best_threshold, labelled_answers, unsafe_detection

GATE = 0.15


def of_differences(*differences: float, **changes: object) -> list[ScoredPair]:
    """Pairs whose chosen answers score this much more than the rejected ones."""
    return [scored_pair(number, chosen=value, rejected=0.0, **changes) for number, value in enumerate(differences)]


def width(figure: intervals.Figure | None) -> float:
    assert figure is not None
    return figure["ci95"][1] - figure["ci95"][0]


class TestResampling:
    def test_a_share_is_resampled_unless_resamples_cannot_differ(self) -> None:
        values = [1.0] * 30 + [0.0] * 10
        assert intervals.resampled_share(values, seed=1) == intervals.mean_interval(values, seed=1)
        for same in ([1.0] * 20, [0.0] * 20, [0.5] * 20):
            assert intervals.resampled_share(same, seed=1) == intervals.share(same)
        lone = intervals.resampled_share([1, 1, 1, 0], clusters=["a"] * 4, seed=1)
        assert lone["ci95"] == intervals.proportion(0.75, 1)["ci95"]

    def test_rank_correlation_is_spearmans(self) -> None:
        chance = np.random.default_rng(0)
        x = chance.normal(size=200).round(1)  # with ties
        y = np.exp(x) + chance.normal(size=200)
        figure = intervals.rank_correlation(x, y, seed=0)
        assert figure is not None and figure["value"] == pytest.approx(stats.spearmanr(x, y).statistic)
        assert intervals.rank_correlation(x, np.exp(5 * x), seed=0)["value"] == pytest.approx(1.0)  # type: ignore[index]
        assert intervals.rank_correlation([1, 2, 3], [4, 4, 4], seed=0) is None

    def test_large_data_is_drawn_in_parts_with_the_same_result(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.random.default_rng(0).normal(size=50)
        whole = intervals.mean_interval(values, seed=3)
        monkeypatch.setattr("alignment.figures.intervals.DRAWN_AT_ONCE", 50 * 7)
        assert intervals.mean_interval(values, seed=3) == whole

    def test_resamples_that_leave_the_statistic_undefined_are_dropped(self) -> None:
        value, draws = bootstrap([[1, 0, 0], [1, 0, 0]], lambda t: t[..., 0] / t[..., 1], seed=0)
        assert value == 1 and 500 < len(draws) < 1000 and set(draws) == {1.0}


class TestAccuracy:
    PAIRS = (
        scored_pair(0, grade="significantly_better", chosen=2.0),
        scored_pair(1, grade="better", chosen=-1.0, turns=2),
        scored_pair(2, grade="better", chosen=0.0, turns=2, dimension="safety"),
        scored_pair(3, grade=None, chosen=1.0, turns=11, chosen_safe=True, rejected_safe=False),
        scored_pair(4, grade=None, chosen=-3.0, turns=11, chosen_safe=False, rejected_safe=False),
    )

    def figures(self) -> dict[str, object]:
        return reward_figures(self.PAIRS, seed=0, threshold_probability=GATE)

    def test_by_grade_turn_dimension_and_safety(self) -> None:
        found = self.figures()

        def value(block: str, part: str) -> tuple[float, int] | None:
            figure = found[block][part]  # type: ignore[index]
            return figure and (figure["value"], figure["n"])

        assert set(found["accuracy"]) == {"all", *GRADES}  # type: ignore[call-overload]
        assert value("accuracy", "all") == (2.5 / 5, 5)
        assert value("accuracy", "better") == (0.25, 2)
        assert value("accuracy", "negligibly_better") is None
        assert list(found["accuracy_by_turn"]) == ["1", "2", "11"]  # type: ignore[call-overload]
        assert value("accuracy_by_turn", "2") == (0.25, 2)
        assert value("accuracy_by_dimension", "helpfulness") == (0.5, 4)
        assert value("accuracy_by_safety_bin", "preferred_safe_other_unsafe") == (1.0, 1)
        assert value("accuracy_by_safety_bin", "both_unsafe") == (0.0, 1)
        assert value("accuracy_by_safety_bin", "both_safe") is None

    def test_all_right_has_wilsons_interval(self) -> None:
        figure = accuracy(of_differences(*[1.0] * 12), seed=0)
        assert figure is not None and figure["ci95"] == intervals.proportion(12, 12)["ci95"]

    def test_judgments_of_one_pair_are_one_cluster(self) -> None:
        """Ten judgments of each pair that all agree: as sure as one of each, not a third as unsure."""
        once = example_pairs(80, noise=0.8)
        often = [replace(pair, id=f"{pair.id}-{copy}") for pair in once for copy in range(10)]
        apart = [replace(pair, conversation_id=pair.id) for pair in often]
        assert width(accuracy(often, seed=0)) == pytest.approx(width(accuracy(once, seed=0)), rel=0.15)
        assert width(accuracy(apart, seed=0)) < 0.5 * width(accuracy(often, seed=0))
        for key in ("ece", "brier", "log_loss", "mean_confidence"):
            blocks = [
                reliability([p.chosen - p.rejected for p in pairs], [p.conversation_id for p in pairs], seed=0)
                for pairs in (often, apart)
            ]
            assert width(blocks[0][key]) > 1.4 * width(blocks[1][key]), key

    def test_the_order_of_the_pairs_does_not_matter(self) -> None:
        pairs = example_pairs(60, safety=True, noise=0.5, judgments=2)
        shuffled = random.Random(0).sample(pairs, len(pairs))
        one, other = (reward_figures(order, seed=0, threshold_probability=GATE) for order in (pairs, shuffled))
        assert one["accuracy"] == other["accuracy"] and one["length"] == other["length"]
        assert one["reliability"]["ece"]["ci95"] == pytest.approx(other["reliability"]["ece"]["ci95"])
        assert one["unsafe_detection"]["at_gate"] == other["unsafe_detection"]["at_gate"]

    @pytest.mark.parametrize(("side", "score"), [("chosen", math.nan), ("rejected", math.inf)])
    def test_a_score_that_is_no_number_names_pair_and_answer(self, side: str, score: float) -> None:
        pairs = [*of_differences(1.0, 2.0), scored_pair(7, **{side: score})]
        with pytest.raises(UserError, match=f"pair c7: the score of its {side} answer is {score}"):
            reward_figures(pairs, seed=0, threshold_probability=GATE)
        with pytest.raises(ValueError, match="no pairs"):
            reward_figures([], seed=0, threshold_probability=GATE)

    def test_histograms_share_their_edges(self) -> None:
        pairs = of_differences(-2.0, 0.5, 4.0)
        found = reward_figures(pairs, seed=0, threshold_probability=GATE)["score_histograms"]
        assert found["chosen"]["edges"] == found["rejected"]["edges"]
        assert (found["chosen"]["edges"][0], found["chosen"]["edges"][-1]) == (-2.0, 4.0)
        assert sum(found["chosen"]["counts"]) == sum(found["rejected"]["counts"]) == 3
        assert max(found["rejected"]["counts"]) == 3  # all score 0


class TestLength:
    def test_balanced_accuracy_by_hand(self) -> None:
        """Longer: 3 of 4 right. Shorter: 1 of 2. Equal: 0 of 1. Together 4 of 7, balanced (3/4 + 1/2) / 2."""
        longer = of_differences(1, 1, 1, -1, chosen_tokens=9)
        shorter = of_differences(1, -1, chosen_tokens=2)
        same = of_differences(-1, chosen_tokens=5)
        figures = length_figures([*longer, *shorter, *same], seed=0)
        values = {name: figure and (figure["value"], figure["n"]) for name, figure in figures.items()}
        assert values == {
            "share_chosen_longer": (4 / 6, 6),
            "chosen_longer": (3 / 4, 4),
            "chosen_shorter": (1 / 2, 2),
            "same_length": (0.0, 1),
            "balanced": (0.625, 6),
        }

    def test_a_model_that_measures_length_gets_one_half(self) -> None:
        chance = np.random.default_rng(0)
        pairs = []
        for number in range(300):
            long, short = int(chance.integers(30, 60)), int(chance.integers(1, 30))
            a, b = (long, short) if chance.random() < 0.8 else (short, long)
            pairs.append(scored_pair(number, chosen=float(a), rejected=float(b), chosen_tokens=a, rejected_tokens=b))
        found = reward_figures(pairs, seed=0, threshold_probability=GATE)
        assert found["accuracy"]["all"]["value"] == pytest.approx(0.8, abs=0.06)
        assert found["length"]["share_chosen_longer"]["value"] == found["accuracy"]["all"]["value"]
        assert found["length_correlation"]["value"] == pytest.approx(1.0)
        balanced = found["length"]["balanced"]
        assert balanced["value"] == 0.5
        ends = [intervals.proportion(n, n)["ci95"][0] / 2 for n in (240, 60)]  # resamples cannot differ: Wilson's
        assert balanced["ci95"][0] == pytest.approx(sum(ends) / 2, abs=0.05)
        assert balanced["ci95"][0] < 0.5 < balanced["ci95"][1]

    def test_without_shorter_chosen_answers_there_is_no_balance(self) -> None:
        figures = length_figures(of_differences(1, -1, chosen_tokens=9), seed=0)
        assert figures["balanced"] is figures["chosen_shorter"] is figures["same_length"] is None


class TestReliability:
    def test_by_hand(self) -> None:
        """Probabilities 0.82 (three times, once wrong), 0.62, and a tie: bins 0.8 to 0.85, 0.6 to 0.65, 0.5 to 0.55."""
        sure, less_sure = math.log(0.82 / 0.18), math.log(0.62 / 0.38)
        block = reliability([sure, sure, -sure, less_sure, 0.0], list("abcde"), seed=0)
        gaps = [3 * (0.82 - 2 / 3), 1 - 0.62, 0.5 - 0.5]
        assert block["ece"]["value"] == pytest.approx(sum(gaps) / 5)
        assert block["mean_confidence"]["value"] == pytest.approx((3 * 0.82 + 0.62 + 0.5) / 5)
        assert block["brier"]["value"] == pytest.approx((2 * 0.18**2 + 0.82**2 + 0.38**2 + 0.5**2) / 5)
        log_loss = -(2 * math.log(0.82) + math.log(0.18) + math.log(0.62) + math.log(0.5)) / 5
        assert block["log_loss"]["value"] == pytest.approx(log_loss)
        filled = {item["low"]: item for item in block["by_confidence"] if item["accuracy"]}
        assert list(filled) == [0.5, 0.6, 0.8]
        assert filled[0.5]["accuracy"]["value"] == 0.5
        assert filled[0.8]["accuracy"]["value"] == pytest.approx(2 / 3) and filled[0.8]["accuracy"]["n"] == 3
        assert filled[0.8]["confidence"] == pytest.approx(0.82)
        assert [block["by_confidence"][0]["low"], block["by_confidence"][-1]["high"], len(block["by_confidence"])] == [
            0.5,
            1.0,
            BINS,
        ]

    def test_a_slow_loop_agrees(self) -> None:
        differences = np.random.default_rng(0).normal(0.4, 2.0, 300)
        bins: dict[int, list[tuple[float, float]]] = {}
        for value in differences:
            confidence = 1 / (1 + math.exp(-abs(value)))
            bins.setdefault(min(int((confidence - 0.5) / 0.05), 9), []).append((confidence, float(value > 0)))
        gaps = [abs(sum(c for c, _ in rows) - sum(r for _, r in rows)) for rows in bins.values()]
        block = reliability(differences, list(range(300)), seed=0)
        assert block["ece"]["value"] == pytest.approx(sum(gaps) / 300)

    @staticmethod
    def truth(scale: float) -> float:
        """The error of differences ``scale`` times the true ones, by integration: qualities are standard normal."""
        true = np.abs(np.random.default_rng(9).normal(0, math.sqrt(2), 400_000))
        right, confidence = (1 / (1 + np.exp(-factor * true)) for factor in (1.0, scale))
        return float(np.abs(right - confidence).mean())  # of one sign, so that bins do not matter

    def test_calibrated_people_and_model_have_a_small_error_and_doubled_scores_a_known_one(self) -> None:
        blocks = {}
        for scale in (1.0, 2.0):
            differences = [pair.chosen - pair.rejected for pair in example_pairs(3000, seed=1, scale=scale)]
            blocks[scale] = reliability(differences, list(range(3000)), seed=0)
        calibrated, doubled = blocks[1.0], blocks[2.0]
        assert calibrated["ece"]["value"] < 0.03
        assert calibrated["ece"]["ci95"][0] == 0.0
        assert calibrated["ece"]["value"] < calibrated["ece_if_calibrated"]["ci95"][1]
        expected = self.truth(2.0)
        assert expected > 0.09
        assert doubled["ece"]["value"] == pytest.approx(expected, abs=0.025)
        assert doubled["ece"]["ci95"][0] < expected < doubled["ece"]["ci95"][1]
        assert doubled["ece"]["value"] > 3 * doubled["ece_if_calibrated"]["ci95"][1]
        assert doubled["brier"]["value"] > calibrated["brier"]["value"]
        assert doubled["log_loss"]["value"] > calibrated["log_loss"]["value"]

    def test_extreme_differences_overflow_nowhere(self) -> None:
        assert preference_probability([-1e4, 0.0, 1e4]).tolist() == [0.0, 0.5, 1.0]
        block = reliability([1e4, -1e4], ["a", "b"], seed=0)
        assert block["brier"]["value"] == 0.5 and block["log_loss"]["value"] == pytest.approx(5e3)
        assert block["ece"]["value"] == 0.5


def labelled(scores: list[float], unsafe: list[bool]) -> list[ScoredPair]:
    """Pairs whose chosen answers have these scores and labels; the rejected ones have none."""
    return [
        scored_pair(number, chosen=score, chosen_safe=not flag)
        for number, (score, flag) in enumerate(zip(scores, unsafe, strict=True))
    ]


class TestDetection:
    def test_precision_and_recall_by_hand(self) -> None:
        """Below 0.5: two unsafe, one safe. Below 0.15 (-1.73): one unsafe. Of three unsafe answers."""
        pairs = labelled([-3.0, -1.0, -0.5, 0.0, 2.0], [True, False, True, True, False])
        found = unsafe_detection(pairs, seed=0, threshold_probability=GATE)
        assert found is not None
        assert found["base_rate"]["value"] == 3 / 5
        half, gate = found["at_half"], found["at_gate"]
        assert (half["probability"], half["logit"]) == (0.5, 0.0)
        assert (half["precision"]["value"], half["precision"]["n"]) == (pytest.approx(2 / 3), 3)
        assert (half["recall"]["value"], half["recall"]["n"]) == (pytest.approx(2 / 3), 3)  # 0.0 is not below 0.0
        assert gate["logit"] == pytest.approx(-1.7346, abs=1e-4) and gate["probability"] == pytest.approx(0.15)
        assert (gate["precision"]["value"], gate["recall"]["value"]) == (1.0, pytest.approx(1 / 3))

    def test_nothing_flagged_nothing_unsafe_nothing_labelled(self) -> None:
        high = unsafe_detection(labelled([3.0, 4.0], [True, False]), seed=0, threshold_probability=GATE)
        assert high is not None and high["at_half"]["precision"] is None and high["at_half"]["recall"]["value"] == 0
        safe = unsafe_detection(labelled([-3.0, 4.0], [False, False]), seed=0, threshold_probability=GATE)
        assert safe is not None and safe["at_half"]["recall"] is None and safe["curve"] is None
        assert safe["at_paper_precision"] is None and safe["at_half"]["precision"]["value"] == 0
        assert unsafe_detection(of_differences(1.0), seed=0, threshold_probability=GATE) is None

    def test_an_answer_counts_once_and_the_majority_labels_it(self) -> None:
        judged = [(False, True), (True, True), (False, False)]
        pairs = [
            scored_pair(number, conversation_id="d", chosen=-1.0, rejected=1.0, chosen_safe=one, rejected_safe=two)
            for number, (one, two) in enumerate(judged)
        ]
        pairs = [replace(pair, chosen_key="a", rejected_key="b") for pair in pairs]
        found = labelled_answers(pairs)
        assert found.scores.tolist() == [-1.0, 1.0]
        assert found.unsafe.tolist() == [True, False]
        tie = labelled_answers(pairs[:2])
        assert tie.unsafe.tolist() == [True, False]  # one judgment each way: unsafe
        swapped = replace(pairs[0], chosen_key="b", rejected_key="a", chosen=1.0, rejected=-1.0, chosen_safe=True)
        assert labelled_answers([*pairs, swapped]).scores.tolist() == [-1.0, 1.0]
        apart = [replace(pair, chosen_key=None, rejected_key=None) for pair in pairs]
        assert len(labelled_answers(apart).scores) == 6

    @pytest.mark.parametrize("seed", range(6))
    def test_the_threshold_is_that_of_a_slow_search(self, seed: int) -> None:
        chance = np.random.default_rng(seed)
        unsafe = chance.random(60) < 0.4
        scores = (chance.normal(0, 1, 60) - 1.3 * unsafe).round(1)  # with ties
        best: tuple[float, float] | None = None
        for limit in sorted({*scores.tolist(), 99.0}):
            flagged = scores < limit
            hits = int((flagged & unsafe).sum())
            if hits and hits / flagged.sum() >= 0.8:
                found = (hits / unsafe.sum(), -float(flagged.sum()))
                best = found if best is None else max(best, found)
        threshold = best_threshold(scores, unsafe, precision=0.8)
        if best is None:
            assert threshold is None
        else:
            assert threshold is not None
            flagged = scores < threshold
            assert ((flagged & unsafe).sum() / unsafe.sum(), -flagged.sum()) == pytest.approx(best)
            assert threshold not in scores

    def test_a_precision_out_of_reach_has_no_threshold(self) -> None:
        found = unsafe_detection(labelled([1.0, 2.0, 3.0], [False, True, False]), seed=0, threshold_probability=GATE)
        assert found is not None and found["at_paper_precision"] is None
        everything = best_threshold(np.array([1.0, 2.0]), np.array([True, True]), precision=0.89)
        assert everything is not None and everything > 2.0

    def test_the_curve_runs_from_nothing_to_everything_flagged(self) -> None:
        pairs = labelled([-3.0, -1.0, -0.5, 0.0, 2.0], [True, False, True, True, False])
        curve = unsafe_detection(pairs, seed=0, threshold_probability=GATE)["curve"]  # type: ignore[index]
        assert curve["logit"] == sorted(curve["logit"]) and 0.0 in curve["logit"]
        assert (curve["precision"][0], curve["recall"][0]) == (None, 0.0)
        assert (curve["precision"][-1], curve["recall"][-1]) == (3 / 5, 1.0)
        assert curve["recall"] == sorted(curve["recall"])
        at_half = curve["logit"].index(0.0)
        assert (curve["precision"][at_half], curve["recall"][at_half]) == pytest.approx((2 / 3, 2 / 3))


class TestSideBySide:
    def test_agreement_by_hand(self) -> None:
        """Same, same, opposite, and one model undecided: (1 + 1 + 0 + 0.5) / 4."""
        first, second = of_differences(1, -2, 3, 0), of_differences(4, -1, -1, 2)
        found = agreement(first, second, seed=0)
        assert found["same_preference"] is not None and found["same_preference"]["value"] == 2.5 / 4
        expected = stats.spearmanr([1, -2, 3, 0], [4, -1, -1, 2]).statistic
        assert found["rank_correlation"] is not None
        assert found["rank_correlation"]["value"] == pytest.approx(expected)

    def test_a_model_agrees_with_itself_and_other_pairs_are_refused(self) -> None:
        pairs = example_pairs(50)
        found = agreement(pairs, [replace(p, chosen=3 * p.chosen, rejected=3 * p.rejected) for p in pairs], seed=0)
        assert found["same_preference"] is not None and found["same_preference"]["value"] == 1.0
        assert found["rank_correlation"] is not None and found["rank_correlation"]["value"] == pytest.approx(1.0)
        with pytest.raises(ValueError, match="the same pairs"):
            agreement(pairs, pairs[::-1], seed=0)
        with pytest.raises(UserError, match="c0"):
            agreement(pairs, [replace(pairs[0], chosen=math.nan), *pairs[1:]], seed=0)

    def test_cross_table_has_a_row_for_every_model_and_set(self) -> None:
        sets = {"one": example_pairs(30), "two": example_pairs(20, safety=True)}
        scored = {"a": sets, "b": {name: [replace(p, chosen=-p.chosen) for p in part] for name, part in sets.items()}}
        found = side_by_side(scored, seed=0, threshold_probability=GATE)
        tables = cross_table(found["figures"])
        assert found["tables"] == tables
        assert [(row["model"], list(row["accuracy"])) for row in tables["overall"]] == [
            ("a", ["one", "two"]),
            ("b", ["one", "two"]),
        ]
        assert tables["overall"][0]["accuracy"]["two"] == accuracy(sets["two"], seed=0)
        assert [(row["model"], row["test_set"]) for row in tables["by_grade"]] == [
            ("a", "one"),
            ("a", "two"),
            ("b", "one"),
            ("b", "two"),
        ]
        assert set(tables["by_grade"][0]) == {"model", "test_set", "all", *GRADES}
        assert [(item["first"], item["second"], item["test_set"]) for item in found["agreement"]] == [
            ("a", "b", "one"),
            ("a", "b", "two"),
        ]
