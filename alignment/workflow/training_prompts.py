"""The prompts that a run trains its policy on: those of its recipe, or of its comparisons where the recipe has none."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from alignment.data.jsonl_and_raw_rows import ReadReport
from alignment.data.records import Comparison, Prompt
from alignment.data.splits import dialogue_key
from alignment.errors import UserError
from alignment.files import resolve
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.settings.reward_sections import COLLECTED, source_names
from alignment.workflow.own_data import is_left_over, own_keys
from alignment.workflow.prompts_and_policies import check_against_heldout, read_prompts
from alignment.workflow.reward_data import Pools


class TrainingPrompts(NamedTuple):
    """Prompts to train on."""

    prompts: list[Prompt]
    report: ReadReport
    files: list[Path]
    """What they were read from."""


def training_prompts(recipe: Recipe, folder: RunFolder, round_number: int) -> TrainingPrompts:
    """The training prompts, checked against the held-out ones.

    Where ``data.prompts`` is the toy's in a run with own data, and nobody asked for it, they are those of the
    comparisons that reward models learn from.

    Args:
        recipe: of the run.
        folder: the run.
        round_number: of the round, from 1.

    Raises:
        UserError: a prompt cannot be read, is there twice or among the held-out ones; or there is none.
    """
    if is_left_over(recipe, "data.prompts"):
        found = _of_comparisons(recipe, folder, round_number)
    else:
        found = TrainingPrompts(*read_prompts(recipe.data, recipe.data.prompts), [resolve(recipe.data.prompts)])
    check_against_heldout(recipe, (prompt.messages for prompt in found.prompts), name=found.report.path)
    return found


def _of_comparisons(recipe: Recipe, folder: RunFolder, round_number: int) -> TrainingPrompts:
    """The prompts of the comparisons that there are, each once; about safety, if one of its comparisons is."""
    pools, comparisons, files = Pools(recipe, folder, round_number), list[Comparison](), list[Path]()
    for name in recipe.reward.models:
        section = recipe.reward.of(name)
        there = [item for item in source_names(section.data) if item != COLLECTED or pools.are_collected]
        found = pools.get(there, section.format, name)
        comparisons += found.train
        files += found.inputs
    prompts: dict[str, Prompt] = {}
    for item in comparisons:
        key = dialogue_key(item.prompt)
        if key not in prompts or item.dimension == "safety":
            prompts[key] = Prompt(
                id=f"prompt-{key}", messages=item.prompt, dimension=item.dimension, kind=item.dimension
            )
    if not prompts:
        raise UserError(
            f"data.prompts={recipe.data.prompts} is the toy's file, and {own_keys(recipe)[0]} is your own data. Give "
            "data.prompts=FILE; there are no comparisons yet whose prompts could be taken."
        )
    path = f"the prompts of the comparisons ({', '.join(map(str, dict.fromkeys(files)))})"
    return TrainingPrompts(list(prompts.values()), ReadReport(path=path, read=len(prompts)), list(dict.fromkeys(files)))
