"""Collect comparisons: two variants of the newest policy answer, somebody chooses and grades (section 3.2.1).

``annotate.source=simulated`` asks the toy world's annotators; ``ui`` serves the annotation app and waits for people;
``dataset`` takes comparisons that exist. Leaves ``comparisons.jsonl`` and ``heldout_comparisons.jsonl`` in the round's
``annotate`` folder.

    python -m stages.annotate
    python -m stages.annotate annotate.source=ui annotate.helpfulness_pairs=50 annotate.safety_pairs=50
    python -m stages.annotate annotate.source=dataset annotate.data=pairs.jsonl annotate.dimension=safety
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.jsonl_and_raw_rows import write_jsonl
from alignment.data.readers import load_comparisons
from alignment.data.records import HELDOUT_PAIRS, Comparison, Part, Prompt
from alignment.data.splits import split_by_conversation
from alignment.files import resolve
from alignment.run.run_folder import RunFolder
from alignment.run.stage_inputs import COMPARISONS, HELDOUT_COMPARISONS
from alignment.run.stage_records import StageRun
from alignment.settings.recipe import Recipe
from alignment.workflow.prompts_and_policies import (
    check_against_heldout,
    heldout_prompts,
    load_backbone,
    load_policy,
    newest_before,
)
from alignment.workflow.training_prompts import other_prompt_files, training_prompts
from stages.annotate.people import judged_by_people
from stages.annotate.people_pairs import BOTH
from stages.annotate.prompt_queues import encode_queues, fill_queues
from stages.annotate.simulated_round import sample_and_compare
from stages.door.preconditions import check_annotate
from stages.door.progress_and_exit import progress, say_left_out


def run(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/annotate/``; returns the stage's result."""
    folder = RunFolder(recipe.run_dir)
    check_annotate(recipe, round_number)
    folder.look("annotate", recipe, also=other_prompt_files(recipe))
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
        return save(stage, folder, {"train": train, "heldout": heldout}, report.skipped, [source])


def simulated(recipe: Recipe, folder: RunFolder, round_number: int) -> dict[str, Any]:
    """Have two variants of the policy answer and the toy world's annotators compare."""
    sft = folder.require("sft")
    prompts = read_prompt_files(recipe, folder, round_number)
    queues = fill_queues(recipe, prompts.train, prompts.heldout, round_number)
    backbone = load_backbone(folder, recipe.model)
    policy = load_policy(folder, backbone, newest_before(folder, round_number))
    encoded = encode_queues(recipe, policy.role.backbone, queues)
    parts = parts_to_make(recipe, folder, round_number)
    with folder.lock():
        stage, left_out = begin(recipe, folder, round_number, parts)
        collected: dict[Part, list[Comparison]] = {}
        for part in parts:
            folder.seed(SEEDED[part], recipe, round_number)  # held-out pairs alone are those that both would give
            with progress(f"annotate: {PAIRS[part]}") as on_step:
                queue = [item for item in encoded if item.part == part]
                collected[part], unusable = sample_and_compare(recipe, policy, queue, round_number, on_step=on_step)
            left_out |= named_by_part(part, unusable)
        return save(stage, folder, collected, left_out | prompts.left_out, [sft, *prompts.files], prompts.heldout_files)


def from_people(recipe: Recipe, folder: RunFolder, round_number: int) -> dict[str, Any]:
    """Serve pairs in the annotation app until people have judged as many as the recipe asks for."""
    sft = folder.require("sft")
    prompts = read_prompt_files(recipe, folder, round_number)
    parts = parts_to_make(recipe, folder, round_number)
    with folder.lock():
        wanted = {part: pool for part, pool in prompts.by_part.items() if part in parts}
        judged = judged_by_people(recipe, folder, round_number, wanted, prompt_files=prompts.files, parts=parts)
        stage, left_out = begin(recipe, folder, round_number, parts)
        left_out |= judged.left_out | prompts.left_out
        collected = {part: judged.comparisons[part] for part in parts}
        return save(stage, folder, collected, left_out, [sft, *prompts.files], prompts.heldout_files)


