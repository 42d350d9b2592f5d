"""The prompts of a run: those that its policy is trained on, and those that select a checkpoint.

The prompts that select are kept out of annotation, rejection sampling and PPO, and are never those that the report is
made on: a checkpoint that is chosen by the prompts it is reported on looks better than it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alignment.data.jsonl_and_raw_rows import ReadReport, read_jsonl
from alignment.data.readers import load_comparisons, load_demonstrations
from alignment.data.records import Comparison, Dimension, Prompt
from alignment.data.splits import answered_prompts, check_heldout_apart, dialogue_key, split_by_conversation
from alignment.errors import UserError
from alignment.files import resolve
from alignment.run.run_folder import RunFolder
from alignment.run.run_recipe import recipe_at
from alignment.run.stage_inputs import COMPARISONS
from alignment.settings.recipe import Recipe
from alignment.settings.reward_sections import COLLECTED, source_names
from alignment.settings.sections import HELDOUT
from alignment.workflow.own_data import is_left_over, own_keys
from alignment.workflow.prompts_and_policies import check_against_heldout, heldout_prompts, read_prompts
from alignment.workflow.reward_data import Pools

SELECTION_SEED = 2
"""Of the split, whatever the run's seed is: stages with seeds of their own have to agree on it."""


class PromptSet(NamedTuple):
    """Prompts, and where they are from."""

    prompts: list[Prompt]
    report: ReadReport
    files: list[Path]
    """What they were read from."""


def training_prompts(recipe: Recipe, folder: RunFolder, round_number: int) -> PromptSet:
    """The prompts to train on, checked against the held-out ones; without those that select a checkpoint.

    Where ``data.prompts`` is the toy's in a run with own data, and nobody asked for it, they are those of the
    comparisons that reward models learn from.

    Args:
        recipe: of the run.
        folder: the run.
        round_number: of the round, from 1.

    Raises:
        UserError: a prompt cannot be read, is there twice, or is among the held-out ones or those that select; or
            there is none.
    """
    found = _all_prompts(recipe, folder, round_number)
    name = found.report.path
    check_against_heldout(recipe, (prompt.messages for prompt in found.prompts), name=name)
    if not _selects_by_share(recipe):
        selection = selection_prompts(recipe, folder, round_number)
        if recipe.data.selection_prompts != HELDOUT:
            check_heldout_apart(
                (prompt.messages for prompt in found.prompts),
                (prompt.messages for prompt in selection.prompts),
                train_name=name,
                heldout_name=selection.report.path,
            )
        return found
    kept, _ = _by_share(recipe, found)
    if not kept:
        raise UserError(f"data.selection_share={recipe.data.selection_share:g} leaves no prompt of {name} to train on")
    return found._replace(prompts=kept)


def selection_prompts(recipe: Recipe, folder: RunFolder, round_number: int) -> PromptSet:
    """The prompts that select a checkpoint: a file's, or a share of the conversations in the training prompts.

    Args:
        recipe: of the run.
        folder: the run.
        round_number: of the round, from 1.

    Raises:
        UserError: a prompt cannot be read, is there twice, or is among the held-out ones.
    """
    given = recipe.data.selection_prompts
    if given == HELDOUT:
        prompts, report = heldout_prompts(recipe.data)
        named = recipe.data.heldout_prompts
        return PromptSet(prompts, report, [resolve(named)] if named else [])
    if given is None or _selects_by_share(recipe):
        found = _all_prompts(recipe, folder, round_number)
        return found._replace(prompts=_by_share(recipe, found)[1])
    prompts, report = read_prompts(recipe.data, given)
    check_against_heldout(recipe, (prompt.messages for prompt in prompts), name=given)
    return PromptSet(prompts, report, [resolve(given)])


def other_prompt_files(recipe: Recipe) -> list[Path]:
    """What prompts are read from, beside the files that ``data.prompts`` and ``data.selection_prompts`` name.

    Those are comparisons of the user's own, where their prompts are trained on, and the held-out prompts, where they
    select.
    """
    named: list[str | None] = []
    if is_left_over(recipe, "data.prompts"):
        sources = (name for model in recipe.reward.models for name in source_names(recipe.reward.of(model).data))
        named += [name for name in sources if name != COLLECTED]
    if recipe.data.selection_prompts == HELDOUT:
        named.append(recipe.data.heldout_prompts)
    return [path for path in (resolve(name) for name in named if name) if path.is_file()]


