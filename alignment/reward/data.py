"""What a reward model is trained and tested on: its own comparisons, a share of the other dimension's, a held-out part.

Section 3.2.2: the safety model's mixture is 90 % safety and 10 % helpfulness comparisons.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignment.data.loading import check_against_heldout
from alignment.data.records import Comparison, Dimension, ReadReport, check_no_overlap, read_jsonl
from alignment.data.sources import load_comparisons, split_by_conversation
from alignment.errors import UserError
from alignment.recipe import Recipe
from alignment.resources import resolve
from alignment.run import RunFolder

GUARD_SEED = 1
"""Added to the seed, so that the guard's split is another than that of held-out conversations."""


@dataclass(frozen=True)
class RewardData:
    """Comparisons for one reward model."""

    train: list[Comparison]
    heldout: list[Comparison]
    left_out: dict[str, int]
    inputs: list[Path]
    report: ReadReport | None = None
    """What reading the user's own file left out."""


def reward_data(recipe: Recipe, folder: RunFolder, round_number: int) -> dict[Dimension, RewardData]:
    """Load and split the comparisons of every dimension that is to have a reward model.

    Raises:
        UserError: no data of a dimension, or a prompt is in both parts.
    """
    dimensions = recipe.reward.models
    collects = any(getattr(recipe.reward, dimension).data is None for dimension in dimensions)
    collected = _read_collected(folder, round_number) if collects else None
    data: dict[Dimension, RewardData] = {}
    for dimension in dimensions:
        section = getattr(recipe.reward, dimension)
        if section.data is None:
            assert collected is not None
            found = _about(collected, dimension, other_share=section.other_share, seed=recipe.seed)
        else:
            found = _own_file(recipe, dimension)
        data[dimension] = _checked(recipe, found, dimension)
    return data


def _checked(recipe: Recipe, data: RewardData, dimension: Dimension) -> RewardData:
    """The data, if both parts are there and apart; without training pairs that teach the wrong thing."""
    for name, part in (("training", data.train), ("held-out", data.heldout)):
        if not part:
            raise UserError(f"no {name} comparisons about {dimension} ({', '.join(map(str, data.inputs))})")
    data = without_unsafe_preferred(data)
    if recipe.reward.labels == "shuffled":
        data = replace(data, train=shuffle_labels(data.train, seed=recipe.seed))
    check_no_overlap(
        (item.prompt for item in data.train),
        (item.prompt for item in data.heldout),
        train_name=f"the {dimension} training comparisons",
        heldout_name="the held-out ones",
    )
    check_against_heldout(recipe, (item.prompt for item in data.train), name=f"the {dimension} training comparisons")
    return data


def apart_for_guard(
    data: Mapping[Dimension, RewardData], *, share: float, seed: int
) -> tuple[dict[Dimension, RewardData], RewardData | None]:
    """Keep a share of the conversations from every reward model, and give them to the guard.

    Args:
        data: what each reward model would be trained on.
        share: of the conversations; 0: there is no guard.
        seed: of the split, which depends on it and a conversation's id alone, so that it is one for all models.

    Returns:
        What is left for each model; and the guard's comparisons, of all dimensions, tested on all held-out ones.

    Raises:
        UserError: too few conversations to share.
    """
    if share == 0:
        return dict(data), None
    left: dict[Dimension, RewardData] = {}
    guards: list[Comparison] = []
    for dimension, item in data.items():
        own, guard = split_by_conversation(item.train, heldout_fraction=share, seed=seed + GUARD_SEED)
        if not own or not guard:
            raise UserError(f"reward.guard_share={share}: too few conversations about {dimension} to share")
        left[dimension] = replace(item, train=own, left_out={**item.left_out, "kept for the guard": len(guard)})
        guards += [comparison for comparison in guard if comparison.dimension == dimension]
    heldout = [comparison for item in data.values() for comparison in item.heldout]
    inputs = list(dict.fromkeys(path for item in data.values() for path in item.inputs))
    return left, RewardData(guards, heldout, {}, inputs)


def without_unsafe_preferred(data: RewardData) -> RewardData:
    """Leave out, and count, training comparisons whose preferred answer is unsafe and whose other one is safe.

    As section 3.2.1 does: safer answers are to be the better ones. Held-out comparisons all stay: they measure.
    """
    kept = [item for item in data.train if not (item.safety and item.safety.rejected_safe > item.safety.chosen_safe)]
    if len(kept) == len(data.train):
        return data
    counted = {"unsafe answer preferred": len(data.train) - len(kept)}
    return replace(data, train=kept, left_out={**data.left_out, **counted})


def shuffle_labels(comparisons: Sequence[Comparison], *, seed: int) -> list[Comparison]:
    """The control arm's labels: a coin decides which answer is preferred, grade and safety bin come from another pair.

    Answers, prompts and the number of each label stay as they are, so that nothing but the preferences is lost.
    """
    chance = random.Random(seed)
    labels = [(item.grade, item.safety) for item in comparisons]
    chance.shuffle(labels)
    shuffled = []
    for item, (grade, safety) in zip(comparisons, labels, strict=True):
        changes: dict[str, Any] = {"grade": grade, "safety": safety}
        if chance.random() < 0.5:
            changes |= {
                "chosen": item.rejected,
                "rejected": item.chosen,
                "chosen_source": item.rejected_source,
                "rejected_source": item.chosen_source,
            }
        shuffled.append(item.model_copy(update=changes))
    return shuffled


def _own_file(recipe: Recipe, dimension: Dimension) -> RewardData:
    section = getattr(recipe.reward, dimension)
    source = resolve(section.data)
    comparisons, report = load_comparisons(
        str(source), dimension=dimension, format=section.format, on_error=recipe.data.on_error
    )
    train, heldout = split_by_conversation(comparisons, heldout_fraction=recipe.reward.heldout_share, seed=recipe.seed)
    return RewardData(train, heldout, report.skipped, [source], report)


def _read_collected(folder: RunFolder, round_number: int) -> RewardData:
    """The comparisons of all rounds so far, of both dimensions; held-out ones of this round only."""
    files = [
        folder.require("annotate", number, command="python -m stages.annotate") / "comparisons.jsonl"
        for number in range(1, round_number + 1)
    ]
    heldout_file = folder.stage("annotate", round_number) / "heldout_comparisons.jsonl"
    comparisons = [item for file in files for item in read_jsonl(file, Comparison)[0]]
    return RewardData(comparisons, read_jsonl(heldout_file, Comparison)[0], {}, [*files, heldout_file])


def _about(collected: RewardData, dimension: Dimension, *, other_share: float, seed: int) -> RewardData:
    """All comparisons of one dimension, with a share of the other's mixed into those to train on."""
    own = [item for item in collected.train if item.dimension == dimension]
    others = [item for item in collected.train if item.dimension != dimension]
    # ``other_share`` of the mixture, not of the other comparisons: n_other = share / (1 - share) * n_own.
    wanted = round(len(own) * other_share / (1 - other_share)) if other_share < 1 else len(others)
    mixed = random.Random(seed).sample(others, min(wanted, len(others)))
    heldout = [item for item in collected.heldout if item.dimension == dimension]
    return replace(collected, train=own + mixed, heldout=heldout)
