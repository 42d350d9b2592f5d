"""What a reward model is trained and tested on: its own comparisons, what they are mixed with, a held-out part.

Section 3.2.2: the helpfulness model learns from all helpfulness comparisons and as many drawn from the rest; the safety
model's mixture is 90 % safety and 10 % helpfulness comparisons.

Also the guard's share of the conversations, and the control arm's labels.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignment.data.jsonl_and_raw_rows import read_jsonl
from alignment.data.judgments_by_majority import by_majority, without_duplicates
from alignment.data.readers import load_comparisons
from alignment.data.records import Comparison, Dimension
from alignment.data.splits import check_no_overlap, split_by_conversation
from alignment.errors import UserError
from alignment.files import resolve
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.settings.reward_sections import COLLECTED, RewardModelSection, SourceSection, source_names
from alignment.workflow.prompts_and_policies import check_against_heldout

GUARD = "guard"


GUARD_SEED = 1
"""Added to the seed, so that the guard's split is another than that of held-out conversations."""


@dataclass(frozen=True)
class RewardData:
    """Comparisons for one reward model."""

    train: list[Comparison]
    heldout: list[Comparison]
    left_out: dict[str, int]
    inputs: list[Path]
    notes: list[str] = field(default_factory=list)
    """What is to be said of it: rows that were left out, a mixture that falls short."""


def reward_data(recipe: Recipe, folder: RunFolder, round_number: int) -> dict[Dimension, RewardData]:
    """Load, split and mix the comparisons of every dimension that is to have a reward model.

    Raises:
        UserError: no data of a dimension, a judgment that is there twice, or a prompt that is in both parts.
    """
    pools = Pools(recipe, folder, round_number)
    return {
        dimension: _checked(recipe, _mixture(recipe, pools, dimension), dimension) for dimension in recipe.reward.models
    }


class Pools:
    """Comparisons by where they are from."""

    def __init__(self, recipe: Recipe, folder: RunFolder, round_number: int) -> None:
        self.recipe, self.folder, self.round_number = recipe, folder, round_number

    def get(self, data: str | list[str] | None, format: str, dimension: Dimension) -> RewardData:
        """The comparisons about a dimension from one or several sources, each judgment once."""
        # Read every source, and add up what each left out.
        parts = _with_own_ids([self._get(name, format, dimension) for name in source_names(data)])
        left_out: Counter[str] = Counter()
        for part in parts:
            left_out.update(part.left_out)
        # Keep each judgment once, in both parts.
        train, copies = without_duplicates(
            [item for part in parts for item in part.train],
            on_error=self.recipe.data.on_error,
            name=f"the {dimension} comparisons",
        )
        heldout, heldout_copies = without_duplicates(
            [item for part in parts for item in part.heldout],
            on_error=self.recipe.data.on_error,
            name=f"the held-out {dimension} comparisons",
        )
        if copies + heldout_copies:
            left_out["copies"] = copies + heldout_copies
        # Where the recipe asks for it, train on one comparison a pair: the majority's.
        if self.recipe.reward.overlap == "majority":
            train, left_out["pairs with even votes"] = by_majority(train)
        return RewardData(
            train=train,
            heldout=heldout,
            left_out=dict(left_out),
            inputs=[path for part in parts for path in part.inputs],
            notes=[note for part in parts for note in part.notes],
        )

    @property
    def are_collected(self) -> bool:
        """Whether the run has collected comparisons of its own, in every round so far."""
        return all(self.folder.finished("annotate", number) for number in range(1, self.round_number + 1))

    def _get(self, name: str, format: str, dimension: Dimension) -> RewardData:
        if name == COLLECTED:
            collected = self._collected()
            train = [item for item in collected.train if item.dimension == dimension]
            heldout = [item for item in collected.heldout if item.dimension == dimension]
            return replace(collected, train=train, heldout=heldout)
        source = resolve(name)
        comparisons, report = load_comparisons(
            str(source),
            dimension=dimension,
            format=format,
            on_error=self.recipe.data.on_error,
            unused=self.recipe.data.unused,
        )
        train, heldout = split_by_conversation(
            comparisons, heldout_fraction=self.recipe.reward.heldout_share, seed=self.recipe.seed
        )
        return RewardData(train, heldout, report.skipped, [source], [] if report.is_whole else [report.summary()])

    @functools.cache  # noqa: B019  # lives as long as the pools
    def _collected(self) -> RewardData:
        """The comparisons of all rounds so far, of both dimensions; held-out ones of this round only."""
        files = [
            self.folder.require("annotate", number) / "comparisons.jsonl" for number in range(1, self.round_number + 1)
        ]
        heldout_file = self.folder.stage("annotate", self.round_number) / "heldout_comparisons.jsonl"
        found = [item for file in files for item in read_jsonl(file, Comparison)[0]]
        comparisons = list({item.id: item for item in found}.values())  # rounds may read the same file of comparisons
        return RewardData(comparisons, read_jsonl(heldout_file, Comparison)[0], {}, [*files, heldout_file])


