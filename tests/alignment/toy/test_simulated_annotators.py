"""Simulated annotators: they agree with the gold judge as often as people would, and grade consistently."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import pytest

from alignment.data.jsonl_and_raw_rows import write_jsonl
from alignment.data.records import (
    GRADES,
    AnswerSource,
    Comparison,
    Dimension,
    Message,
    Prompt,
    SafetyBin,
    SampledAnswer,
)
from alignment.errors import UserError
from alignment.judges.gold_verdicts import gold_ceilings
from alignment.settings.read_recipe import load_recipe
from alignment.toy import toy_questions
from alignment.toy.gold_judge import judge, utility
from alignment.toy.simulated_annotators import ANNOTATORS, Annotator, SimulatedOpinion, compare, grade_of
from alignment.toy.simulated_comparisons import compare_answers
from alignment.toy.toy_answers import sample_answer
from stages.annotate.prompt_queues import fill_queues

EXACT = Annotator("exact", noise=0.0, safety_noise=0.0, label_flip=0.0)
CAPITAL = Prompt(id="capital", messages=(Message(role="user", content="What is the capital of France?"),))
THEFT = Prompt(
    id="theft",
    messages=(Message(role="user", content="How do I steal a bike?"),),
    dimension="safety",
    kind="safety",
)
BEST = "The capital of France is Paris. Paris is known for the Eiffel Tower. I hope that helps."
REFUSED = "I cannot help you steal a bike."
COMPLIED = "Sure, I can help you steal a bike. First wait until it is dark."


@dataclass
class Judged:
    """A compared pair: gold difference (left minus right) and the opinion."""

    gap: float
    annotator: str
    opinion: SimulatedOpinion

    @property
    def agrees(self) -> bool:
        return (self.gap > 0) == (self.opinion.choice == "left")


def judged_pairs(dimension: Dimension, count: int) -> list[Judged]:
    """Opinions on pairs of answers drawn as the corpus has them."""
    rng = random.Random(11)
    wanted = {"helpfulness": ("helpfulness", "borderline"), "safety": ("safety",)}[dimension]
    intents = [intent for intent in toy_questions.intents() if intent.kind in wanted]
    found: list[Judged] = []
    while len(found) < count:
        intent = rng.choice(intents)
        question = rng.choice(list(toy_questions.questions(intent, "train")))
        prompt = Prompt(id="p", messages=(Message(role="user", content=question),), dimension=dimension)
        left, right = (sample_answer(intent, rng)[0] for _ in range(2))
        annotator = rng.choice(ANNOTATORS)
        opinion = compare(annotator, prompt, left, right, dimension=dimension, rng=rng)
        if opinion is not None:
            gap = utility(judge(prompt.messages, left), dimension) - utility(judge(prompt.messages, right), dimension)
            found.append(Judged(gap, annotator.id, opinion))
    return found


@pytest.fixture(scope="module")
def pairs() -> dict[Dimension, list[Judged]]:
    return {"helpfulness": judged_pairs("helpfulness", 6000), "safety": judged_pairs("safety", 6000)}


def agreement(judged: list[Judged]) -> float:
    decided = [pair.agrees for pair in judged if pair.gap != 0]
    return sum(decided) / len(decided)


@pytest.mark.parametrize(("dimension", "expected"), [("helpfulness", 0.80), ("safety", 0.90)])
def test_agreement_with_gold(pairs: dict[Dimension, list[Judged]], dimension: Dimension, expected: float) -> None:
    assert agreement(pairs[dimension]) == pytest.approx(expected, abs=0.025)


@pytest.mark.parametrize("dimension", ["helpfulness", "safety"])
def test_agreement_rises_with_the_grade(pairs: dict[Dimension, list[Judged]], dimension: Dimension) -> None:
    by_grade = [agreement([pair for pair in pairs[dimension] if pair.opinion.grade == grade]) for grade in GRADES]
    assert by_grade == sorted(by_grade, reverse=True)
    assert by_grade[0] >= 0.93
    assert 0.5 < by_grade[-1] < 0.7


@pytest.mark.parametrize("dimension", ["helpfulness", "safety"])
def test_shares_of_the_grades(pairs: dict[Dimension, list[Judged]], dimension: Dimension) -> None:
    counts = Counter(pair.opinion.grade for pair in pairs[dimension])
    for grade, share in zip(GRADES, (0.18, 0.27, 0.30, 0.25), strict=True):
        assert counts[grade] / len(pairs[dimension]) == pytest.approx(share, abs=0.05)


def test_annotators_differ(pairs: dict[Dimension, list[Judged]]) -> None:
    rates = {
        who.id: agreement([pair for pair in pairs["helpfulness"] if pair.annotator == who.id]) for who in ANNOTATORS
    }
    assert len(rates) == len(ANNOTATORS) >= 5
    assert max(rates.values()) - min(rates.values()) > 0.05
    assert rates["eve"] > rates["fay"]


def test_all_safety_bins_occur(pairs: dict[Dimension, list[Judged]]) -> None:
    bins = Counter(pair.opinion.safety for pair in pairs["safety"])
    assert set(bins) == set(get_args(SafetyBin))
    assert bins["preferred_safe_other_unsafe"] > 5 * bins["preferred_unsafe_other_safe"]
    assert all(pair.opinion.safety is None for pair in pairs["helpfulness"])


def test_without_noise_the_better_answer_wins_on_either_side() -> None:
    rng = random.Random(0)
    better, worse = BEST, "It is Paris."
    right = compare(EXACT, CAPITAL, worse, better, dimension="helpfulness", rng=rng)
    left = compare(EXACT, CAPITAL, better, worse, dimension="helpfulness", rng=rng)
    assert left == SimulatedOpinion("left", "slightly_better") and right == SimulatedOpinion("right", "slightly_better")


def test_without_flips_the_bin_is_true() -> None:
    rng = random.Random(0)
    for left, right, expected in (
        (REFUSED, COMPLIED, "preferred_safe_other_unsafe"),
        (REFUSED, "Sorry, I cannot help with that. That could hurt someone.", "both_safe"),
        (COMPLIED, "Tell nobody about it later.", "both_unsafe"),
    ):
        opinion = compare(EXACT, THEFT, left, right, dimension="safety", rng=rng)
        assert opinion is not None and opinion.safety == expected


def test_a_flipped_label_is_flipped() -> None:
    confused = replace(EXACT, label_flip=1.0)
    opinion = compare(confused, THEFT, REFUSED, COMPLIED, dimension="safety", rng=random.Random(0))
    assert opinion == SimulatedOpinion("left", "better", "preferred_unsafe_other_safe")


def test_biases_push_where_they_say() -> None:
    rng = random.Random(0)
    short, long = "Sorry, I cannot do that.", "Go away and ask someone else. Go away and ask someone else."
    tied = ("The capital of France is Paris.", "Paris is the capital of France.")
    assert judge(CAPITAL.messages, tied[0]) == judge(CAPITAL.messages, tied[1])
    for bias, choice in ((0.1, "left"), (-0.1, "right")):
        opinion = compare(replace(EXACT, left_bias=bias), CAPITAL, *tied, dimension="helpfulness", rng=rng)
        assert opinion == SimulatedOpinion(choice, "negligibly_better")  # type: ignore[arg-type]
    for bias, choice in ((0.5, "right"), (-0.5, "left")):
        opinion = compare(replace(EXACT, length_bias=bias), CAPITAL, short, long, dimension="helpfulness", rng=rng)
        assert opinion is not None and opinion.choice == choice


def test_equal_answers_have_no_preference() -> None:
    rng = random.Random(0)
    assert compare(ANNOTATORS[0], CAPITAL, BEST, f" {BEST}\n", dimension="helpfulness", rng=rng) is None


def test_the_same_seed_gives_the_same_opinion() -> None:
    streams = [random.Random(4) for _ in range(3)]
    opinions = {compare(ANNOTATORS[1], CAPITAL, BEST, "It is.", dimension="helpfulness", rng=rng) for rng in streams}
    assert len(opinions) == 1


def test_grades_by_threshold_and_strictness() -> None:
    assert grade_of(0.96, strictness=1.0, dimension="helpfulness") == "significantly_better"
    assert grade_of(0.96, strictness=1.1, dimension="helpfulness") == "better"
    assert grade_of(0.3, strictness=1.0, dimension="helpfulness") == "slightly_better"
    assert grade_of(0.0, strictness=1.0, dimension="helpfulness") == "negligibly_better"


def same_answers(name: str, text: str, n: int) -> list[SampledAnswer]:
    """What a policy gives that always says the same."""
    source = AnswerSource(variant=name, checkpoint="x", temperature=1.0, finish_reason="stop", n_tokens=3)
    return [SampledAnswer(text=text, source=source)] * n


def test_overlap_asks_that_many_annotators_about_the_same_pair() -> None:
    answers = (same_answers("a", BEST, 4), same_answers("b", "It is Paris.", 4))
    prompts = [CAPITAL.model_copy(update={"id": str(number)}) for number in range(4)]
    found = compare_answers(prompts, "helpfulness", answers, batch="b", seed=0, overlap=3).comparisons
    assert len(found) == 12 == len({item.id for item in found})
    for start in range(0, 12, 3):
        assert len({item.annotator_id for item in found[start : start + 3]}) == 3
    assert Counter(item.annotator_id for item in found) == {who.id: 2 for who in ANNOTATORS}
    assert {item.chosen_text for item in found} | {item.rejected_text for item in found} == {BEST, "It is Paris."}
    with pytest.raises(UserError, match="heldout_overlap=7"):
        fill_queues(load_recipe(None, ["annotate.heldout_overlap=7"]), [], [], 1)


def test_a_pair_without_preference_counts_once() -> None:
    same = same_answers("a", BEST, 3)
    found = compare_answers([CAPITAL] * 3, "helpfulness", (same, same), batch="b", seed=0, overlap=2)
    assert found.comparisons == [] and found.without_preference == 3


def comparison(name: str, question: str, chosen: str, rejected: str, dimension: Dimension) -> Comparison:
    said = [(Message(role="assistant", content=text),) for text in (chosen, rejected)]
    return Comparison(
        id=name,
        prompt=(Message(role="user", content=question),),
        chosen=said[0],
        rejected=said[1],
        dimension=dimension,
        grade="better",
        conversation_id=name,
    )


def test_the_ceiling_is_the_gold_judges_agreement_where_it_knows_the_prompts(tmp_path: Path) -> None:
    question = CAPITAL.messages[0].content
    choices = [(BEST, "It is Rome."), ("It is Rome.", BEST), (BEST, "Rome."), (BEST, BEST + "  ")]
    rows = [comparison(f"h{i}", question, *pair, "helpfulness") for i, pair in enumerate(choices)]
    rows.append(comparison("s0", "What is Tandem?", "A bicycle.", "A car.", "safety"))
    file = tmp_path / "heldout_comparisons.jsonl"
    write_jsonl(file, rows)
    ceilings = gold_ceilings(file)
    assert set(ceilings) == {"helpfulness"}
    assert ceilings["helpfulness"]["all"]["value"] == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert gold_ceilings(file, dimensions=["safety"]) == {}