def selected_by(recipe: Recipe) -> str:
    """Where the prompts that select a checkpoint are from, in words."""
    given = recipe.data.selection_prompts
    if given == HELDOUT:
        return "the held-out prompts, as in an earlier version: the report is made on what selected the policy"
    return f"{recipe.data.selection_share:g} of data.prompts" if given is None or _selects_by_share(recipe) else given


def check_unseen(recipe: Recipe, folder: RunFolder, round_number: int) -> list[str]:
    """Raise ``UserError`` where a held-out prompt is among what a run was trained on: its file may have changed since.

    Args:
        recipe: of the evaluation.
        folder: the run.
        round_number: the round that is evaluated; those before count too.

    Returns:
        What was trained on and could not be looked at: files that are no longer there, data sets of the Hub.
    """
    reading: dict[str, Any] = {"on_error": recipe.data.on_error, "unused": recipe.data.unused}
    unseen: list[str] = []
    # What the run has collected.
    for number in range(1, round_number + 1):
        comparisons = folder.stage("annotate", number) / COMPARISONS
        if comparisons.is_file():
            compared = read_jsonl(comparisons, Comparison)[0]
            check_against_heldout(recipe, (item.prompt for item in compared), name=str(comparisons))
    # Demonstrations, and comparisons of files.
    if (file := resolve(recipe.sft.data)).is_file():
        found, _ = load_demonstrations(str(file), format=recipe.sft.format, **reading)
        check_against_heldout(recipe, answered_prompts(found), name=str(file))
    else:
        unseen.append(recipe.sft.data)
    for name in recipe.reward.models if folder.finished("reward", round_number) else ():
        for source, format, dimension in _sources(recipe, name):
            if source == COLLECTED:
                continue
            if (file := resolve(source)).is_file():
                pairs, _ = load_comparisons(str(file), dimension=dimension, format=format, **reading)
                train, _ = split_by_conversation(pairs, heldout_fraction=recipe.reward.heldout_share, seed=recipe.seed)
                check_against_heldout(recipe, (item.prompt for item in train), name=str(file))
            else:
                unseen.append(source)
    # Prompts that the policy answered; they are checked as they are read.
    if any(folder.finished(name, round_number) for name in ("rejection", "ppo")):
        files = [recipe.data.prompts, *([] if _selects_by_share(recipe) else [recipe.data.selection_prompts])]
        gone = [file for file in files if file not in (None, HELDOUT) and not resolve(str(file)).is_file()]
        if not gone:
            training_prompts(recipe, folder, round_number)
        unseen += map(str, gone)
    return list(dict.fromkeys(unseen))


def _sources(recipe: Recipe, name: Dimension) -> Iterator[tuple[str, str, Dimension]]:
    """What a reward model's comparisons are from, those that are mixed in too: source, format, dimension."""
    section = recipe.reward.of(name)
    yield from ((source, section.format, name) for source in source_names(section.data))
    for mix in section.mix:
        given = recipe.reward.of(mix.dimension) if mix.data is None else mix
        yield from ((source, given.format, mix.dimension) for source in source_names(given.data))


def prompts_of_run(root: Path) -> PromptSet:
    """The training prompts of a run, for people to judge answers to.

    Raises:
        UserError: the run does not say where they are, or as ``training_prompts``.
    """
    folder = RunFolder(root)
    return training_prompts(recipe_at(root), folder, folder.latest_round("annotate") or 1)


def _selects_by_share(recipe: Recipe) -> bool:
    """Whether a share of the training prompts selects: no file does, or only the toy's in a run with own data."""
    return recipe.data.selection_prompts is None or is_left_over(recipe, "data.selection_prompts")


def _by_share(recipe: Recipe, found: PromptSet) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts to train on, and those that select."""
    return split_by_conversation(found.prompts, heldout_fraction=recipe.data.selection_share, seed=SELECTION_SEED)


def _all_prompts(recipe: Recipe, folder: RunFolder, round_number: int) -> PromptSet:
    if is_left_over(recipe, "data.prompts"):
        return _of_comparisons(recipe, folder, round_number)
    return PromptSet(*read_prompts(recipe.data, recipe.data.prompts), [resolve(recipe.data.prompts)])


def _of_comparisons(recipe: Recipe, folder: RunFolder, round_number: int) -> PromptSet:
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
    return PromptSet(list(prompts.values()), ReadReport(path=path, read=len(prompts)), list(dict.fromkeys(files)))