PAIRS: dict[Part, str] = {"train": "training pairs", "heldout": "held-out pairs"}
FILES: dict[Part, str] = {"train": COMPARISONS, "heldout": HELDOUT_COMPARISONS}
SEEDED: dict[Part, str] = {"train": "annotate", "heldout": "annotate/heldout"}


@dataclass(frozen=True)
class RoundPrompts:
    """The prompts of a round, and the files that they are from."""

    train: list[Prompt]
    heldout: list[Prompt]
    files: list[Path]
    heldout_files: list[Path]
    """Those of ``files`` that held-out pairs alone are made from."""
    left_out: dict[str, int]
    """What was left out of the files, by file and reason."""

    @property
    def by_part(self) -> dict[Part, list[Prompt]]:
        """The prompts of each part."""
        return {"train": self.train, "heldout": self.heldout}


def read_prompt_files(recipe: Recipe, folder: RunFolder, round_number: int) -> RoundPrompts:
    """Read training and held-out prompts, and say what is left out of their files."""
    train, train_report, files = training_prompts(recipe, folder, round_number)
    heldout, heldout_report = heldout_prompts(recipe.data)
    heldout_files = [resolve(recipe.data.heldout_prompts)] if recipe.data.heldout_prompts else []
    reports = (("training prompts", train_report), ("held-out prompts", heldout_report))
    for _, report in reports:
        say_left_out(report)
    left_out = {f"{name}, {reason}": n for name, report in reports for reason, n in report.skipped.items()}
    return RoundPrompts(train, heldout, [*files, *heldout_files], heldout_files, left_out)


def parts_to_make(recipe: Recipe, folder: RunFolder, round_number: int) -> tuple[Part, ...]:
    """Which pairs are to be made: held-out ones alone, where nothing else of the finished stage is out of date."""
    return ("heldout",) if folder.has_stale_figures("annotate", round_number) and not recipe.overwrite else BOTH


def begin(
    recipe: Recipe, folder: RunFolder, round_number: int, parts: Sequence[Part]
) -> tuple[StageRun, dict[str, int]]:
    """Begin the stage, or its held-out pairs alone; returns what it has left out already, too."""
    if "train" in parts:
        return folder.begin("annotate", recipe, round_number), {}
    stage = folder.begin_measuring("annotate", recipe, round_number)
    return stage, {why: n for why, n in stage.before["left_out"].items() if not why.startswith("held-out")}


def named_by_part(part: Part, left_out: dict[str, int]) -> dict[str, int]:
    """Reason -> count, with the reasons of held-out pairs told from those of training pairs."""
    return {f"{HELDOUT_PAIRS if part == 'heldout' else ''}{reason}": count for reason, count in left_out.items()}


def save(
    stage: StageRun,
    folder: RunFolder,
    collected: Mapping[Part, list[Comparison]],
    left_out: dict[str, int],
    inputs: list[Path],
    measured_on: Sequence[Path] = (),
) -> dict[str, Any]:
    """Write the comparisons and the result.

    Args:
        stage: the stage at work; its folder takes the files.
        folder: the run.
        collected: comparisons to train on and to measure with; a part that is not there is in its file already.
        left_out: reason -> how many rows or pairs were left out for it.
        inputs: files and folders that the comparisons were made from.
        measured_on: those of them that held-out comparisons alone were made from.

    Returns:
        The stage's result.
    """
    for part, comparisons in collected.items():
        write_jsonl(stage.folder / FILES[part], comparisons)
    counts = {key: stage.before.get(key) for key in ("comparisons", "heldout_comparisons")}
    counts |= {Path(FILES[part]).stem: len(comparisons) for part, comparisons in collected.items()}
    return folder.finish(stage, {**counts, "left_out": left_out}, inputs=inputs, measured_on=measured_on)
