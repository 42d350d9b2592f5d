"""The pairs of a round that people judge: how many, from which run and settings, and sampled. Not a stage itself."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence

from alignment.data.records import Dimension, Prompt
from alignment.files import content_hash, read_json, write_json
from alignment.models.policies import load_backbone, load_policy, newest_before, with_room
from alignment.recipe import Recipe
from alignment.resources import resolve
from alignment.run import RunFolder
from annotation_ui.items import NewItem, Part
from annotation_ui.presampling import sampled_pairs
from annotation_ui.rounds import Wanted
from stages.progress import progress, say

PARTS: dict[Part, str] = {"train": "training prompts", "heldout": "held-out prompts"}


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


def run_id(folder: RunFolder) -> str:
    """Tells this run from others with the same database; drawn once, and kept beside the store."""
    file = folder.root / "annotation" / "run.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"id": secrets.token_hex(4)})
    return str(read_json(file)["id"])


def made_of(recipe: Recipe, folder: RunFolder, round_number: int, projects: Mapping[Dimension, str]) -> str:
    """Another policy, other prompts or other settings make another batch: nobody's judgment is taken for them."""
    stage, _, number = newest_before(folder, round_number).partition("-")
    data, settings = recipe.data, recipe.annotate
    files = [resolve(name) for name in (data.prompts, data.heldout_prompts) if name]
    key = (
        content_hash(folder.stage(stage, int(number) if number else None)),
        [content_hash(file) if file.exists() else str(file) for file in files],
        (data.on_error, data.too_long, recipe.seed, settings.temperatures, settings.max_new_tokens),
        [(each.dimension, each.part, each.judgments, projects[each.dimension]) for each in wanted(recipe)],
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
    """Pairs for the queue of each project, some more than are wanted, and what was left out."""
    backbone = load_backbone(folder, recipe.model)
    policy = load_policy(folder, backbone, newest_before(folder, round_number))
    fitting: dict[Part, list[Prompt]] = {}
    left_out: Counter[str] = Counter()
    for part, pool in prompts.items():
        fitting[part], too_long = with_room(recipe, backbone, pool, max_new_tokens=recipe.annotate.max_new_tokens)
        if too_long:
            left_out[f"{PARTS[part]}, too long"] = too_long
            say(f"{PARTS[part]}: {too_long} too long, left out")
    folder.seed("annotate", recipe, round_number)
    items: dict[str, list[NewItem]] = {name: [] for name in projects.values()}
    goals = wanted(recipe)
    with progress("annotate: sampling") as on_step:
        for number, each in enumerate(goals, start=1):
            found, equal = sampled_pairs(recipe, policy, fitting[each.part], each, batch)
            items[projects[each.dimension]] += found
            left_out["answers equal or empty"] += equal
            on_step(number, len(goals), {})
    return items, left_out
