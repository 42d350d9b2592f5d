"""Figures, intervals and metrics, against closed forms, hand counts and slow loops."""

from __future__ import annotations

import math
import random
from pathlib import Path

import evaluate
import numpy as np
import pytest
from scipy import stats

from alignment.data.records import GRADES, JudgedAnswer, Message, Prompt
from alignment.figures import intervals, pair_accuracy, policy_figures, reward_model_figures, win_rates


def answer(prompt_id: str, **changes: object) -> JudgedAnswer:
    """A judged answer with stated differences from a plain safe one."""
    fields: dict[str, object] = {
        "prompt_id": prompt_id,
        "kind": "helpfulness",
        "group": "seen_wordings",
        "dimension": "helpfulness",
        "answer": "text",
        "helpfulness": 0.5,
        "unsafe": False,
        "refusal": False,
        "n_tokens": 10,
        "stopped": True,
        "kl_nats": 1.0,
        "reward_helpfulness": 0.0,
        "reward_safety": 0.0,
    }
    return JudgedAnswer(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("successes", "n"), [(8, 100), (0, 50), (50, 50), (1, 3)])
def test_proportion_is_wilsons_interval(successes: int, n: int) -> None:
    figure = intervals.proportion(successes, n)
    reference = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert figure["value"] == successes / n
    assert figure["ci95"] == pytest.approx([reference.low, reference.high], abs=1e-9)
    assert figure["n"] == n


def test_proportion_of_zero_in_a_hundred_by_hand() -> None:
    z2 = 1.959963984540054**2
    assert intervals.proportion(0, 100)["ci95"] == pytest.approx([0.0, z2 / (100 + z2)])


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 4), (0, 0)])
def test_proportion_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        intervals.proportion(successes, n)


def test_share_equals_proportion_without_clusters() -> None:
    assert intervals.share([1] * 8 + [0] * 92)["ci95"] == pytest.approx(intervals.proportion(8, 100)["ci95"])


def test_share_of_copied_answers_knows_no_more_than_the_originals() -> None:
    """Four identical answers a prompt are one: the interval is that of the prompts alone."""
    flags = [1] * 8 + [0] * 42
    copied = [flag for flag in flags for _ in range(4)]
    clusters = [f"p{index}" for index in range(50) for _ in range(4)]
    figure = intervals.share(copied, clusters=clusters)
    assert figure["ci95"] == pytest.approx(intervals.proportion(8, 50)["ci95"])
    assert figure["n"] == 200


def test_share_of_nothing_but_zeros_counts_clusters() -> None:
    figure = intervals.share([0] * 40, clusters=[index // 4 for index in range(40)])
    assert figure["ci95"] == pytest.approx(intervals.proportion(0, 10)["ci95"])


def test_mean_interval_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, 400)
    figure = intervals.mean_interval(values, seed=0)
    half = 1.96 * values.std() / math.sqrt(400)
    assert figure["value"] == pytest.approx(values.mean())
    assert figure["ci95"] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.015)


def test_mean_interval_resamples_whole_clusters() -> None:
    """Ten copies of each value: the interval stays as wide as for the originals, not a third of it."""
    values = np.random.default_rng(3).normal(size=60)
    single = intervals.mean_interval(values, seed=0)["ci95"]
    copies = np.repeat(values, 10)
    clustered = intervals.mean_interval(copies, clusters=np.repeat(np.arange(60), 10), seed=0)["ci95"]
    naive = intervals.mean_interval(copies, seed=0)["ci95"]
    assert clustered[1] - clustered[0] == pytest.approx(single[1] - single[0], rel=0.15)
    assert naive[1] - naive[0] < 0.5 * (single[1] - single[0])


def test_mean_interval_matches_a_slow_loop() -> None:
    values, clusters = [1.0, 2.0, 4.0, 8.0, 16.0], ["a", "a", "b", "c", "c"]
    members = [[1.0, 2.0], [4.0], [8.0, 16.0]]
    picks = np.random.default_rng(5).integers(3, size=(1000, 3))
    means = []
    for row in picks:
        drawn = [value for index in row for value in members[index]]
        means.append(sum(drawn) / len(drawn))
    figure = intervals.mean_interval(values, clusters=clusters, seed=5)
    assert figure["ci95"] == pytest.approx(list(np.percentile(means, (2.5, 97.5))))


def test_intervals_follow_the_seed_and_not_the_order_of_rows() -> None:
    values = list(np.random.default_rng(0).normal(size=50))
    clusters = [f"p{index % 20}" for index in range(50)]
    order = random.Random(1).sample(range(50), 50)
    shuffled = intervals.mean_interval([values[i] for i in order], clusters=[clusters[i] for i in order], seed=1)
    assert shuffled["ci95"] == intervals.mean_interval(values, clusters=clusters, seed=1)["ci95"]
    assert shuffled["ci95"] != intervals.mean_interval(values, clusters=clusters, seed=2)["ci95"]


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [[1.0]]])
def test_figures_refuse_empty_and_non_finite_values(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"non-empty|not finite"):
        intervals.mean_interval(values, seed=0)


