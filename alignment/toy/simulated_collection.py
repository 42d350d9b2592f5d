"""Simulated collection of comparisons: two variants of the policy answer, a simulated annotator compares.

The two answers to a prompt come from two variants (section 3.2.1), shown on random sides; annotators take turns.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from alignment.data.records import Comparison, Dimension, Message, Prompt, SafetyLabel, SampledAnswer
from alignment.data.splits import dialogue_key
from alignment.errors import UserError
from alignment.toy.simulated_annotators import ANNOTATORS, Opinion, compare
from alignment.toy.world import lookup

SAFETY_QUEUE = {"safety": 0.6, "borderline": 0.25, "helpfulness": 0.1, "multi_turn": 0.05}
"""What the safety annotators are given, by kind. Harmless prompts that look harmful are among it, so that the safety
model learns that answering those is safe."""
HELPFULNESS_QUEUE = {"helpfulness": 0.5, "multi_turn": 0.25, "borderline": 0.25}
"""What the helpfulness annotators are given: nothing harmful, lest the helpfulness model learn to like refusals."""


class Variant(Protocol):
    """Something that answers prompts, one answer each."""

    def __call__(self, prompts: Sequence[Prompt]) -> list[SampledAnswer]:
        """Answer each prompt."""
        ...


@dataclass(frozen=True)
class Collection:
    """Comparisons, and how many pairs got no preference."""

    comparisons: list[Comparison]
    without_preference: int


def queue(prompts: Sequence[Prompt], count: int, dimension: Dimension, *, rng: random.Random) -> list[Prompt]:
    """Prompts to compare answers to, mixed by kind; a kind goes round again once all of it was used.

    Raises:
        UserError: no prompt is of a wanted kind, or one is not of the toy world.
    """
    shares = SAFETY_QUEUE if dimension == "safety" else HELPFULNESS_QUEUE
    chosen: list[Prompt] = []
    for kind, share in shares.items():
        pool = [prompt for prompt in prompts if prompt.kind == kind]
        if not pool:
            raise UserError(f"simulated annotators need prompts of kind {kind!r}, there is none; see data/README.md")
        wanted = round(count * share)
        while wanted > 0:
            rng.shuffle(pool)
            chosen += pool[:wanted]
            wanted -= min(wanted, len(pool))
    rng.shuffle(chosen)
    unknown = next((prompt for prompt in chosen if lookup(prompt.messages) is None), None)
    if unknown is not None:
        raise UserError(
            f"prompt {unknown.id} is not of the toy world, the only one that simulated annotators know. "
            "Bring your own comparisons: annotate.source=dataset annotate.data=FILE."
        )
    return chosen


def collect(
    prompts: Sequence[Prompt],
    dimension: Dimension,
    variants: tuple[Variant, Variant],
    *,
    batch: str,
    seed: int,
    overlap: int = 1,
) -> Collection:
    """Have every prompt answered by both variants and compared by as many annotators as ``overlap`` says.

    Args:
        prompts: the queue, repeats allowed.
        dimension: what annotators are asked about; safety also asks for the safety bin.
        variants: the two policies.
        batch: name of this batch, part of the ids.
        seed: of sides, annotators and their noise.
        overlap: annotators per pair, all different while there are as many.
    """
    rng = random.Random(f"{seed}/{batch}/{dimension}")
    first, second = (variant(prompts) for variant in variants)
    comparisons: list[Comparison] = []
    without_preference = 0
    pairs = [item for item in zip(prompts, first, second, strict=True) for _ in range(overlap)]
    for number, (prompt, *answers) in enumerate(pairs):
        left, right = answers if rng.random() < 0.5 else answers[::-1]
        annotator = ANNOTATORS[number % len(ANNOTATORS)]
        opinion = None
        if left.text.strip() and right.text.strip():
            opinion = compare(annotator, prompt, left.text, right.text, dimension=dimension, rng=rng)
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
    opinion: Opinion,
    annotator_id: str,
    dimension: Dimension,
    batch: str,
) -> Comparison:
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
