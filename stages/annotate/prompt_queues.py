"""Which prompts a round's annotators are given (how many of what, drawn by a seed), encoded for who answers.

A queue is mixed in fixed shares: simulated annotators' by the kind of the prompts, which the toy world's data name;
people's by the prompts' tag, which all data have. All prompts of a share are used before one comes again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple

from alignment.data.encoded_dialogues import AnyPrompt, EncodedPrompt, encode_prompts
from alignment.data.records import Dimension, Part, Prompt
from alignment.errors import UserError
from alignment.settings.recipe import Recipe
from alignment.toy.simulated_annotators import ANNOTATORS
from alignment.toy.simulated_comparisons import check_known

if TYPE_CHECKING:
    from alignment.models.backbone import Backbone

SIMULATED_SHARES: dict[Dimension, dict[str, float]] = {
    "helpfulness": {"helpfulness": 0.5, "multi_turn": 0.25, "borderline": 0.25},
    "safety": {"safety": 0.6, "borderline": 0.25, "helpfulness": 0.1, "multi_turn": 0.05},
}
"""What a queue asks by the prompts' kind. About helpfulness, nothing harmful, lest the model learn to like refusals;
about safety, harmless prompts that look harmful among the others, so that it learns that answering those is safe."""
PEOPLE_SHARES: dict[Dimension, dict[Dimension, float]] = {
    "helpfulness": {"helpfulness": 1.0},
    "safety": {"safety": 0.6, "helpfulness": 0.4},
}
"""The same by the prompts' tag: harmless prompts among the others show that answering those is safe."""


def prompts_for_simulated(
    prompts: Sequence[Prompt], count: int, dimension: Dimension, *, rng: random.Random
) -> list[Prompt]:
    """About ``count`` prompts for simulated annotators, mixed by kind.

    Args:
        prompts: to choose from.
        count: how many; each share is rounded by itself.
        dimension: what the annotators are asked about.
        rng: of the draws.

    Raises:
        UserError: no prompt is of a wanted kind.
    """
    groups: list[tuple[list[Prompt], int]] = []
    for kind, share in SIMULATED_SHARES[dimension].items():
        own = [prompt for prompt in prompts if prompt.kind == kind]
        if not own:
            raise UserError(f"simulated annotators need prompts of kind {kind!r}, there is none; see data/README.md")
        groups.append((own, round(count * share)))

    def draw(own: list[Prompt], n: int) -> list[Prompt]:
        rng.shuffle(own)
        return own[:n]

    return _mixed(groups, draw, rng)


def prompts_for_people(
    prompts: Sequence[AnyPrompt], count: int, dimension: Dimension, *, rng: random.Random
) -> list[AnyPrompt]:
    """Exactly ``count`` prompts for people, mixed by tag; where there are none with a tag, any stand in for them.

    Args:
        prompts: to choose from.
        count: how many; the first share takes what rounding leaves.
        dimension: what people are asked about.
        rng: of the draws.

    Raises:
        UserError: there is no prompt to choose from.
    """
    if not prompts:
        raise UserError(f"there are no prompts for people to judge answers about {dimension}; see data.prompts")
    shares = PEOPLE_SHARES[dimension]
    sizes = {tag: round(count * share) for tag, share in shares.items()}
    sizes[next(iter(shares))] += count - sum(sizes.values())
    own = {tag: [prompt for prompt in prompts if prompt.dimension == tag] or list(prompts) for tag in sizes}
    return _mixed([(own[tag], size) for tag, size in sizes.items()], rng.sample, rng)


def _mixed(
    groups: Sequence[tuple[list[AnyPrompt], int]],
    draw: Callable[[list[AnyPrompt], int], list[AnyPrompt]],
    rng: random.Random,
) -> list[AnyPrompt]:
    """So many prompts of each group, in random order; a group goes round again once all of it was used."""
    chosen: list[AnyPrompt] = []
    for own, wanted in groups:
        left = wanted
        while left > 0:
            n = min(left, len(own))
            chosen += draw(own, n)
            left -= n
    rng.shuffle(chosen)
    return chosen


class Queue(NamedTuple, Generic[AnyPrompt]):
    """Prompts whose answers are to be compared, and what is asked about them."""

    part: Part
    dimension: Dimension
    prompts: list[AnyPrompt]


def fill_queues(
    recipe: Recipe, train: Sequence[Prompt], heldout: Sequence[Prompt], round_number: int
) -> list[Queue[Prompt]]:
    """What the simulated annotators of a round are given: training and held-out prompts, about either dimension.

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
    queues: list[Queue[Prompt]] = []
    for part, dimension, count in settings.pair_counts:
        rng = random.Random(f"{recipe.seed}/{round_number}/{part}/{dimension}")
        prompts = prompts_for_simulated(train if part == "train" else heldout, count, dimension, rng=rng)
        check_known(prompts)
        queues.append(Queue(part, dimension, prompts))
    return queues


def encode_queues(recipe: Recipe, backbone: Backbone, queues: Sequence[Queue[Prompt]]) -> list[Queue[EncodedPrompt]]:
    """The queues for the model that answers; raises ``UserError`` if a prompt leaves no room for an answer."""
    encoded: list[Queue[EncodedPrompt]] = []
    for part, dimension, prompts in queues:
        fitting, _ = encode_prompts(
            prompts,
            backbone.encoder,
            max_new_tokens=recipe.annotate.max_new_tokens,
            context_tokens=backbone.context_tokens,
            skip_too_long=False,
        )
        encoded.append(Queue(part, dimension, fitting))
    return encoded
