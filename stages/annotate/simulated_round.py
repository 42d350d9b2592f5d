"""A round with simulated annotators: both variants answer every queue, and the annotators compare the answers.

What the queues hold is in ``stages.annotate.prompt_queues``; what an annotator does with a pair, in
``alignment.toy.simulated_annotators``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from alignment.data.encoded_dialogues import MARKED, EncodedPrompt, has_mark
from alignment.data.records import Comparison, SampledAnswer
from alignment.progress import OnStep
from alignment.settings.recipe import Recipe
from alignment.toy.simulated_comparisons import compare_answers
from alignment.workflow.prompts_and_policies import Policy
from stages.annotate.prompt_queues import Queue
from stages.annotate.variant_answers import answers_of_both

WITHOUT_PREFERENCE = "without preference"


def sample_and_compare(
    recipe: Recipe,
    policy: Policy,
    queues: Sequence[Queue[EncodedPrompt]],
    round_number: int,
    *,
    on_step: OnStep,
) -> tuple[list[Comparison], dict[str, int]]:
    """Sample both variants on every queue and have the annotators compare.

    Returns:
        What was collected; and reason -> how many pairs were left out for it.

    Args:
        recipe: temperatures, lengths and the seed.
        policy: the newest one; its two variants differ in temperature.
        queues: what to compare, encoded for the policy.
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
    comparisons: list[Comparison] = []
    left_out = Counter({WITHOUT_PREFERENCE: 0})
    for part, dimension, prompts in queues:
        batch = f"round-{round_number}-{part}"
        overlap = recipe.annotate.heldout_overlap if part == "heldout" else 1
        answers = answers_of_both(policy, prompts, recipe.annotate, count_answers)
        usable = [place for place, texts in enumerate(zip(*answers, strict=True)) if not _marked(policy, texts)]
        asked = [prompts[place].prompt for place in usable]
        first, second = ([side[place] for place in usable] for side in answers)
        new = compare_answers(asked, dimension, (first, second), batch=batch, seed=recipe.seed, overlap=overlap)
        comparisons += new.comparisons
        left_out[WITHOUT_PREFERENCE] += new.without_preference
        if marked := len(prompts) - len(usable):
            left_out[MARKED] += marked
    return comparisons, dict(left_out)


def _marked(policy: Policy, answers: Sequence[SampledAnswer]) -> bool:
    """Whether one of some answers has a mark of the policy's chat template."""
    return any(has_mark(answer.text, policy.role.backbone.encoder) for answer in answers)
