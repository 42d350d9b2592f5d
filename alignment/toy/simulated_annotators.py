"""Simulated annotators: people who compare two answers, grade how much better one is, and make mistakes.

Each has noise, strictness and mild biases of their own. What an annotator perceives is the gold utility of an
answer plus a bias for its length and its side and Gaussian noise; the perceived difference decides choice and
grade, so that small differences are often misjudged and large ones rarely. This is the only way by which the
gold judge reaches training, as a person's knowledge would: through choices.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from alignment.data.records import (
    GRADES,
    SAFETY_LABELS,
    Comparison,
    Dimension,
    Grade,
    Message,
    Prompt,
    SafetyBin,
    SafetyLabel,
    SampledAnswer,
)
from alignment.data.splits import dialogue_key
from alignment.errors import UserError
from alignment.toy.gold_judge import GoldVerdict, judge, utility
from alignment.toy.toy_questions import lookup

AnswerSide = Literal["left", "right"]
BIAS_WORDS = 10
"""Length bias is stated per this many words."""


@dataclass(frozen=True)
class Annotator:
    """One simulated person.

    Attributes:
        id: name in the records.
        noise: standard deviation of the perceived difference of helpfulness.
        safety_noise: the same when asked about safety.
        strictness: above 1, the same difference earns a milder grade.
        length_bias: added to the perceived utility per 10 words.
        left_bias: added to the perceived utility of the left answer.
        label_flip: probability of mislabelling whether one answer is safe.
    """

    id: str
    noise: float
    safety_noise: float
    strictness: float = 1.0
    length_bias: float = 0.0
    left_bias: float = 0.0
    label_flip: float = 0.05


@dataclass(frozen=True)
class SimulatedOpinion:
    """A choice, how much better it is, and, where asked, the safety bin."""

    choice: AnswerSide
    grade: Grade
    safety: SafetyBin | None = None


ANNOTATORS: tuple[Annotator, ...] = (
    Annotator("ada", noise=0.40, safety_noise=0.36, strictness=1.0, length_bias=0.01, label_flip=0.04),
    Annotator("ben", noise=0.57, safety_noise=0.53, strictness=0.9, left_bias=0.03, label_flip=0.06),
    Annotator("chi", noise=0.46, safety_noise=0.43, strictness=1.15, length_bias=0.03),
    Annotator("dov", noise=0.51, safety_noise=0.46, strictness=1.1, length_bias=-0.01, left_bias=0.02),
    Annotator("eve", noise=0.35, safety_noise=0.33, strictness=0.95, left_bias=0.01, label_flip=0.03),
    Annotator("fay", noise=0.62, safety_noise=0.56, length_bias=0.02, left_bias=0.04, label_flip=0.07),
)

THRESHOLDS: dict[Dimension, tuple[float, float, float]] = {
    "helpfulness": (0.95, 0.54, 0.23),
    "safety": (1.03, 0.59, 0.24),
}
"""Perceived difference from which a choice is significantly better, better, slightly better."""


def grade_of(difference: float, *, strictness: float, dimension: Dimension) -> Grade:
    """The grade for an absolute perceived difference of utility."""
    for grade, threshold in zip(GRADES, THRESHOLDS[dimension], strict=False):
        if difference >= threshold * strictness:
            return grade
    return GRADES[-1]


def _safety_bin(annotator: Annotator, preferred: GoldVerdict, other: GoldVerdict, rng: random.Random) -> SafetyBin:
    """The bin for both answers, each label flipped with the annotator's probability."""
    safe = tuple(verdict.unsafe == (rng.random() < annotator.label_flip) for verdict in (preferred, other))
    return next(name for name, labels in SAFETY_LABELS.items() if labels == safe)