def test_a_missing_cluster_label_is_an_error() -> None:
    with pytest.raises(ValueError, match="one cluster label per value"):
        intervals.share([1, 0, 1], clusters=["a", "b"])


def test_win_rate_counts_a_tie_as_one_half() -> None:
    figure = win_rates.win_rate([1] * 48 + [0] * 34 + [-1] * 18, seed=0)
    assert (figure["win"], figure["tie"], figure["loss"]) == (0.48, 0.34, 0.18)
    assert figure["win_rate"] == pytest.approx(0.65)
    half = 1.96 * math.sqrt((0.48 + 0.34 / 4 - 0.65**2) / 100)
    assert figure["ci95"] == pytest.approx([0.65 - half, 0.65 + half], abs=0.02)


def test_win_rate_of_only_wins_is_not_certain() -> None:
    assert win_rates.win_rate([1] * 20, seed=0)["ci95"] == pytest.approx(intervals.proportion(20, 20)["ci95"])


def test_win_rate_refuses_other_outcomes() -> None:
    with pytest.raises(ValueError, match="outcomes"):
        win_rates.win_rate([1, 2], seed=0)


def test_correlation_is_pearsons_with_a_plausible_interval() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    y = 0.6 * x + rng.normal(size=300)
    figure = intervals.correlation(x, y, seed=0)
    assert figure is not None
    fisher = stats.pearsonr(x, y).confidence_interval()
    assert figure["value"] == pytest.approx(stats.pearsonr(x, y).statistic)
    assert figure["ci95"] == pytest.approx([fisher.low, fisher.high], abs=0.03)


def test_correlation_with_a_constant_is_undefined() -> None:
    assert intervals.correlation([1.0, 2.0, 3.0], [5.0, 5.0, 5.0], seed=0) is None


def test_trend_is_cochran_armitage() -> None:
    """Against sqrt of the textbook chi-square on a 2 x 4 table."""
    right, total = [95, 85, 72, 55], [100, 100, 100, 100]
    values = [value for k, n in zip(right, total, strict=True) for value in [1] * k + [0] * (n - k)]
    ranks = [3 - row for row, n in enumerate(total) for _ in range(n)]
    big_n, successes = sum(total), sum(right)
    weights = [3, 2, 1, 0]
    sum_wr = sum(w * r for w, r in zip(weights, right, strict=True))
    sum_wn = sum(w * n for w, n in zip(weights, total, strict=True))
    sum_w2n = sum(w * w * n for w, n in zip(weights, total, strict=True))
    top = big_n * sum_wr - successes * sum_wn
    bottom = successes * (big_n - successes) * (big_n * sum_w2n - sum_wn**2) / big_n
    assert intervals.trend_p_value(values, ranks) == pytest.approx(stats.norm.sf(top / math.sqrt(bottom)))


def test_trend_is_one_sided_and_clustering_weakens_it() -> None:
    values, ranks = [1, 1, 1, 0, 1, 0, 0, 0], [3, 3, 2, 2, 1, 1, 0, 0]
    p = intervals.trend_p_value(values, ranks)
    assert p is not None and p < 0.05
    assert intervals.trend_p_value(values, [-rank for rank in ranks]) == pytest.approx(1 - p)
    copies = intervals.trend_p_value(values * 5, ranks * 5)
    clustered = intervals.trend_p_value(values * 5, ranks * 5, clusters=list(range(8)) * 5)
    assert copies is not None and clustered is not None and copies < 1e-4 < clustered
    assert intervals.trend_p_value([1, 1, 1], [0, 1, 2]) is None


def test_accuracy_by_grade_by_hand() -> None:
    differences = [2.0, 1.0, -1.0, 0.0, 3.0]
    grades = ["significantly_better", "better", "better", "better", None]
    result = pair_accuracy.accuracy_by_grade(differences, grades)
    assert set(result) == {"all", *GRADES}
    assert result["all"] is not None and result["all"]["value"] == pytest.approx(3.5 / 5)
    assert result["better"] is not None and result["better"]["value"] == pytest.approx(0.5)
    assert result["better"]["n"] == 3
    assert result["significantly_better"] is not None and result["significantly_better"]["value"] == 1.0
    assert result["negligibly_better"] is None


def test_accuracy_trend_falls_with_the_grade() -> None:
    falling = [1, 1, 1, 1, 1, 1, 1, -1, 1, -1, -1, 1]
    grades = [grade for grade in GRADES for _ in range(3)]
    p = pair_accuracy.accuracy_trend(falling, grades)
    assert p is not None and p < 0.1
    rising = pair_accuracy.accuracy_trend(falling[::-1], grades)
    assert rising is not None and rising > 0.9
    assert pair_accuracy.accuracy_trend([1, -1], ["better", None]) is None


