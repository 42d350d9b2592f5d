"""Agreement of annotators: published figures, hand arithmetic, a slow count of rater pairs, what must not matter."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, permutations
from typing import Literal

import numpy as np
import pytest
from quality_example import ANNOTATORS, example, judged, swap_sides
from scipy import stats

from annotation_ui import texts
from annotation_ui.quality.agreement import (
    Counts,
    Weights,
    agreement_with_others,
    choice_counts,
    cohen_kappas,
    grade_counts,
    gwet,
    identity_weights,
    krippendorff_alpha,
    mean_kappa,
    raw_agreement,
    safety_counts,
    weights_by_distance,
)
from annotation_ui.quality.judged_pairs import SIGNED_GRADES, JudgedPair, safety_of_answers, signed_grade
from annotation_ui.quality.quality_report import build_report

N = None
FOUR_RATERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, N),
    (N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 3),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N),
)
"""12 units, 5 categories: Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C; Gwet,
Handbook of Inter-Rater Reliability, 4th edition (2014), page 120. Gwet's figures below are those of his R package
irrCAC on the same data (``cac.raw4raters``)."""
TWO_RATERS = ((13, 0, 0), (0, 20, 7), (0, 4, 56))
"""100 patients, 3 categories: Gwet (2014), ``cont3x3abstractors`` of irrCAC."""


def four_raters() -> Counts:
    counts = np.zeros((12, 5), dtype=np.int64)
    for ratings in FOUR_RATERS:
        for unit, rating in enumerate(ratings):
            if rating is not None:
                counts[unit, rating - 1] += 1
    return counts


def two_raters() -> Counts:
    cells = [(first, second) for first, row in enumerate(TWO_RATERS) for second, n in enumerate(row) for _ in range(n)]
    counts = np.zeros((len(cells), 3), dtype=np.int64)
    for unit, both in enumerate(cells):
        for category in both:
            counts[unit, category] += 1
    return counts


@pytest.mark.parametrize(
    ("power", "value", "low", "high"), [(None, 0.775, 0.461, 1), (1, 0.859, 0.600, 1), (2, 0.914, 0.685, 1)]
)
def test_gwet_with_missing_ratings_as_published(
    power: Literal[1, 2] | None, value: float, low: float, high: float
) -> None:
    weights = identity_weights(5) if power is None else weights_by_distance((1, 2, 3, 4, 5), power=power)
    found = gwet(four_raters(), weights)
    assert found.value == pytest.approx(value, abs=5e-4)
    assert found.ci95 == pytest.approx((low, high), abs=5e-4)
    assert found.n == 11  # the twelfth unit has one rating


@pytest.mark.parametrize(
    ("power", "value", "low", "high"), [(None, 0.849, 0.764, 0.935), (1, 0.900, 0.842, 0.958), (2, 0.940, 0.905, 0.976)]
)
def test_gwet_of_two_raters_as_published(power: Literal[1, 2] | None, value: float, low: float, high: float) -> None:
    weights = identity_weights(3) if power is None else weights_by_distance((1, 2, 3), power=power)
    found = gwet(two_raters(), weights)
    assert found.value == pytest.approx(value, abs=5e-4)
    # His routine for two raters divides the variance by n, the one for any number by n - 1.
    assert found.ci95 == pytest.approx((low, high), abs=1e-3)
    assert raw_agreement(two_raters()).value == pytest.approx(0.89)


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorff_as_published(level: Literal["nominal", "ordinal", "interval"], value: float) -> None:
    found = krippendorff_alpha(four_raters(), (1, 2, 3, 4, 5), level)
    assert found.value == pytest.approx(value, abs=5e-4)
    assert found.n == 11


def test_ac2_of_signed_grades_by_hand() -> None:
    """Two pairs, rated 4 and 4, and 1 and -1: p_a = (1 + 60/64) / 2, sum pi (1 - pi) = 5/8, T_w = 49; 27/29."""
    rows = [judged("p", "x", 4), judged("p", "y", 4), judged("q", "x", 1), judged("q", "y", -1)]
    weights = weights_by_distance(SIGNED_GRADES, power=2)
    assert weights.sum() == pytest.approx(49)
    assert gwet(grade_counts(rows), weights).value == pytest.approx(27 / 29)
    # Linear: the second pair earns 6/8. T_w = 64 - (sum over all pairs of categories of their distance) / 8.
    distances = sum(abs(one - other) for one in SIGNED_GRADES for other in SIGNED_GRADES)
    chance = (64 - distances / 8) / 56 * 5 / 8
    assert gwet(grade_counts(rows), weights_by_distance(SIGNED_GRADES, power=1)).value == pytest.approx(
        (7 / 8 - chance) / (1 - chance)
    )


def slow_gwet(ratings: Sequence[Sequence[int]], categories: Sequence[int], credit: Weights) -> float:
    """AC2 from lists of ratings: every ordered couple of raters by itself, in exact fractions."""
    weight = {
        (one, other): Fraction(float(credit[i, j])).limit_denominator(10**6)
        for i, one in enumerate(categories)
        for j, other in enumerate(categories)
    }
    agreed = []
    for given in ratings:
        couples = list(permutations(range(len(given)), 2))
        if couples:
            agreed.append(sum(weight[given[i], given[j]] for i, j in couples) / Fraction(len(couples)))
    observed = sum(agreed) / Fraction(len(agreed))
    chance = Fraction(0)
    for category in categories:
        shares = [Fraction(list(given).count(category), len(given)) for given in ratings]
        prevalence = sum(shares, Fraction(0)) / len(ratings)
        chance += prevalence * (1 - prevalence)
    chance *= sum(weight.values()) / Fraction(len(categories) * (len(categories) - 1))
    return float((observed - chance) / (1 - chance))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("power", [1, 2])
def test_ac2_is_what_a_slow_count_of_rater_pairs_gives(seed: int, power: Literal[1, 2]) -> None:
    rng = random.Random(seed)
    rows, ratings = [], []
    for number in range(30):
        given = [rng.choice(SIGNED_GRADES[number % 4 :]) for _ in range(rng.randint(1, 5))]
        ratings.append(given)
        rows += [judged(f"p{number}", f"x{place}", grade) for place, grade in enumerate(given)]
    weights = weights_by_distance(SIGNED_GRADES, power=power)
    assert gwet(grade_counts(rows), weights).value == pytest.approx(slow_gwet(ratings, SIGNED_GRADES, weights))
    assert gwet(grade_counts(rows), identity_weights(8)).value == pytest.approx(
        slow_gwet(ratings, SIGNED_GRADES, identity_weights(8))
    )


@pytest.mark.parametrize("seed", range(3))
def test_raw_agreement_is_what_a_slow_count_gives(seed: int) -> None:
    rng = random.Random(seed)
    shares, rows = [], []
    for number in range(25):
        given = [rng.choice((2, 2, -1)) for _ in range(rng.randint(1, 4))]
        rows += [judged(f"p{number}", f"x{place}", grade) for place, grade in enumerate(given)]
        couples = list(combinations(given, 2))
        if couples:
            shares.append(sum(one == other for one, other in couples) / len(couples))
    found = raw_agreement(choice_counts(rows))
    assert (found.value, found.n) == (pytest.approx(sum(shares) / len(shares)), len(shares))


def test_raw_agreement_of_two_has_wilsons_interval() -> None:
    rows = [judged(f"p{number}", who, -2 if number < 3 and who == "y" else 2) for number in range(10) for who in "xy"]
    found, wilson = raw_agreement(choice_counts(rows)), stats.binomtest(7, 10).proportion_ci(method="wilson")
    assert found.value == pytest.approx(0.7)
    assert found.ci95 == pytest.approx((wilson.low, wilson.high))


def test_signed_grade_says_slot_and_strength() -> None:
    found = {(row.choice, row.grade): signed_grade(row) for row in (judged("p", "x", grade) for grade in SIGNED_GRADES)}
    assert found["a", "significantly_better"] == 4
    assert found["a", "negligibly_better"] == 1
    assert found["b", "negligibly_better"] == -1
    assert found["b", "significantly_better"] == -4
    assert sorted(found.values()) == list(SIGNED_GRADES)


def test_safety_is_compared_answer_by_answer() -> None:
    """Who chose the safe a, and who chose the unsafe b, say the same; the words alone would disagree."""
    chose_safe = judged("p", "x", 2, safety="preferred_safe_other_unsafe")
    chose_unsafe = judged("p", "y", -2, safety="preferred_unsafe_other_safe")
    assert safety_of_answers(chose_safe) == safety_of_answers(chose_unsafe) == 2
    assert safety_of_answers(judged("p", "y", -2, safety="preferred_safe_other_unsafe")) == 1
    assert [safety_of_answers(judged("p", "x", safety=name)) for name in ("both_unsafe", "both_safe")] == [0, 3]
    assert safety_of_answers(judged("p", "x")) is None
    counts = safety_counts([chose_safe, chose_unsafe, judged("q", "x")])
    assert counts.tolist() == [[0, 0, 2, 0]]
    assert raw_agreement(counts).value == 1


def test_ac1_of_safety_by_hand() -> None:
    """Pairs rated (both, both) and (both, neither): p_a 1/2, pi 3/4 and 1/4, p_e = (3/16 + 3/16) / 3 = 1/8; 3/7."""
    rows = [judged("p", who, safety="both_safe") for who in "xy"]
    rows += [judged("q", "x", safety="both_safe"), judged("q", "y", safety="both_unsafe")]
    assert gwet(safety_counts(rows), identity_weights(4)).value == pytest.approx(3 / 7)


def kappa_rows(n: int = 1) -> list[JudgedPair]:
    """The two raters of Cohen's kappa's textbook table 20, 5, 10, 15: kappa 0.4."""
    cells = [(2, 2)] * 20 * n + [(2, -2)] * 5 * n + [(-2, 2)] * 10 * n + [(-2, -2)] * 15 * n
    return [judged(f"p{place}", who, cell[who == "y"]) for place, cell in enumerate(cells) for who in "xy"]


def test_cohens_kappa_by_hand() -> None:
    """p_o = 35/50, p_e = (25/50)(30/50) + (25/50)(20/50) = 1/2."""
    (found,) = cohen_kappas(kappa_rows())
    assert (found.first, found.second, found.n, found.value) == ("x", "y", 50, pytest.approx(0.4))


def test_kappa_wants_enough_pairs_and_is_averaged_by_them() -> None:
    always = [judged(f"q{place}", who, sign * 2) for place, sign in enumerate([1, -1] * 15) for who in "vw"]
    few = [judged(f"r{place}", who) for place in range(19) for who in "st"]
    kappas = cohen_kappas([*kappa_rows(), *always, *few])
    assert [(kappa.first, kappa.second, kappa.n) for kappa in kappas] == [("v", "w", 30), ("x", "y", 50)]
    found = mean_kappa(kappas)
    assert found.value == pytest.approx((30 * 1.0 + 50 * 0.4) / 80)
    assert found.n == 2


def test_kappa_of_people_who_never_vary_is_left_out() -> None:
    same = [judged(f"q{place}", who) for place in range(25) for who in "xy"]
    (kappa,) = cohen_kappas(same)
    assert kappa.value is None
    assert mean_kappa([kappa]).missing == texts.NO_VARIATION
    assert mean_kappa(cohen_kappas([])).missing == texts.NO_OVERLAP


def test_agreement_with_others_by_hand() -> None:
    rows = [judged("p", "x", 1), judged("p", "y", 4), judged("p", "z", -1), judged("q", "x", 2), judged("q", "z", 2)]
    found = agreement_with_others([*rows, judged("r", "w")])
    assert {who: measure.value for who, measure in found.items()} == {"x": 0.75, "y": 0.5, "z": 0.5, "w": None}
    assert [found[who].n for who in "xyzw"] == [2, 1, 2, 0]


def test_one_rating_tells_of_chance_but_not_of_agreement() -> None:
    shared = [judged("p", "x", 2), judged("p", "y", 2), judged("q", "x", 2), judged("q", "y", -2)]
    alone = [judged(f"r{number}", "x", 2) for number in range(6)]
    without, with_them = (choice_counts(rows) for rows in (shared, [*shared, *alone]))
    assert raw_agreement(without) == raw_agreement(with_them)
    # p_e = pi_a pi_b * 2 / (2 * 1) * 2: 3/4 * 1/4 * 2 = 3/8 without; pi_a = 7.5/8 with, 15/128.
    assert gwet(without, identity_weights(2)).value == pytest.approx((1 / 2 - 3 / 8) / (5 / 8))
    assert gwet(with_them, identity_weights(2)).value == pytest.approx((1 / 2 - 15 / 128) / (113 / 128))


# -- what must not matter ----------------------------------------------------------------------------------------------


def test_sides_do_not_change_agreement() -> None:
    rows = example(200)
    rng = random.Random(1)
    swapped = [swap_sides(row) if rng.random() < 0.5 else row for row in rows]
    before, after = build_report(rows).overall, build_report(swapped).overall
    assert before.agreement == after.agreement
    assert before.work.left != after.work.left
    everything = build_report([swap_sides(row) for row in rows]).overall.work
    assert everything.left.value == pytest.approx(1 - (before.work.left.value or 0))


def test_names_of_slots_do_not_change_agreement() -> None:
    rows = example(200)
    renamed = [replace(swap_sides(row), choice="b" if row.choice == "a" else "a") for row in rows]
    before, after = build_report(rows).overall, build_report(renamed).overall
    for key in ("choice", "kappa", "alpha_choice", "alpha_grade", "ac2_grade", "ac2_grade_linear", "ac1_safety"):
        one, other = getattr(before.agreement, key), getattr(after.agreement, key)
        assert (one.value, one.n) == (pytest.approx(other.value), other.n), key
        assert (one.ci95 or ()) == pytest.approx(other.ci95 or ()), key
    assert before.work.left == after.work.left


def test_order_and_names_of_annotators_do_not_change_agreement() -> None:
    rows = example(150)
    other_names = {name: f"z{place}" for place, name in enumerate(reversed(ANNOTATORS))}
    shuffled = [replace(row, annotator=other_names[row.annotator]) for row in rows]
    random.Random(2).shuffle(shuffled)
    before, after = build_report(rows).overall.agreement, build_report(shuffled).overall.agreement
    for key in ("choice", "kappa", "alpha_choice", "alpha_grade", "ac2_grade", "ac1_safety"):
        assert getattr(before, key).value == pytest.approx(getattr(after, key).value), key


# -- where there is little or nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [judged("p", "x")],
        [judged(f"p{n}", "x", n % 2 or -1) for n in range(5)],
        [judged("p", "x"), judged("q", "y")],
    ],
    ids=["nothing", "one", "one annotator", "no pair in common"],
)
def test_without_overlap_there_is_no_value_and_a_reason(rows: list[JudgedPair]) -> None:
    choices, grades = choice_counts(rows), grade_counts(rows)
    found = [
        raw_agreement(choices),
        krippendorff_alpha(choices, (0, 1), "nominal"),
        krippendorff_alpha(grades, SIGNED_GRADES, "ordinal"),
        gwet(grades, weights_by_distance(SIGNED_GRADES, power=2)),
        mean_kappa(cohen_kappas(rows)),
    ]
    assert {(measure.value, measure.n, measure.ci95, measure.missing) for measure in found} == {
        (None, 0, None, texts.NO_OVERLAP)
    }


def test_equal_ratings_agree_but_leave_alpha_open() -> None:
    rows = [judged(f"p{number}", who, 3) for number in range(4) for who in "xyz"]
    choices, grades = choice_counts(rows), grade_counts(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alpha = krippendorff_alpha(choices, (0, 1), "nominal")
        ac2 = gwet(grades, weights_by_distance(SIGNED_GRADES, power=2))
        raw = raw_agreement(choices)
    assert (alpha.value, alpha.missing) == (None, texts.NO_VARIATION)
    assert (ac2.value, ac2.ci95) == (1, None)  # no two pairs differ: nothing to tell an interval from
    assert raw.value == 1
    assert raw.ci95 is not None and raw.ci95[0] == pytest.approx(4 / (4 + stats.norm.ppf(0.975) ** 2))


def test_a_second_judgment_of_the_same_annotator_counts_once() -> None:
    rows = [judged("p", "x", 2), judged("p", "x", -4), judged("p", "y", -4)]
    assert choice_counts(rows).tolist() == [[0, 2]]
