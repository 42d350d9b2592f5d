"""Evaluate any reward models on any comparisons, training none. Not a stage itself: it is part of ``stages.reward``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from alignment.data.records import GRADES
from alignment.figures.intervals import Figure
from alignment.report.number_formats import NONE, percent
from alignment.report.write_reward_report import write_reward_report
from alignment.reward.cross_evaluation import assemble_evaluation, encode_set, score_models
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from stages.door.progress import console, progress, say, say_left_out
from stages.reward.evaluation_inputs import comparison_sets, load_reader, model_folders


def evaluate_only(recipe: Recipe) -> dict[str, Any]:
    """Score every set of comparisons with every model, print the accuracies, and write tables and page.

    Models and comparisons are those of ``reward.evaluation``; by default the run's latest reward models on its held-out
    comparisons. Nothing of the run is changed.

    Returns:
        What ``reward_models.json`` holds.

    Raises:
        UserError: no model or no comparisons, something cannot be read, or a score is not a finite number.
    """
    folder = RunFolder(recipe.run_dir)
    folders = model_folders(recipe, folder)
    sets = comparison_sets(recipe, folder)
    reader = load_reader(recipe, folder, list(folders.values()))
    skip_too_long = recipe.data.too_long == "skip"
    sets = [encode_set(item, reader, skip_too_long=skip_too_long) for item in sets]
    with progress("reward: evaluation") as on_step:
        scored, sets = score_models(
            reader,
            folders,
            sets,
            batch_size=2 * recipe.reward.helpfulness.micro_batch_size_pairs,
            skip_too_long=skip_too_long,
            on_answers=lambda done, total: on_step(done, total, {}),
        )
    evaluation = assemble_evaluation(
        scored, folders, sets, seed=recipe.seed, threshold_probability=recipe.ppo.safety_threshold
    )
    page = write_reward_report(evaluation, recipe.reward.evaluation.to or Path(recipe.run_dir) / "reward-evaluation")
    for item in sets:
        if item.report is not None:
            say_left_out(item.report, item.left_out["too long"])
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
