"""Simulated annotators: people who compare two answers, grade how much better one is, and make mistakes.

Each has noise, strictness and mild biases of their own. What an annotator perceives is the gold utility of an
answer plus a bias for its length and its side and Gaussian noise; the perceived difference decides choice and
grade, so that small differences are often misjudged and large ones rarely. This is the only way by which the
gold judge reaches training, as a person's knowledge would: through choices.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from alignment.data.records import GRADES, SAFETY_LABELS, Dimension, Grade, Prompt, SafetyBin
from alignment.toy.gold_judge import GoldVerdict, judge, utility

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
