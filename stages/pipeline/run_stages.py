"""The whole recipe, for as many rounds as configured: base, SFT, then annotate, reward, PPO and evaluate.

Finished stages are kept: started again, it goes on where it was. Ends by printing the table and the report's path.

    python -m stages.pipeline
    python -m stages.pipeline seed=1 run_dir=runs/seed-1 rounds=2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from alignment.files import read_json
from alignment.machine.environment import peak_memory_gib
from alignment.report.number_formats import SUMMARY_COLUMNS, duration, headline, summary_rows
from alignment.report.report_schema import validate_report
from alignment.run.run_folder import RunFolder
from alignment.settings.model_sections import TOY_MODEL
from alignment.settings.recipe import Recipe
from stages.annotate import collect as annotate
from stages.base import pretrain as base
from stages.door.progress import console
from stages.evaluate import judge_policies as evaluate
from stages.ppo import train_policy as ppo
from stages.reward import train_reward_models as reward
from stages.sft import finetune as sft


def main(recipe: Recipe) -> dict[str, Any]:
    """Run what is not finished yet; returns the report."""
    folder = RunFolder(recipe.run_dir)
    if recipe.model.name_or_path == TOY_MODEL:
        once(recipe, folder, "base", None, lambda: base.main(recipe))
    once(recipe, folder, "sft", None, lambda: sft.main(recipe))
    for number in range(1, recipe.rounds + 1):
        if recipe.reward.reads_collected:
            once(recipe, folder, "annotate", number, lambda n=number: annotate.main(recipe, n))  # type: ignore[misc]
        once(recipe, folder, "reward", number, lambda n=number: reward.main(recipe, n))  # type: ignore[misc]
        improve(recipe, folder, number)
        judged = refreshed(recipe, folder, "eval", number)
        once(judged, folder, "eval", number, lambda r=judged, n=number: evaluate.main(r, n))  # type: ignore[misc]
    report: dict[str, Any] = read_json(folder.root / "report.json")
    show(report, folder)
    return report


def improve(recipe: Recipe, folder: RunFolder, number: int) -> None:
    """Rejection sampling and PPO, each kept if it is finished."""
    for name, methods in (("rejection", ("rejection", "both")), ("ppo", ("ppo", "both"))):
        if recipe.ppo.method in methods:
            alone = recipe.model_copy(update={"ppo": recipe.ppo.model_copy(update={"method": name})})
            once(recipe, folder, name, number, lambda r=alone: ppo.main(r, number))  # type: ignore[misc]


def refreshed(recipe: Recipe, folder: RunFolder, name: str, number: int) -> Recipe:
    """The recipe, with ``overwrite`` on if the stage is finished and what it read has changed: nothing else is lost."""
    stale = folder.finished(name, number) and folder.changed_inputs(name, number)
    return recipe.model_copy(update={"overwrite": True}) if stale else recipe


def once(recipe: Recipe, folder: RunFolder, name: str, number: int | None, work: Callable[[], dict[str, Any]]) -> None:
    """Run a stage unless it is finished with the same settings; other settings are an error."""
    if folder.kept(name, number, recipe):
        console.print(f"{folder.stage(name, number)}: already finished", soft_wrap=True, markup=False)
    else:
        work()


def show(report: dict[str, Any], folder: RunFolder) -> None:
    """Print the table of policies, the headline and where the report is."""
    checked = validate_report(report)
    rows = summary_rows(checked)
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(SUMMARY_COLUMNS):
        width = max(6, *map(len, column.split()), *(len(row[place]) for row in rows))  # all of it in 80 columns
        table.add_column(column, justify="right" if place else "left", width=width)
    for row in rows:
        table.add_row(*row)
    output = Console()
    output.print(headline(checked), highlight=False)
    output.print(table)
    total = duration(report["timings_s"]["total"])
    output.print(f"{total} of work, peak memory {peak_memory_gib():.1f} GiB in this process", highlight=False)
    output.print(f"report: {folder.root / 'report.html'}", soft_wrap=True, markup=False, highlight=False)