def test_policy_figures_count_each_prompt_where_it_belongs() -> None:
    rows = [
        answer("h1", helpfulness=0.8, refusal=True, n_tokens=4, kl_nats=2.0),
        answer("h2", helpfulness=0.4, unsafe=True, stopped=False),
        answer("s1", dimension="safety", kind="safety", helpfulness=0.0, unsafe=True),
        answer("s2", dimension="safety", kind="safety", helpfulness=0.0, refusal=True, group="unseen_wordings"),
    ]
    block = policy_figures.summarise_policy(rows, seed=0)
    values = {key: value["value"] for key, value in block.items() if isinstance(value, dict) and "value" in value}
    assert block["n_prompts"] == 4
    assert values["helpfulness"] == pytest.approx(0.6)  # h1, h2
    assert values["helpfulness_all"] == pytest.approx(0.3)
    assert values["violation_rate"] == pytest.approx(0.5)  # s1 of s1, s2; h2 is not asked
    assert values["false_refusal_rate"] == pytest.approx(0.5)  # h1 of h1, h2; refusing s2 is right
    assert values["kl_to_sft_nats"] == pytest.approx(1.25)
    assert values["mean_length_tokens"] == pytest.approx(8.5)
    assert values["stop_rate"] == pytest.approx(0.75)
    assert set(block["by_kind"]) == {"helpfulness", "safety"}
    assert block["by_kind"]["helpfulness"]["violation_rate"] is None
    assert block["by_group"]["unseen_wordings"]["n_prompts"] == 1


def test_a_refusal_is_false_only_where_the_prompt_is_harmless() -> None:
    """Of 11 harmless prompts 3 are refused, of 30 safety prompts 27: 3 of 11 are refused wrongly, not 30 of 41."""
    rows = [answer(f"h{number}", refusal=number < 2) for number in range(10)]
    rows += [answer(f"s{number}", dimension="safety", refusal=number < 27) for number in range(30)]
    rows += [answer("b0", kind="borderline", refusal=True)]  # harmless, though it sounds otherwise
    figure = policy_figures.summarise_policy(rows, seed=0)["false_refusal_rate"]
    assert figure == {"value": pytest.approx(3 / 11), "ci95": pytest.approx(wilson(3, 11)), "n": 11}


def wilson(successes: int, n: int) -> list[float]:
    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return [interval.low, interval.high]


def test_what_nobody_measured_is_none_and_half_measured_is_an_error() -> None:
    blank = {"helpfulness": None, "unsafe": None, "refusal": None, "kl_nats": None}
    block = policy_figures.policy_figures([answer("a", **blank), answer("b", **blank)], seed=0)
    assert block["helpfulness"] is block["violation_rate"] is block["kl_to_sft_nats"] is None
    assert block["stop_rate"]["value"] == 1.0
    with pytest.raises(ValueError, match="1 of 2 answers lack"):
        policy_figures.policy_figures([answer("a"), answer("b", helpfulness=None)], seed=0)


def test_compare_policies_pairs_by_prompt_and_puts_safety_first() -> None:
    ours = [answer("a", helpfulness=0.2), answer("b", unsafe=True), answer("c"), answer("d")]
    theirs = [
        answer("d", helpfulness=0.45),
        answer("c", helpfulness=0.9),
        answer("b"),
        answer("a", unsafe=True),
    ]
    names = {"policy": "ppo", "against": "sft", "judge": "gold", "seed": 0}
    entry = policy_figures.compare_policies(ours, theirs, tie_margin=0.1, **names)  # type: ignore[arg-type]
    # a: safe beats unsafe; b: unsafe loses though as helpful; c: loses; d: within the margin
    assert (entry["win"], entry["tie"], entry["loss"]) == (0.25, 0.25, 0.5)
    assert entry["win_rate"] == pytest.approx(0.375)
    assert (entry["policy"], entry["against"], entry["judge"], entry["prompts"]) == (
        "ppo",
        "sft",
        "gold",
        "all",
    )
    with pytest.raises(ValueError, match="same prompts"):
        policy_figures.compare_policies(ours, theirs[:3], **names)  # type: ignore[arg-type]


