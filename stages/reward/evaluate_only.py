"""Evaluate any reward models on any comparisons, training none. Not a stage itself: it is part of ``stages.reward``.

A model is a folder or a Hub name: what ``stages.reward`` makes, or a sequence classifier. The tokenizer of the run's
SFT model encodes, else that of the first model's base; models of another one read the text again
(``alignment.models.scorers.load_reward_models``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from alignment.data.readers import load_comparisons
from alignment.data.records import GRADES
from alignment.errors import UserError
from alignment.figures.intervals import Figure
from alignment.files import resolve
from alignment.models.backbone import Backbone
from alignment.models.model_places import find_model
from alignment.models.pretrained import load_base
from alignment.models.scorers.load_reward_models import Reencoded, base_of_adapter, load_reward_model
from alignment.models.scorers.reward_model import FILE, is_full_model
from alignment.models.scorers.sequence_classifier import SequenceClassifier, is_classifier
from alignment.report.number_formats import NONE, percent
from alignment.report.write_reward_report import write_reward_report
from alignment.reward.comparison_sets import ComparisonSet, Reader, assemble_evaluation, encode_set, score_models
from alignment.run.run_folder import RunFolder
from alignment.run.run_recipe import changes
from alignment.settings.recipe import Recipe
from alignment.settings.reward_sections import source_names
from alignment.settings.sections import ModelSection
from alignment.workflow.prompts_and_policies import load_backbone
from alignment.workflow.reward_data import reward_data
from stages.door.progress_and_exit import console, progress, say, say_left_out


def evaluate_only(recipe: Recipe) -> dict[str, Any]:
    """Score every set of comparisons with every model, print the accuracies, and write tables and page.

    Models and comparisons are those of ``reward.evaluation``; by default the run's latest reward models on its held-out
    comparisons. Nothing of the run is changed.

    Returns:
        What ``reward_models.json`` holds.

    Raises:
        UserError: no model or no comparisons, something cannot be read, or a score is not a finite number.
    """
    # Find the models, read the comparisons and encode them.
    folder = RunFolder(recipe.run_dir)
    folders = model_folders(recipe, folder)
    sets = comparison_sets(recipe, folder)
    reader = load_reader(recipe, folder, list(folders.values()))
    skip_too_long = recipe.data.too_long == "skip"
    sets = [encode_set(item, reader, skip_too_long=skip_too_long, on_error=recipe.data.on_error) for item in sets]
    # Score every set with every model.
    with progress("reward: evaluation") as on_step:
        scored, sets = score_models(
            reader,
            folders,
            sets,
            batch_size=2 * recipe.reward.helpfulness.micro_batch_size_pairs,
            skip_too_long=skip_too_long,
            on_answers=lambda done, total: on_step(done, total, {}),
        )
    # Work out the tables and write the page.
    evaluation = assemble_evaluation(
        scored, folders, sets, seed=recipe.seed, threshold_probability=recipe.ppo.safety_threshold
    )
    page = write_reward_report(evaluation, recipe.reward.evaluation.to or Path(recipe.run_dir) / "reward-evaluation")
    # Print what was left out, the tables, and where the page is.
    for item in sets:
        if item.report is not None:
            later = {reason: n for reason, n in item.left_out.items() if reason not in item.report.skipped}
            say_left_out(item.report, later)
    for table in tables(evaluation):
        console.print(table)
    say(f"written: {page}")
    return evaluation


def tables(evaluation: dict[str, Any]) -> Iterator[Table]:
    """Tables 7 and 8 of Llama 2 for a terminal: accuracy of every model on every set, then by grade."""
    sets = list(evaluation["test_sets"])
    overall = Table("model", *sets, title="accuracy", title_justify="left")
    for row in evaluation["tables"]["overall"]:
        overall.add_row(row["model"], *(cell(row["accuracy"][name]) for name in sets))
    yield overall
    columns = ["all", *GRADES]
    by_grade = Table("model", "comparisons", *(name.replace("_", " ") for name in columns), title="accuracy by grade")
    by_grade.title_justify = "left"
    for row in evaluation["tables"]["by_grade"]:
        by_grade.add_row(row["model"], row["test_set"], *(cell(row[name]) for name in columns))
    yield by_grade


def cell(figure: Figure | None) -> str:
    """A share with its interval, for a terminal."""
    if figure is None:
        return NONE
    low, high = figure["ci95"]
    return f"{percent(figure['value'])} [dim]{100 * low:.0f} to {100 * high:.0f}[/dim]"


def model_folders(recipe: Recipe, folder: RunFolder) -> dict[str, Path]:
    """Name -> folder of the models to evaluate: those named, else those of the run's last round.

    Raises:
        UserError: a folder holds no reward model, is named twice, or none is named and the run has none.
    """
    given = recipe.reward.evaluation.models
    if given is not None:
        paths = [find_model(path, with_code=recipe.model.trust_remote_code) for path in given]
    else:
        latest = folder.latest_round("reward") or 1
        stage = folder.require("reward", latest)
        paths = [stage / name for name in folder.result("reward", latest)["models"]]
    for path in paths:
        if not (path / FILE).is_file() and not is_classifier(path):
            raise UserError(
                f"{path}: not a reward model; expected what stages.reward makes ({FILE}) or a sequence classifier "
                "(config.json, or an adapter of task type SEQ_CLS)"
            )
    return dict(zip(short_names([Path(path) for path in given] if given else paths), paths, strict=True))


def comparison_sets(recipe: Recipe, folder: RunFolder) -> list[ComparisonSet]:
    """The comparisons to evaluate on: the files named, else the run's held-out comparisons by dimension.

    Raises:
        UserError: a file cannot be read, is named twice for one dimension, or none is named and there is no run.
    """
    given = recipe.reward.evaluation.data
    if given is None:
        return _heldout_of_run(recipe, folder)
    stems = Counter(_stem(item.data) for item in given)
    sets: list[ComparisonSet] = []
    for item in given:
        source, stem = str(resolve(item.data)), _stem(item.data)
        name = stem if stems[stem] == 1 else f"{stem} ({item.dimension})"
        if name in [other.name for other in sets]:
            raise UserError(f"reward.evaluation.data: two sets would have the name {name!r}; rename one of the files")
        comparisons, report = load_comparisons(
            source,
            dimension=item.dimension,
            format=item.format,
            on_error=recipe.data.on_error,
            unused=recipe.data.unused,
        )
        sets.append(ComparisonSet(name, source, comparisons, report.skipped, report=report))
    return sets


def load_reader(recipe: Recipe, folder: RunFolder, folders: Sequence[Path]) -> Reader:
    """The run's SFT model as the one that encodes, else the base of the first model that names one.

    Without either, all models are classifiers, and the first one's tokenizer encodes.
    """
    settings = recipe.model.model_copy(update={"sampling_copy": False})
    backbone = _backbone(folder, folders, settings)
    if backbone is None:
        first = SequenceClassifier.load(folders[0], settings)
        return Reader(
            first.encoder,
            first.context_tokens,
            lambda _, path: Reencoded(SequenceClassifier.load(path, settings), first.encoder),
        )
    beside: dict[str, Backbone] = {}
    return Reader(
        backbone.encoder,
        backbone.context_tokens,
        lambda role, path: load_reward_model(backbone, role, path, settings, beside=beside),
    )


def short_names(paths: Sequence[Path]) -> list[str]:
    """As few of the last parts of each path as tell them apart; ``UserError`` where two are the same."""
    full = [path.resolve().parts for path in paths]
    if len(set(full)) < len(full):
        twice = next(path for path, parts in zip(paths, full, strict=True) if full.count(parts) > 1)
        raise UserError(f"reward.evaluation.models: {twice} is named twice")
    length = next(n for n in range(1, 1 + max(map(len, full))) if len({parts[-n:] for parts in full}) == len(full))
    return ["/".join(parts[-length:]) for parts in full]


def _heldout_of_run(recipe: Recipe, folder: RunFolder) -> list[ComparisonSet]:
    round_number = folder.latest_round("reward") or folder.latest_round("annotate")
    if round_number is None and recipe.reward.reads_collected:
        raise UserError(
            f"{folder.root} has no comparisons to evaluate on. Name some: "
            "'reward.evaluation.data=[{data: FILE, dimension: safety}]'"
        )
    if folder.finished("reward", round_number):
        found = folder.inputs.changed_settings(folder.place("reward", round_number), recipe)
        if changed := {key: values for key, values in found.items() if _decides_the_split(key)}:
            raise UserError(
                f"the reward models of {folder.root} were trained with other settings ({changes(changed)}), so which "
                "comparisons they have not seen is not known. Pass the settings that they were trained with, or name "
                "other comparisons: reward.evaluation.data"
            )
    data = reward_data(recipe, folder, round_number or 1)
    return [
        ComparisonSet(name, ", ".join(source_names(recipe.reward.of(name).data)), item.heldout, {})
        for name, item in data.items()
    ]


def _decides_the_split(key: str) -> bool:
    """Whether a setting of the reward stage decides which comparisons are held out."""
    return key in ("seed", "reward.heldout_share", "data.on_error") or key.endswith((".data", ".format"))


def _backbone(folder: RunFolder, folders: Sequence[Path], settings: ModelSection) -> Backbone | None:
    if folder.finished("sft"):
        return load_backbone(folder, settings)
    for path in folders:
        if (path / FILE).is_file():
            if is_full_model(path):
                return load_base(path, settings)
            return load_base(base_of_adapter(path), settings)
    return None


def _stem(source: str) -> str:
    return Path(source).name.partition(".")[0]
