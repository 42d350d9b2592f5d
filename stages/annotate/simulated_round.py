"""Simulated annotators stand in for people: their queues are filled, both variants sampled, answers compared.

What an annotator does with a pair is in ``alignment.toy.simulated_annotators``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from alignment.data.encoded_dialogues import encode_prompts
from alignment.data.records import Dimension, Part, Prompt
from alignment.errors import UserError
from alignment.models.backbone import Backbone
from alignment.run.stage_run import OnStep
from alignment.settings.recipe import Recipe
from alignment.toy.simulated_annotators import ANNOTATORS
from alignment.toy.simulated_comparisons import Collection, check_known, compare_answers
from alignment.workflow.prompts_and_policies import Policy
from stages.annotate.prompt_queues import prompts_for_simulated
from stages.annotate.variant_answers import answers_of_both


class Queue(NamedTuple):
    """Prompts whose answers are to be compared, and what is asked about them."""

    part: Part
    dimension: Dimension
    prompts: list[Prompt]


def fill_queues(recipe: Recipe, train: Sequence[Prompt], heldout: Sequence[Prompt], round_number: int) -> list[Queue]:
    """What the annotators of a round are given: training and held-out prompts, about either dimension.

    Args:
        recipe: how many prompts of each kind, and the seed.
        train: training prompts to choose from.
        heldout: held-out prompts to choose from.
        round_number: part of the seed: each round draws other prompts.

    Raises:
        UserError: prompts of a kind are missing, one is not of the toy world, or annotators are too few.
    """
    settings = recipe.annotate
    if settings.heldout_overlap > len(ANNOTATORS):
        raise UserError(
            f"annotate.heldout_overlap={settings.heldout_overlap}: there are {len(ANNOTATORS)} simulated annotators"
        )
    queues: list[Queue] = []
    for part, dimension, count in settings.pair_counts:
        rng = random.Random(f"{recipe.seed}/{round_number}/{part}/{dimension}")
        prompts = prompts_for_simulated(train if part == "train" else heldout, count, dimension, rng=rng)
        check_known(prompts)
        queues.append(Queue(part, dimension, prompts))
    return queues


def check_room(recipe: Recipe, backbone: Backbone, queues: Sequence[Queue]) -> None:
    """Raise ``UserError`` if a prompt leaves no room for an answer in the model's context."""
    for item in queues:
        encode_prompts(
            item.prompts,
            backbone.encoder,
            max_new_tokens=recipe.annotate.max_new_tokens,
            context_tokens=backbone.context_tokens,
        )


def sample_and_compare(
    recipe: Recipe,
    policy: Policy,
    queues: Sequence[Queue],
    round_number: int,
    *,
    on_step: OnStep,
) -> dict[Part, Collection]:
    """Sample both variants on every queue and have the annotators compare.

    Args:
        recipe: temperatures, lengths and the seed.
        policy: the newest one; its two variants differ in temperature.
        queues: what to compare.
        round_number: part of the ids and of the seed.
        on_step: called after each batch with (answers so far, all answers, no figures).
    """
    # Count the answers as they are drawn, to show how far this is.
    total = 2 * sum(len(item.prompts) for item in queues)
    drawn = 0

    def count_answers(n: int) -> None:
        nonlocal drawn
        drawn += n
        on_step(drawn, total, {})

    # Sample and compare queue by queue; held-out pairs may go to several annotators each.
    collected: dict[Part, Collection] = {"train": Collection([], 0), "heldout": Collection([], 0)}
    for part, dimension, prompts in queues:
        batch = f"round-{round_number}-{part}"
        overlap = recipe.annotate.heldout_overlap if part == "heldout" else 1
        answers = answers_of_both(policy, prompts, recipe.annotate, count_answers)
        new = compare_answers(prompts, dimension, answers, batch=batch, seed=recipe.seed, overlap=overlap)
        before = collected[part]
        collected[part] = Collection(
            before.comparisons + new.comparisons, before.without_preference + new.without_preference
        )
    return collected
