"""The whole recipe, for as many rounds as configured: base, SFT, then annotate, reward, PPO and evaluate.

Finished stages are kept: started again, it goes on where it was. Ends by printing the table and the report's path.

    python -m stages.pipeline
    python -m stages.pipeline seed=1 run_dir=runs/seed-1 rounds=2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table

from alignment.config import TOY_MODEL, Recipe
from alignment.errors import UserError
from alignment.report.schema import validate_report
from alignment.report.text import SUMMARY_COLUMNS, headline, summary_rows
from alignment.run import RunFolder, peak_memory_gib, read_json
from stages import annotate, base, evaluate, ppo, reward, sft
from stages.runner import console, run

SECTIONS = {
    "base": ("model", "base"),
    "sft": ("model", "sft"),
    "annotate": ("model", "data", "annotate"),
    "reward": ("model", "reward"),
    "rejection": ("model", "data", "rejection"),
    "ppo": ("model", "data", "ppo"),
    "eval": ("model", "data", "evaluate"),
}
"""The recipe's sections that decide what a stage makes."""


def main(recipe: Recipe) -> dict[str, Any]:
    """Run what is not finished yet; returns the report."""
    folder = RunFolder(recipe.run_dir)
    if recipe.model.name_or_path == TOY_MODEL:
        once(recipe, folder, "base", None, lambda: base.main(recipe))
    once(recipe, folder, "sft", None, lambda: sft.main(recipe))
    for number in range(1, recipe.rounds + 1):
        once(recipe, folder, "annotate", number, lambda n=number: annotate.main(recipe, n))  # type: ignore[misc]
        once(recipe, folder, "reward", number, lambda n=number: reward.main(recipe, n))  # type: ignore[misc]
        improve(recipe, folder, number)
        once(recipe, folder, "eval", number, lambda n=number: evaluate.main(recipe, n))  # type: ignore[misc]
    report: dict[str, Any] = read_json(folder.root / "report.json")
    show(report, folder)
    return report


def improve(recipe: Recipe, folder: RunFolder, number: int) -> None:
    """Rejection sampling and PPO, each kept if it is finished."""
    for name, methods in (("rejection", ("rejection", "both")), ("ppo", ("ppo", "both"))):
        if recipe.ppo.method in methods:
            alone = recipe.model_copy(update={"ppo": recipe.ppo.model_copy(update={"method": name})})
            once(recipe, folder, name, number, lambda r=alone: ppo.main(r, number))  # type: ignore[misc]


def once(recipe: Recipe, folder: RunFolder, name: str, number: int | None, work: Callable[[], dict[str, Any]]) -> None:
    """Run a stage unless it is finished with the same settings.

    Raises:
        UserError: it is finished with other settings; names them.
    """
    if recipe.overwrite or not folder.finished(name, number):
        work()
        return
    changed = folder.changed_settings(name, number, recipe, SECTIONS[name])
    if changed:
        raise UserError(
            f"{folder.stage(name, number)} was made with other settings: {', '.join(changed)}. "
            "Choose another run_dir, or pass overwrite=true to make everything again."
        )
    console.print(f"{folder.stage(name, number)}: already finished")


def show(report: dict[str, Any], folder: RunFolder) -> None:
    """Print the table of policies, the headline and where the report is."""
    checked = validate_report(report)
    table = Table(title=headline(checked))
    for column in SUMMARY_COLUMNS:
        table.add_column(column, justify="left" if column == SUMMARY_COLUMNS[0] else "right")
    for row in summary_rows(checked):
        table.add_row(*row)
    console.print(table)
    total = report["timings_s"]["total"]
    console.print(f"total {total / 60:.1f} min of work, peak memory {peak_memory_gib():.1f} GiB in this process")
    console.print(f"report: {folder.root / 'report.html'}", soft_wrap=True)


if __name__ == "__main__":
    run(main, __doc__, "stages.pipeline")