def test_a_win_rate_of_copied_answers_knows_no_more_than_the_originals() -> None:
    """Nine identical pairs a prompt are one: the interval is as wide as for the prompts alone, not a third of it."""
    names = {"policy": "ppo", "against": "sft", "judge": "gold", "seed": 0}
    scores = [0.9] * 24 + [0.1] * 16  # against 0.5: 24 wins, 16 losses
    half = 1.96 * math.sqrt(0.6 * 0.4 / 40)
    for copies in (1, 9):
        ours = [answer(f"p{place}", helpfulness=score) for place, score in enumerate(scores) for _ in range(copies)]
        theirs = [answer(f"p{place}") for place in range(40) for _ in range(copies)]
        entry = policy_figures.compare_policies(ours, theirs, **names)  # type: ignore[arg-type]
        assert (entry["win_rate"], entry["n"]) == (pytest.approx(0.6), 40 * copies)
        assert entry["ci95"] == pytest.approx([0.6 - half, 0.6 + half], abs=0.03)


def test_samples_are_spread_over_kinds_and_drawn_by_seed() -> None:
    kinds = ["helpfulness"] * 40 + ["safety"] * 10 + ["borderline"] * 10
    prompts = [
        Prompt(id=f"p{index}", kind=kind, messages=(Message(role="user", content="Hi"),))
        for index, kind in enumerate(kinds)
    ]
    answers = {
        "sft": [answer(prompt.id) for prompt in prompts],
        "ppo": [answer(prompt.id) for prompt in prompts],
    }
    chosen = policy_figures.choose_samples(prompts, answers, count=12, seed=0)
    counts = {kind: sum(sample["kind"] == kind for sample in chosen) for kind in set(kinds)}
    assert counts == {"helpfulness": 4, "safety": 4, "borderline": 4}
    assert set(chosen[0]["answers"]) == {"sft", "ppo"}
    again = policy_figures.choose_samples(prompts[::-1], answers, count=12, seed=0)
    other = policy_figures.choose_samples(prompts, answers, count=12, seed=1)
    assert [s["prompt_id"] for s in again] == [s["prompt_id"] for s in chosen]
    assert [s["prompt_id"] for s in other] != [s["prompt_id"] for s in chosen]


def test_histograms_share_edges_and_lose_nothing() -> None:
    result = reward_model_figures.score_histograms({"sft": [-1.0, 0.05, 0.15], "ppo": [2.0, 1.95]})  # bins of 0.1
    assert result["sft"]["edges"] == result["ppo"]["edges"] == pytest.approx([n / 10 for n in range(-10, 21)])
    assert [number for number, count in enumerate(result["sft"]["counts"]) if count] == [0, 10, 11]
    assert result["ppo"]["counts"] == [0] * 29 + [2]  # the last bin has both of its ends


@pytest.fixture
def metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The metrics module with evaluate's cache in an empty folder, and that folder."""
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path / "cache")
    from alignment.figures import huggingface_evaluate as module

    return module, tmp_path


def test_graded_accuracy_metric(metrics) -> None:  # type: ignore[no-untyped-def]
    module, folder = metrics
    metric = module.GradedAccuracy()
    metric.add_batch(predictions=[1.0, 0.0], references=["better", "better"])
    metric.add_batch(predictions=[-2.0], references=["slightly_better"])
    assert metric.compute() == pytest.approx({"accuracy": 0.5, "better": 0.75, "slightly_better": 0.0})
    with pytest.raises(ValueError, match="unknown grades"):
        module.GradedAccuracy().compute(predictions=[1.0], references=["much_better"])
    assert list(folder.iterdir()) == []  # nothing was written


def test_win_rate_metric(metrics) -> None:  # type: ignore[no-untyped-def]
    result = (
        metrics[0].WinRate().compute(predictions=[0.9, 0.5, 0.1, 0.7], references=[0.1, 0.45, 0.9, 0.1], tie_margin=0.1)
    )
    assert result == pytest.approx({"win": 0.5, "tie": 0.25, "loss": 0.25, "win_rate": 0.625})


def test_violation_and_refusal_metrics_count_opposite_prompts(metrics) -> None:  # type: ignore[no-untyped-def]
    flags, dimensions = [True, False, True, True, False], ["safety"] * 2 + ["helpfulness"] * 3
    violations = metrics[0].ViolationRate().compute(predictions=flags, references=dimensions)
    refusals = metrics[0].FalseRefusalRate().compute(predictions=flags, references=dimensions)
    assert violations == {"violation_rate": 0.5}
    assert refusals == pytest.approx({"false_refusal_rate": 2 / 3})
    with pytest.raises(ValueError, match="no prompt tagged safety"):
        metrics[0].ViolationRate().compute(predictions=[True], references=["helpfulness"])


def test_metrics_combine_and_write_nothing(metrics) -> None:  # type: ignore[no-untyped-def]
    module, folder = metrics
    both = evaluate.combine([module.ViolationRate(), module.FalseRefusalRate()])
    both.add_batch(predictions=[True, False, True], references=["safety", "safety", "helpfulness"])
    both.add_batch(predictions=[True, False], references=["helpfulness"] * 2)
    assert both.compute() == pytest.approx({"violation_rate": 0.5, "false_refusal_rate": 2 / 3})
    assert list(folder.iterdir()) == []
