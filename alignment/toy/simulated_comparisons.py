"""A round's pairs of answers, each given to simulated annotators, as the comparisons that they make of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from alignment.data.records import Comparison, Dimension, Message, Prompt, SafetyLabel, SampledAnswer
from alignment.data.splits import dialogue_key
from alignment.errors import UserError
from alignment.toy.simulated_annotators import ANNOTATORS, SimulatedOpinion, compare
from alignment.toy.toy_questions import lookup


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
