"""The pairs of a round that people judge: how many, from which run and settings, and sampled. Not a stage itself."""

from __future__ import annotations

import hashlib
import random
import secrets
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import get_args

from alignment.data.encoded_dialogues import MARKED, EncodedPrompt, has_mark
from alignment.data.records import HELDOUT_PAIRS, Dimension, Part, Prompt, SampledAnswer
from alignment.errors import UserError
from alignment.files import content_hash, read_json, write_json
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.workflow.prompts_and_policies import Policy, load_backbone, load_policy, newest_before, with_room
from annotation_ui.exchange.rounds import PRIORITY, Goal
from annotation_ui.store.items import NewItem
from annotation_ui.store.pairs import NewAnswer, VariantInfo
from annotation_ui.vocabulary import SLOTS
from stages.annotate.prompt_queues import prompts_for_people
from stages.annotate.variant_answers import answers_of_both
from stages.door.progress_and_exit import progress, say

BOTH: tuple[Part, ...] = get_args(Part)
PARTS: dict[Part, str] = {"train": "training prompts", "heldout": "held-out prompts"}


def goals_of(recipe: Recipe, parts: Collection[Part] = BOTH) -> list[Goal]:
    """How many judgments of each kind the recipe asks for, of some parts."""
    counts = recipe.annotate.pair_counts
    return [Goal(each.dimension, each.part, each.pairs) for each in counts if each.part in parts]


def run_id(folder: RunFolder) -> str:
    """Tells this run from others with the same database; drawn once, and kept beside the store."""
    file = folder.root / "annotation" / "run.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"id": secrets.token_hex(4)})
    return str(read_json(file)["id"])


def made_of(
    recipe: Recipe,
    folder: RunFolder,
    round_number: int,
    projects: Mapping[Dimension, str],
    prompt_files: Sequence[Path],
    *,
    parts: Collection[Part] = BOTH,
) -> str:
    """A short hash of what the pairs are made from, the last part of the batch's name.

    Another policy, other prompts or other settings make another batch, so no old judgment is taken for a new pair.

    Args:
        recipe: the seed, and how the answers are sampled.
        folder: the run; the newest policy of the rounds before answers.
        round_number: of the round, from 1.
        projects: the project in which pairs about each dimension are judged.
        prompt_files: what the prompts were read from.
        parts: what the pairs are for.
    """
    stage, _, number = newest_before(folder, round_number).partition("-")
    data, settings = recipe.data, recipe.annotate
    key = (
        content_hash(folder.stage(stage, int(number) if number else None)),
        [content_hash(file) if file.exists() else str(file) for file in prompt_files],
        (data.on_error, data.too_long, recipe.seed, settings.temperatures, settings.max_new_tokens),
        [(each.dimension, each.part, each.judgments, projects[each.dimension]) for each in goals_of(recipe, parts)],
    )
    return hashlib.sha256(repr(key).encode()).hexdigest()[:8]


