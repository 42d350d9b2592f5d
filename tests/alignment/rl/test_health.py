"""PPO's health: each plant is found and nothing else is, healthy runs are left alone, each finding is told once."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from ppo_history import Rows, from_update, healthy

from alignment.errors import UserError
from alignment.rl.health.health_checks import CHECKS
from alignment.rl.health.health_history import HealthSettings
from alignment.rl.health.health_watch import HealthWatch, examine
from alignment.rl.ppo_metrics import repeated_ngrams
from alignment.run.stage_records import read_metrics
from alignment.settings.read_recipe import load_recipe

TOY = HealthSettings(batch_size_episodes=128, temperature=1.2, max_new_tokens=64)


def found(rows: Rows, settings: HealthSettings = TOY) -> list[str]:
    return [finding.check for finding in examine(rows, settings)]


# Name of the check, its severity, the update that shows it, a word of the cause, and what is planted.
PLANTS: list[tuple[str, str, tuple[int, int], str, Callable[[Rows], Rows]]] = [
    ("non-finite", "error", (9, 9), "overflowed", lambda r: from_update(r, 9, value__loss=math.nan)),
    ("non-finite", "error", (9, 9), "overflowed", lambda r: from_update(r, 9, objective__score=-math.inf)),
    (
        "first ratio",
        "error",
        (5, 5),
        "temperature than 1.2",
        lambda r: from_update(r, 5, policy__first_ratio_mean=0.97),
    ),
    ("first ratio", "error", (5, 5), "another adapter", lambda r: from_update(r, 5, policy__first_approx_kl=0.01)),
    (
        "negative KL",
        "error",
        (8, 8),
        "not drawn from the policy",
        lambda r: from_update(r, 8, objective__kl=-0.6, objective__kl_k3=0.4),
    ),
    (
        "KL blow-up",
        "warning",
        (20, 20),
        "steps are too large",
        lambda r: from_update(r, 20, objective__kl=8.0, objective__kl_k3=8.0),
    ),
    (
        "KL blow-up",
        "warning",
        (30, 44),
        "costs too little",
        lambda r: from_update(r, 2, objective__kl=lambda done: 14 * done, objective__kl_k3=lambda done: 14 * done),
    ),
    (
        "entropy collapse",
        "warning",
        (22, 40),
        "settled on a few answers",
        lambda r: from_update(r, 10, objective__entropy=lambda done: 0.45 * (1 - done)),
    ),
    (
        "value function",
        "warning",
        (24, 24),
        "another scale",
        lambda r: from_update(r, 15, value__explained_variance=-0.4),
    ),
    ("constant scores", "error", (12, 12), "same score", lambda r: from_update(r, 12, objective__score_std=0.0)),
    (
        "score saturation",
        "warning",
        (20, 44),
        "what is left is noise",
        lambda r: from_update(r, 5, objective__score_std=lambda done: 1.6 - 1.4 * done),
    ),
    (
        "length limit",
        "warning",
        (17, 22),
        "longer answers score higher",
        lambda r: from_update(
            r, 10, rollout__stop_rate=lambda done: 1 - 0.9 * done, rollout__length=lambda done: 20 + 4 * done
        ),
    ),
    (
        "length limit",
        "warning",
        (1, 1),
        "not learned to stop",
        lambda r: from_update(r, 1, rollout__stop_rate=0.5),
    ),
    (
        "length creep",
        "warning",
        (20, 44),
        "likes length",
        lambda r: from_update(
            r, 1, rollout__length=lambda done: 20 + 25 * done, objective__score=lambda done: 1 + done
        ),
    ),
    ("repetition", "warning", (30, 30), "loops", lambda r: from_update(r, 30, rollout__repetition=0.4)),
    ("repetition", "warning", (30, 30), "loops", lambda r: from_update(r, 30, rollout__repetition=0.2)),
    (
        "repetition",
        "warning",
        (30, 30),
        "loops",
        lambda r: from_update(from_update(r, 1, rollout__repetition=0.25), 30, rollout__repetition=0.35),
    ),
    (
        "zero advantages",
        "error",
        (7, 7),
        "do not reach",
        lambda r: from_update(r, 7, advantages__std=0.0, policy__grad_norm=0.0),
    ),
    ("zero policy gradient", "error", (6, 6), "frozen", lambda r: from_update(r, 6, policy__grad_norm=0.0)),
    ("clip fraction", "warning", (14, 14), "too far", lambda r: from_update(r, 14, policy__clip_fraction=0.45)),
]


@pytest.mark.parametrize(("check", "severity", "between", "cause", "plant"), PLANTS)
def test_each_plant_is_named_and_nothing_else(
    check: str, severity: str, between: tuple[int, int], cause: str, plant: Callable[[Rows], Rows]
) -> None:
    (finding,) = examine(plant(healthy()), TOY)
    assert finding.check == check
    assert finding.severity == severity
    assert between[0] <= finding.update <= between[1]
    assert cause in finding.likely_cause
    assert any(character.isdigit() for character in finding.what) or check == "non-finite"
    assert finding.what_to_do


def test_every_check_has_a_plant() -> None:
    assert {plant[0] for plant in PLANTS} == CHECKS.keys()


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_run_has_no_finding(seed: int) -> None:
    assert found(healthy(seed)) == []


def test_figures_are_in_the_words() -> None:
    rows = from_update(healthy(), 8, objective__kl=-0.6, objective__kl_k3=0.4)
    (finding,) = examine(rows, TOY)
    assert "-0.6 nats an answer by k1, over 128 answers" in finding.what and "0.4 by k3" in finding.what
    assert "-0.11 at most" in finding.what, "14 / 128"
    (finding,) = examine(from_update(healthy(), 5, policy__clip_fraction=0.45, policy__approx_kl=0.3), TOY)
    assert "45%" in finding.what and "0.3 nats" in finding.what
    (blowup,) = examine(from_update(healthy(), 20, objective__kl=8.0, objective__kl_k3=8.0, objective__beta=0.03), TOY)
    assert blowup.what_to_do.endswith("raise ppo.kl_beta (now 0.03)")
    line = str(finding)
    assert line.startswith("warning at update 5, clip fraction: 45%")
    assert finding.likely_cause in line and finding.what_to_do in line and "\n" not in line


class TestCauseDependsOnSettings:
    def test_dropout_is_named_where_there_is_some(self) -> None:
        rows = from_update(healthy(), 5, policy__first_ratio_mean=0.97)
        (finding,) = examine(rows, HealthSettings(batch_size_episodes=128, lora_dropout=0.05, max_new_tokens=64))
        assert "dropout" in finding.likely_cause and "model.lora.dropout=0" in finding.what_to_do

    def test_a_policy_that_waits_for_the_value_function_has_no_gradient(self) -> None:
        rows = healthy()
        for row in rows[:6]:
            row["policy/grad_norm"] = 0.0
        assert found(rows) == ["zero policy gradient"]
        assert found(rows, HealthSettings(batch_size_episodes=128, warmup_value_updates=6)) == []
        assert found(rows, HealthSettings(batch_size_episodes=128, warmup_value_updates=5)) == ["zero policy gradient"]

    def test_equal_scores_explain_zero_advantages(self) -> None:
        rows = from_update(healthy(), 12, objective__score_std=0.0, advantages__std=0.0)
        findings = {finding.check: finding for finding in examine(rows, TOY)}
        assert findings.keys() == {"constant scores", "zero advantages"}
        assert findings["zero advantages"].likely_cause == "all answers get the same score"

    def test_from_the_sections_of_a_recipe(self) -> None:
        recipe = load_recipe(overrides=["model.lora.dropout=0.1", "ppo.warmup_value_updates=3"])
        expected = HealthSettings(
            batch_size_episodes=128, temperature=1.2, max_new_tokens=64, lora_dropout=0.1, warmup_value_updates=3
        )
        assert HealthSettings.from_sections(recipe.ppo, recipe.model.lora) == expected


class TestNoiseIsNoFinding:
    def test_a_negative_estimate(self) -> None:
        rows = healthy()
        rows[1]["objective/kl"] = -0.04
        rows[2]["objective/kl"] = -0.1
        # Chance alone explains -14 / 128 = -0.109 at one update, and -14 / 256 = -0.055 with twice as many answers.
        assert found(rows) == []
        assert found(rows, HealthSettings(batch_size_episodes=256)) == ["negative KL"]

    def test_a_negative_estimate_of_the_first_update(self) -> None:
        rows = healthy()
        rows[0]["objective/kl"] = -0.1
        assert found(rows) == []

    def test_but_not_several_in_a_row(self) -> None:
        rows = from_update(healthy(), 2, objective__kl=-0.07)
        # The first is 0. Means so far, and what chance explains: -0.035 and -0.055 at update 2; -0.047 and -0.036 at 3,
        # which may be rounding; -0.0525 and -0.027 at 4.
        (finding,) = examine(rows, TOY)
        assert (finding.check, finding.update) == ("negative KL", 4)

    def test_chance_is_bounded_as_the_check_says(self) -> None:
        """Two far-apart policies over three tokens: the worst mean of 4 answers in 2,000, against exp(-n x)."""
        policy, reference = (0.7, 0.2, 0.1), (0.1, 0.3, 0.6)
        k1 = [math.log(p / q) for p, q in zip(policy, reference, strict=True)]
        draw = random.Random(0)
        means = [sum(draw.choices(k1, weights=policy, k=4)) / 4 for _ in range(2000)]
        for x in (0.2, 0.5, 1.0):
            assert 0 < sum(mean < -x for mean in means) / 2000 <= math.exp(-4 * x)

    def test_growth_from_zero_is_no_jump(self) -> None:
        rows = healthy()
        for number, row in enumerate(rows[:8]):
            row["objective/kl"] = row["objective/kl_k3"] = 0.01 * 2.0**number
        assert found(rows) == []

    def test_values_that_start_badly(self) -> None:
        rows = healthy()
        for row in rows[:9]:
            row["value/explained_variance"] = -3.0
        assert found(rows) == []

    def test_length_that_grows_without_reward_or_hardly(self) -> None:
        grown = from_update(healthy(), 1, rollout__length=lambda done: 20 + 25 * done, objective__score=1.5)
        assert found(grown) == []
        little = from_update(
            healthy(), 1, rollout__length=lambda done: 20 + 6 * done, objective__score=lambda done: 1 + done
        )
        assert found(little) == []

    def test_answers_that_repeat_themselves_from_the_start(self) -> None:
        assert found(from_update(healthy(), 1, rollout__repetition=0.25)) == []

    def test_a_collapse_is_not_told_before_start_and_present_are_apart(self) -> None:
        rows = from_update(healthy(), 2, objective__entropy=0.02)
        assert [(finding.check, finding.update) for finding in examine(rows, TOY)] == [("entropy collapse", 6)]

    def test_one_batch_of_uniform_answers(self) -> None:
        rows = healthy()
        rows[20] |= {"objective/entropy": 0.1, "objective/score_std": 0.5}
        assert found(rows) == []


class TestOnce:
    def test_until_it_has_recovered(self) -> None:
        rows = healthy()
        for update in (5, 6, 7, 12, 20, 21, 30):
            rows[update - 1]["policy/clip_fraction"] = 0.5
        # 12 comes four quiet updates after 7, which is no recovery; 20 comes seven after 12.
        assert [finding.update for finding in examine(rows, TOY)] == [5, 20, 30]

    def test_two_that_overlap_are_both_told(self) -> None:
        rows = from_update(healthy(), 10, policy__clip_fraction=0.5)
        from_update(rows, 12, rollout__repetition=0.6)
        assert [(finding.check, finding.update) for finding in examine(rows, TOY)] == [
            ("clip fraction", 10),
            ("repetition", 12),
        ]

    def test_online_says_the_same(self) -> None:
        rows = from_update(healthy(), 10, policy__clip_fraction=0.5, objective__entropy=0.05)
        watch = HealthWatch(TOY)
        online = [finding for row in rows for finding in watch.observe(row)]
        assert online == examine(rows, TOY)
        assert len(online) == 2

    def test_a_run_that_goes_on_does_not_tell_again(self) -> None:
        rows = from_update(healthy(), 10, policy__clip_fraction=0.5)
        from_update(rows, 30, rollout__repetition=0.6)
        resumed = HealthWatch(TOY, rows[:20])
        later = [finding for row in rows[20:] for finding in resumed.observe(row)]
        assert later == [finding for finding in examine(rows, TOY) if finding.update > 20]
        assert [finding.check for finding in later] == ["repetition"]


class TestMissingMetrics:
    @pytest.mark.parametrize("key", sorted(healthy()[0]))
    def test_one_less_is_no_finding(self, key: str) -> None:
        rows = healthy()
        for row in rows:
            del row[key]
        assert found(rows) == []

    def test_others_are_still_checked(self) -> None:
        rows = from_update(healthy(), 14, policy__clip_fraction=0.45)
        kept = [{"policy/clip_fraction": row["policy/clip_fraction"]} for row in rows]
        (finding,) = examine(kept, TOY)
        assert (finding.check, finding.update) == ("clip fraction", 14)

    def test_a_bad_number_is_told_once_and_harms_no_other_check(self) -> None:
        for key in healthy()[0]:
            if key != "update":
                rows = from_update(healthy(), 14, policy__clip_fraction=0.45)
                rows[19][key] = math.nan
                assert found(rows) == ["clip fraction", "non-finite"], key

    def test_nothing_logged(self) -> None:
        assert examine([], TOY) == []
        assert examine([{}, {"update": 2}], TOY) == []


def test_repeated_ngrams_by_hand() -> None:
    # 123, 231, 312, 123: one of four occurred before.
    assert repeated_ngrams([[1, 2, 3, 1, 2, 3]]) == pytest.approx(1 / 4)
    assert repeated_ngrams([[7] * 12]) == pytest.approx(9 / 10)
    assert repeated_ngrams([[1, 2, 3, 4, 5], [5, 4], []]) == 0
    assert repeated_ngrams([[7] * 12, [1, 2, 3, 1, 2, 3], [9]]) == pytest.approx((0.9 + 0.25) / 3)
    assert repeated_ngrams([[1, 2, 1, 2]], n=2) == pytest.approx(1 / 3)
    assert repeated_ngrams([]) == 0


class TestReading:
    def test_numbers_of_every_line(self, tmp_path: Path) -> None:
        file = tmp_path / "metrics.jsonl"
        file.write_text('{"update": 1, "a/b": NaN, "note": "text"}\n\n{"update": 2, "a/b": 3}\n')
        first, second = read_metrics(file)
        assert first.keys() == {"update", "a/b"} and math.isnan(first["a/b"])
        assert second == {"update": 2, "a/b": 3}

    @pytest.mark.parametrize("line", ['{"update": 2', "[1, 2]"])
    def test_a_bad_line_is_named(self, tmp_path: Path, line: str) -> None:
        file = tmp_path / "metrics.jsonl"
        file.write_text('{"update": 1}\n' + line + "\n")
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
            read_metrics(file)
