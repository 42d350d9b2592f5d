"""Pairs sampled before anybody judges them: in large batches, for a server that needs no model then.

Unlike the rest of the app, this needs torch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from alignment.data.records import Dimension, Prompt
from alignment.errors import UserError
from alignment.models.policies import Policy
from alignment.models.variants import Answer, Variant
from alignment.recipe import Recipe
from annotation_ui.items import NewAnswer, NewItem, VariantInfo
from annotation_ui.rounds import PRIORITY, Wanted
from annotation_ui.session import SLOTS

SHARES: dict[Dimension, dict[Dimension, float]] = {
    "helpfulness": {"helpfulness": 1.0},
    "safety": {"safety": 0.6, "helpfulness": 0.4},
}
"""What a queue asks by the prompts' tag: harmless prompts among the others show that answering those is safe."""
SPARE = 0.1
"""Share of pairs sampled above what is wanted, for those that get skipped."""


def sampled_pairs(
    recipe: Recipe, policy: Policy, pool: Sequence[Prompt], wanted: Wanted, batch: str
) -> tuple[list[NewItem], int]:
    """Pairs of a policy's answers at two temperatures, and how many were left out: answers are equal, or one is empty.

    Args:
        recipe: temperatures, lengths and the seed.
        policy: who answers.
        pool: the prompts to choose from.
        wanted: what for, and how many judgments; some more pairs are made.
        batch: of the items.

    Raises:
        UserError: there is no prompt to choose from, or no pair is left.
    """
    rng = random.Random(f"{recipe.seed}/{batch}/{wanted.part}/{wanted.dimension}")
    prompts = choose_prompts(pool, round(wanted.judgments * (1 + SPARE)) + 1, wanted.dimension, rng=rng)
    first, second = (Variant(policy, recipe, temperature)(prompts) for temperature in recipe.annotate.temperatures)
    found: list[NewItem] = []
    for number, (prompt, *answers) in enumerate(zip(prompts, first, second, strict=True)):
        texts = {answer.text.strip() for answer in answers}
        if len(texts) == len(SLOTS) and "" not in texts:
            found.append(
                NewItem(
                    id=f"{batch}/{wanted.part}/{number:05d}",
                    messages=prompt.messages,
                    answers={slot: _stored(recipe, answer) for slot, answer in zip(SLOTS, answers, strict=True)},
                    part=wanted.part,
                    kind=prompt.kind,
                    batch=batch,
                    priority=PRIORITY,
                )
            )
    if not found:
        raise UserError(
            f"of {len(prompts)} pairs of answers about {wanted.dimension}, none can be compared: the two are equal, or "
            "one is empty. Try another seed=, other annotate.temperatures=, or a policy that was trained for longer."
        )
    return found, len(prompts) - len(found)


def choose_prompts(pool: Sequence[Prompt], count: int, dimension: Dimension, *, rng: random.Random) -> list[Prompt]:
    """Prompts for a queue, by their tag; all of a tag are used before one comes again.

    Raises:
        UserError: there is no prompt to choose from.
    """
    if not pool:
        raise UserError(f"there are no prompts for people to judge answers about {dimension}; see data.prompts")
    shares = SHARES[dimension]
    sizes = {tag: round(count * share) for tag, share in shares.items()}
    sizes[next(iter(shares))] += count - sum(sizes.values())
    chosen: list[Prompt] = []
    for tag, left in sizes.items():
        own = [prompt for prompt in pool if prompt.dimension == tag] or list(pool)
        while left > 0:
            chosen += rng.sample(own, min(left, len(own)))
            left -= len(own)
    rng.shuffle(chosen)
    return chosen


def _stored(recipe: Recipe, answer: Answer) -> NewAnswer:
    source = answer.source
    sampling = {"temperature": source.temperature, "max_new_tokens": recipe.annotate.max_new_tokens}
    info = VariantInfo(source.variant, source.checkpoint, sampling=sampling)
    return NewAnswer(answer.text, info, n_tokens=source.n_tokens, finish_reason=source.finish_reason)