def sample_pairs(
    recipe: Recipe,
    folder: RunFolder,
    round_number: int,
    batch: str,
    prompts: Mapping[Part, Sequence[Prompt]],
    projects: Mapping[Dimension, str],
) -> tuple[dict[str, list[NewItem]], Counter[str]]:
    """Sample pairs for the queue of each project, some more than are wanted.

    Args:
        recipe: how many judgments of each kind, and how the answers are sampled.
        folder: the run; the newest policy of the rounds before answers.
        round_number: of the round, from 1.
        batch: the name that all these pairs share in the store.
        prompts: the prompts of each part that pairs are wanted for.
        projects: the project in which pairs about each dimension are judged.

    Returns:
        Project -> its pairs, and reason -> how many prompts or pairs were left out for it.
    """
    # Load the policy that answers.
    backbone = load_backbone(folder, recipe.model)
    policy = load_policy(folder, backbone, newest_before(folder, round_number))
    # Keep the prompts that leave room for an answer.
    fitting: dict[Part, list[EncodedPrompt]] = {}
    left_out: Counter[str] = Counter()
    longest = recipe.annotate.max_new_tokens
    for part, pool in prompts.items():
        fitting[part], unusable = with_room(policy.role.backbone, pool, recipe.data, max_new_tokens=longest)
        for reason, count in unusable.items():
            if count:
                left_out[f"{PARTS[part]}, {reason}"] = count
                say(f"{PARTS[part]}: {count} {reason}, left out")
    # Sample the pairs of each kind for the project that judges it.
    folder.seed("annotate", recipe, round_number)
    items: dict[str, list[NewItem]] = {name: [] for name in projects.values()}
    goals = [goal for goal in goals_of(recipe) if goal.part in prompts]
    with progress("annotate: sampling") as on_step:
        for number, each in enumerate(goals, start=1):
            found, unusable = sampled_pairs(recipe, policy, fitting[each.part], each, batch)
            items[projects[each.dimension]] += found
            prefix = HELDOUT_PAIRS if each.part == "heldout" else ""
            left_out.update({f"{prefix}{reason}": count for reason, count in unusable.items() if count})
            on_step(number, len(goals), {})
    return items, left_out


SPARE = 0.1
"""Share of pairs sampled above what is wanted, for those that get skipped."""


def sampled_pairs(
    recipe: Recipe, policy: Policy, pool: Sequence[EncodedPrompt], goal: Goal, batch: str
) -> tuple[list[NewItem], dict[str, int]]:
    """Pairs of a policy's answers at two temperatures, and reason -> how many were left out for it.

    Args:
        recipe: temperatures, lengths and the seed.
        policy: who answers.
        pool: the prompts to choose from, encoded for the policy.
        goal: what for, and how many judgments; some more pairs are made.
        batch: of the items.

    Raises:
        UserError: there is no prompt to choose from, or no pair is left.
    """
    # Choose prompts, and answer each at both temperatures.
    rng = random.Random(f"{recipe.seed}/{batch}/{goal.part}/{goal.dimension}")
    prompts = prompts_for_people(pool, round(goal.judgments * (1 + SPARE)) + 1, goal.dimension, rng=rng)
    first, second = answers_of_both(policy, prompts, recipe.annotate)
    # Keep the pairs that can be compared: two answers that differ, none of them empty.
    found: list[NewItem] = []
    marked, encoder = 0, policy.role.backbone.encoder
    for number, (asked, *answers) in enumerate(zip(prompts, first, second, strict=True)):
        texts = {answer.text.strip() for answer in answers}
        if any(has_mark(text, encoder) for text in texts):
            marked += 1
        elif len(texts) == len(SLOTS) and "" not in texts:
            found.append(
                NewItem(
                    id=f"{batch}/{goal.part}/{number:05d}",
                    messages=asked.prompt.messages,
                    answers={slot: _stored(recipe, answer) for slot, answer in zip(SLOTS, answers, strict=True)},
                    part=goal.part,
                    kind=asked.prompt.kind,
                    batch=batch,
                    priority=PRIORITY,
                )
            )
    if not found:
        raise UserError(
            f"of {len(prompts)} pairs of answers about {goal.dimension}, none can be compared: the two are equal, or "
            "one is empty. Try another seed=, other annotate.temperatures=, or a policy that was trained for longer."
        )
    unusable = {"answers equal or empty": len(prompts) - len(found) - marked}
    return found, unusable | ({MARKED: marked} if marked else {})


def _stored(recipe: Recipe, answer: SampledAnswer) -> NewAnswer:
    source = answer.source
    sampling = {"temperature": source.temperature, "max_new_tokens": recipe.annotate.max_new_tokens}
    info = VariantInfo(source.variant, source.checkpoint, sampling=sampling)
    return NewAnswer(answer.text, info, n_tokens=source.n_tokens, finish_reason=source.finish_reason)
