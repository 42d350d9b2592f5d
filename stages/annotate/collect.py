"""Collect comparisons: two variants of the newest policy answer, somebody chooses and grades (section 3.2.1).

``annotate.source=simulated`` asks the toy world's annotators; ``ui`` serves the annotation app and waits for people;
``dataset`` takes comparisons that exist. Leaves ``comparisons.jsonl`` and ``heldout_comparisons.jsonl`` in the round's
``annotate`` folder.

    python -m stages.annotate
    python -m stages.annotate annotate.source=ui annotate.helpfulness_pairs=50 annotate.safety_pairs=50
    python -m stages.annotate annotate.source=dataset annotate.data=pairs.jsonl annotate.dimension=safety
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment.data.jsonl_and_raw_rows import ReadReport, write_jsonl
from alignment.data.readers import load_comparisons
from alignment.data.records import Comparison, Part, Prompt
from alignment.data.splits import split_by_conversation
from alignment.files import resolve
from alignment.run.run_folder import RunFolder
from alignment.run.stage_records import StageRun
from alignment.settings.recipe import Recipe
from alignment.workflow.prompts_and_policies import (
    check_against_heldout,
    heldout_prompts,
    load_backbone,
    load_policy,
    newest_before,
)
from alignment.workflow.training_prompts import training_prompts
from stages.annotate.people import judged_by_people
from stages.annotate.people_pairs import MARKED
from stages.annotate.prompt_queues import encode_queues, fill_queues
from stages.annotate.simulated_round import sample_and_compare
from stages.door.preconditions import check_annotate
from stages.door.progress_and_exit import progress, say_left_out


def run(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/annotate/``; returns the stage's result."""
    folder = RunFolder(recipe.run_dir)
    check_annotate(recipe, round_number)
    collect = {"dataset": from_dataset, "simulated": simulated, "ui": from_people}[recipe.annotate.source]
    return collect(recipe, folder, round_number)


def from_dataset(recipe: Recipe, folder: RunFolder, round_number: int) -> dict[str, Any]:
    """Take the comparisons of a file or the Hub, split by conversation."""
    settings = recipe.annotate
    assert settings.data is not None, "asked for at the door"
    source = resolve(settings.data)
    comparisons, report = load_comparisons(
        str(source),
        dimension=settings.dimension,
        format=settings.format,
        on_error=recipe.data.on_error,
        unused=recipe.data.unused,
    )
    train, heldout = split_by_conversation(comparisons, heldout_fraction=recipe.reward.heldout_share, seed=recipe.seed)
    check_against_heldout(recipe, (item.prompt for item in train), name=str(source))
    say_left_out(report)
    with folder.lock():
        stage = folder.begin("annotate", recipe, round_number)
        return save(stage, folder, train, heldout, report.skipped, [source])


def simulated(recipe: Recipe, folder: RunFolder, round_number: int) -> dict[str, Any]:
    """Have two variants of the policy answer and the toy world's annotators compare."""
    sft = folder.require("sft")
    train, train_report, files = training_prompts(recipe, folder, round_number)
    files += [resolve(recipe.data.heldout_prompts)] if recipe.data.heldout_prompts else []
    heldout, heldout_report = heldout_prompts(recipe.data)
    queues = fill_queues(recipe, train, heldout, round_number)
    backbone = load_backbone(folder, recipe.model)
    policy = load_policy(folder, backbone, newest_before(folder, round_number))
    encoded = encode_queues(recipe, policy.role.backbone, queues)
    say_left_out(train_report)
    say_left_out(heldout_report)
    with folder.lock():
        stage = folder.begin("annotate", recipe, round_number)
        with progress("annotate: sampling") as on_step:
            collected, marked = sample_and_compare(recipe, policy, encoded, round_number, on_step=on_step)
        left_out = {"without preference": sum(part.without_preference for part in collected.values())}
        left_out |= {MARKED: marked} if marked else {}
        left_out |= _unread(train_report, heldout_report)
        comparisons = [collected[part].comparisons for part in ("train", "heldout")]
        return save(stage, folder, comparisons[0], comparisons[1], left_out, [sft, *files])


def from_people(recipe: Recipe, folder: RunFolder, round_number: int) -> dict[str, Any]:
    """Serve pairs in the annotation app until people have judged as many as the recipe asks for."""
    sft = folder.require("sft")
    train, train_report, files = training_prompts(recipe, folder, round_number)
    files += [resolve(recipe.data.heldout_prompts)] if recipe.data.heldout_prompts else []
    heldout, heldout_report = heldout_prompts(recipe.data)
    say_left_out(train_report)
    say_left_out(heldout_report)
    with folder.lock():
        prompts: dict[Part, list[Prompt]] = {"train": train, "heldout": heldout}
        judged = judged_by_people(recipe, folder, round_number, prompts, prompt_files=files)
        stage = folder.begin("annotate", recipe, round_number)
        left_out = judged.left_out | _unread(train_report, heldout_report)
        comparisons = [judged.comparisons[part] for part in ("train", "heldout")]
        return save(stage, folder, comparisons[0], comparisons[1], left_out, [sft, *files])


def _unread(train: ReadReport, heldout: ReadReport) -> dict[str, int]:
    """What was left out of the prompt files, by file and reason."""
    reports = (("training prompts", train), ("held-out prompts", heldout))
    return {f"{name}, {reason}": count for name, report in reports for reason, count in report.skipped.items()}


def save(
    stage: StageRun,
    folder: RunFolder,
    train: list[Comparison],
    heldout: list[Comparison],
    left_out: dict[str, int],
    inputs: list[Path],
) -> dict[str, Any]:
    """Write both files and the result.

    Args:
        stage: the stage at work; its folder takes the files.
        folder: the run.
        train: comparisons to train on.
        heldout: comparisons to evaluate on.
        left_out: reason -> how many rows or pairs were left out for it.
        inputs: files and folders that the comparisons were made from.

    Returns:
        The stage's result.
    """
    write_jsonl(stage.folder / "comparisons.jsonl", train)
    write_jsonl(stage.folder / "heldout_comparisons.jsonl", heldout)
    result = {"comparisons": len(train), "heldout_comparisons": len(heldout), "left_out": left_out}
    return folder.finish(stage, result, inputs=inputs)