MIXED = "of what is mixed in, "


def _mixture(recipe: Recipe, pools: Pools, dimension: Dimension) -> RewardData:
    """All comparisons of one dimension, with what the recipe mixes into those to train on."""
    section = recipe.reward.of(dimension)
    own = pools.get(section.data, section.format, dimension)
    own_share, n_own = 1 - sum(source.share for source in section.mix), len(own.train)
    for number, source in enumerate(section.mix):
        others = _others(recipe, pools, source, mixed_into=section)
        left_out = Counter(own.left_out)
        left_out.update({f"{MIXED}{why}": n for why, n in others.left_out.items()})  # unlike +, it keeps what is 0
        taken = {(item.id, item.dimension) for item in own.train}
        candidates = [item for item in others.train if (item.id, item.dimension) not in taken]
        # ``share`` of the mixture, not of what it is drawn from.
        wanted = round(n_own * source.share / own_share)
        drawn = random.Random(recipe.seed + number).sample(candidates, min(wanted, len(candidates)))
        own = replace(
            own,
            train=own.train + drawn,
            left_out=dict(left_out),
            inputs=list(dict.fromkeys(own.inputs + others.inputs)),
            notes=[*own.notes, *others.notes, *_shortage(dimension, source, wanted=wanted, found=len(drawn))],
        )
    return own


def _with_own_ids(parts: Sequence[RewardData]) -> list[RewardData]:
    """Several sources whose records do not share ids: files of one name number their rows alike."""
    seen: set[str] = set()
    found: list[RewardData] = []
    for number, part in enumerate(parts):
        ids = {item.id for item in [*part.train, *part.heldout]}
        if ids & seen:
            train, heldout = (
                [item.model_copy(update={"id": f"{item.id}@{number}"}) for item in items]
                for items in (part.train, part.heldout)
            )
            part = replace(part, train=train, heldout=heldout)
        seen |= ids
        found.append(part)
    return found


def _others(recipe: Recipe, pools: Pools, source: SourceSection, *, mixed_into: RewardModelSection) -> RewardData:
    """What a source of a mixture offers; nothing where the recipe has no data about its dimension."""
    if source.data is not None:
        return pools.get(source.data, source.format, source.dimension)
    other = recipe.reward.of(source.dimension)
    if other.data is None and mixed_into.data is not None and source.dimension not in recipe.reward.models:
        return RewardData([], [], {}, [])
    return pools.get(other.data, other.format, source.dimension)


def _shortage(dimension: Dimension, source: SourceSection, *, wanted: int, found: int) -> list[str]:
    if found == wanted:
        return []
    return [f"reward.{dimension}.mix: wanted {wanted} comparisons about {source.dimension}, took the {found} there are"]


def _checked(recipe: Recipe, data: RewardData, dimension: Dimension) -> RewardData:
    """The data, if both parts are there and apart; without training pairs that teach the wrong thing."""
    for name, part in (("training", data.train), ("held-out", data.heldout)):
        if not part:
            raise UserError(f"no {name} comparisons about {dimension} ({', '.join(map(str, data.inputs))})")
    for part in (data.train, data.heldout):  # what was mixed may hold what another source holds
        without_duplicates(part, on_error="raise", name=f"the {dimension} comparisons")
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


def data_of_models(recipe: Recipe, folder: RunFolder, round_number: int) -> dict[str, RewardData]:
    """Name -> comparisons of every reward model, the guard's included."""
    own, guard = apart_for_guard(
        reward_data(recipe, folder, round_number), share=recipe.reward.guard_share, seed=recipe.seed
    )
    return dict(own.items()) | ({GUARD: guard} if guard else {})
