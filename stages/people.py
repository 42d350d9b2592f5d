"""People stand in for the simulated annotators: their pairs are sampled, served and waited for. Not a stage itself.

The app's store lies outside the stage's folder and outlives it: what people have said stays there whatever happens to
this process, and started again it goes on from there. Where somebody serves that store already, this waits for them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from alignment.data.loading import heldout_prompts, training_prompts
from alignment.data.records import Comparison, Dimension, Prompt
from alignment.files import content_hash
from alignment.models.policies import load_backbone, load_policy, newest_before, with_room
from alignment.recipe import Recipe
from alignment.run import RunFolder
from annotation_ui.desk import Desk
from annotation_ui.export import ExportFilter, comparisons
from annotation_ui.items import NewItem, Part
from annotation_ui.presampling import sampled_pairs
from annotation_ui.rounds import Standing, Wanted, add_batch, has_batch, standings
from annotation_ui.server import keep_projects, serving_in_background
from annotation_ui.settings import AppSettings, load_settings
from annotation_ui.store import Store
from stages.progress import OnStep, progress, say

POLL_SECONDS = 1.0


def judged_by_people(recipe: Recipe, folder: RunFolder, round_number: int) -> dict[Part, list[Comparison]]:
    """Have people judge a round's pairs; returns once enough are judged, with exactly those judgments."""
    settings = load_settings(recipe.annotate.ui_settings, [f"port={recipe.annotate.ui_port}"])
    settings = settings.model_copy(update={"variants": None})
    store = Store(settings.database or folder.root / "annotation" / "annotations.db")
    keep_projects(store, settings)
    batch = _batch_name(recipe, folder, round_number)
    if not has_batch(store, batch):
        add_batch(store, batch, f"round-{round_number}", _sampled(recipe, folder, round_number, batch))
    with _served(store, settings) as url:
        say(f"waiting for people: open {url}")
        with progress("annotate: judged") as on_step:
            _wait(store, batch, wanted(recipe), on_step)
    return {"train": _judged(store, batch, "train"), "heldout": _judged(store, batch, "heldout")}


def _judged(store: Store, batch: str, part: Part) -> list[Comparison]:
    return comparisons(store, ExportFilter.model_validate({"part": part, "batches": (batch,), "margins": "none"}))


def wanted(recipe: Recipe) -> list[Wanted]:
    """How many judgments of each kind the recipe asks for."""
    settings = recipe.annotate
    sizes: list[tuple[Dimension, Part, int]] = [
        ("helpfulness", "train", settings.helpfulness_pairs),
        ("safety", "train", settings.safety_pairs),
        ("helpfulness", "heldout", settings.heldout_helpfulness_pairs),
        ("safety", "heldout", settings.heldout_safety_pairs),
    ]
    return [Wanted(*size) for size in sizes if size[2]]


def _batch_name(recipe: Recipe, folder: RunFolder, round_number: int) -> str:
    """Another policy, other prompts or other settings make another batch: nobody's judgment is taken for them."""
    policy = newest_before(folder, round_number)
    stage, _, number = policy.partition("-")
    made = content_hash(folder.stage(stage, int(number) if number else None))
    key = f"{made} {recipe.data} {recipe.seed} {recipe.annotate.temperatures} {recipe.annotate.max_new_tokens}"
    key += f" {[(each.dimension, each.part, each.judgments) for each in wanted(recipe)]}"
    return f"round-{round_number}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _sampled(recipe: Recipe, folder: RunFolder, round_number: int, batch: str) -> dict[Dimension, list[NewItem]]:
    """Pairs for every queue, some more than are wanted."""
    backbone = load_backbone(folder, recipe.model)
    policy = load_policy(folder, backbone, newest_before(folder, round_number))
    pools: dict[Part, list[Prompt]] = {"train": training_prompts(recipe)[0], "heldout": heldout_prompts(recipe)[0]}
    for part, prompts in pools.items():
        pools[part], _ = with_room(recipe, backbone, prompts, max_new_tokens=recipe.annotate.max_new_tokens)
    folder.seed("annotate", recipe, round_number)
    items: dict[Dimension, list[NewItem]] = {"helpfulness": [], "safety": []}
    goals = wanted(recipe)
    with progress("annotate: sampling") as on_step:
        for number, each in enumerate(goals, start=1):
            items[each.dimension] += sampled_pairs(recipe, policy, pools[each.part], each, batch)
            on_step(number, len(goals), {})
    return items


# -- waiting ----------------------------------------------------------------------------------------------------------


@contextmanager
def _served(store: Store, settings: AppSettings) -> Iterator[str]:
    """The address of whoever serves the store already, else of a server of our own."""
    if store.is_served():
        yield store.server_url() or "the server that has this store"
        return
    with serving_in_background(Desk(store, settings)) as url:
        yield url


def _wait(store: Store, batch: str, goals: Sequence[Wanted], on_step: OnStep) -> list[Standing]:
    """Look at the store until there is enough, or nothing left that somebody could judge."""
    total = sum(each.judgments for each in goals)
    while True:
        found = standings(store, batch, goals)
        on_step(sum(min(each.judged, each.wanted.judgments) for each in found), total, {})
        if all(each.is_over for each in found):
            break
        time.sleep(POLL_SECONDS)
    for each in found:
        if each.judged < each.wanted.judgments:
            what = f"{each.wanted.dimension}, {each.wanted.part}"
            say(f"{what}: {each.judged} of {each.wanted.judgments} judged, and no pair is left")
    return found