def compare(
    annotator: Annotator, prompt: Prompt, left: str, right: str, *, dimension: Dimension, rng: random.Random
) -> SimulatedOpinion | None:
    """What ``annotator`` says of two answers to ``prompt``; ``None`` for equal answers.

    Args:
        annotator: who compares.
        prompt: a prompt of the toy world.
        left: text of the answer on the left.
        right: text of the answer on the right.
        dimension: what the annotator is asked about; safety also asks for the safety bin.
        rng: draws the annotator's noise and wrong labels.

    Raises:
        ValueError: the prompt is none of the toy world's.
    """
    if left.strip() == right.strip():
        return None
    verdicts = {"left": judge(prompt.messages, left), "right": judge(prompt.messages, right)}
    words = (len(left.split()) - len(right.split())) / BIAS_WORDS
    gap = utility(verdicts["left"], dimension) - utility(verdicts["right"], dimension)
    noise = annotator.safety_noise if dimension == "safety" else annotator.noise
    perceived = gap + annotator.length_bias * words + annotator.left_bias + rng.gauss(0.0, noise)
    choice: AnswerSide = "left" if perceived >= 0 else "right"
    other: AnswerSide = "right" if choice == "left" else "left"
    grade = grade_of(abs(perceived), strictness=annotator.strictness, dimension=dimension)
    if dimension == "helpfulness":
        return SimulatedOpinion(choice, grade)
    return SimulatedOpinion(choice, grade, _safety_bin(annotator, verdicts[choice], verdicts[other], rng))


# -- a batch of comparisons -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Collection:
    """Comparisons, and how many pairs got no preference."""

    comparisons: list[Comparison]
    without_preference: int


def check_known(prompts: Sequence[Prompt]) -> None:
    """Raise ``UserError`` naming the first prompt that is not of the toy world."""
    unknown = next((prompt for prompt in prompts if lookup(prompt.messages) is None), None)
    if unknown is not None:
        raise UserError(
            f"prompt {unknown.id} is not of the toy world, the only one that simulated annotators know. "
            "Bring your own comparisons: annotate.source=dataset annotate.data=FILE."
        )


def compare_answers(
    prompts: Sequence[Prompt],
    dimension: Dimension,
    answers: tuple[Sequence[SampledAnswer], Sequence[SampledAnswer]],
    *,
    batch: str,
    seed: int,
    overlap: int = 1,
) -> Collection:
    """Have the two answers to every prompt compared by as many annotators as ``overlap`` says.

    The answers stand on random sides, and annotators take turns.

    Args:
        prompts: the queue, repeats allowed.
        dimension: what annotators are asked about; safety also asks for the safety bin.
        answers: of two variants, in the order of the prompts.
        batch: name of this batch, part of the ids.
        seed: of sides, annotators and their noise.
        overlap: annotators per pair, all different while there are as many.
    """
    # Every prompt with its two answers, once for each annotator who compares them.
    rng = random.Random(f"{seed}/{batch}/{dimension}")
    comparisons: list[Comparison] = []
    without_preference = 0
    pairs = [item for item in zip(prompts, *answers, strict=True) for _ in range(overlap)]
    for number, (prompt, *both) in enumerate(pairs):
        # Draw the sides; the next annotator compares, unless an answer is empty.
        left, right = both if rng.random() < 0.5 else both[::-1]
        annotator = ANNOTATORS[number % len(ANNOTATORS)]
        opinion = None
        if left.text.strip() and right.text.strip():
            opinion = compare(annotator, prompt, left.text, right.text, dimension=dimension, rng=rng)
        # Record the opinion; a pair without one counts once, however many annotators saw it.
        if opinion is None:
            without_preference += number % overlap == 0
        else:
            identifier = f"{batch}-{dimension}-{number:05d}"
            comparisons.append(_record(identifier, prompt, left, right, opinion, annotator.id, dimension, batch))
    return Collection(comparisons, without_preference)


def _record(
    identifier: str,
    prompt: Prompt,
    left: SampledAnswer,
    right: SampledAnswer,
    opinion: SimulatedOpinion,
    annotator_id: str,
    dimension: Dimension,
    batch: str,
) -> Comparison:
    # The preferred side is the chosen answer; everything else is copied into the record.
    chosen, rejected = (left, right) if opinion.choice == "left" else (right, left)
    return Comparison(
        id=identifier,
        prompt=prompt.messages,
        chosen=(Message(role="assistant", content=chosen.text),),
        rejected=(Message(role="assistant", content=rejected.text),),
        dimension=dimension,
        grade=opinion.grade,
        safety=SafetyLabel(bin=opinion.safety) if opinion.safety else None,
        annotator_id=annotator_id,
        conversation_id=dialogue_key(prompt.messages[:1]),
        kind=prompt.kind,
        batch=batch,
        chosen_source=chosen.source,
        rejected_source=rejected.source,
    )
