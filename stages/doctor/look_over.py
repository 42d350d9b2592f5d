"""Look a run over: before it, whether model, tokenizer, data and reward models fit; after it, how PPO went.

With ``--run`` it reads the metrics of every PPO stage of a run folder, also of one that is going on or was stopped,
and says what is off, why it may be, and what helps. Without, it checks the recipe. Writes nothing.

    python -m stages.doctor run_dir=runs/mine ppo.updates=20
    python -m stages.doctor --run runs/toy

Exit codes: 0 healthy, also with warnings about a recipe; 1 a finding in a run, or a problem with a recipe; 2 there is
nothing to look at, or a setting is wrong.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from alignment.errors import UserError
from alignment.rl.health.health_history import HealthSettings
from alignment.rl.health.health_watch import Finding, examine
from alignment.run.stage_run import read_metrics
from alignment.settings.read_recipe import load_recipe
from alignment.settings.recipe import Recipe
from stages.doctor.check_subject import Subject, Verdict
from stages.doctor.recipe_checks import check_recipe

STYLES = {"ok": "green", "skipped": "dim", "warning": "yellow", "problem": "bold red", "error": "bold red"}
console = Console()


def main(recipe: Recipe) -> dict[str, Verdict]:
    """Check a recipe before a run, a line for each check; returns every verdict."""
    verdicts: dict[str, Verdict] = {}
    for name, verdict in check_recipe(Subject(recipe)):
        verdicts[name] = verdict
        say(f"{verdict.status:<8}", f"{name}: {verdict.what}", style=STYLES[verdict.status])
        if verdict.what_to_do:
            say(" " * 8, verdict.what_to_do)
    counts = {status: sum(v.status == status for v in verdicts.values()) for status in ("problem", "warning")}
    say(f"{number(counts['problem'], 'problem')} and {number(counts['warning'], 'warning')} in {len(verdicts)} checks")
    return verdicts


def examine_run(run_dir: str) -> dict[Path, list[Finding]]:
    """Examine every PPO stage of a run, and print what was found; returns the findings by stage folder.

    Raises:
        UserError: there is no such run, or PPO has not begun in it.
    """
    findings: dict[Path, list[Finding]] = {}
    for folder in ppo_folders(Path(run_dir)):
        rows = read_metrics(folder / "metrics.jsonl")
        recipe = load_recipe(str(folder / "config.yaml"))
        found = examine(rows, HealthSettings.from_sections(recipe.ppo, recipe.model.lora))
        findings[folder] = found
        verdict = number(len(found), "finding") if found else "healthy"
        say(f"{folder}: ", f"{verdict} in {number(len(rows), 'update')}", style="bold")
        for finding in found:
            show(finding)
    return findings


def ppo_folders(root: Path) -> list[Path]:
    """The PPO folders of a run that have metrics, by round."""
    if not root.is_dir():
        raise UserError(f"no such run: {root}. A run is made by: python -m stages.pipeline run_dir={root}")
    folders = [file.parent for file in root.glob("round-*/ppo/metrics.jsonl")]
    if not folders:
        raise UserError(f"{root} has no PPO stage to look at yet. Make it: python -m stages.ppo run_dir={root}")
    return sorted(folders, key=lambda folder: int(folder.parent.name.removeprefix("round-")))


def show(finding: Finding) -> None:
    """A finding, as a paragraph."""
    heading = f"update {finding.update}, {finding.check} ({finding.severity})"
    console.print(Padding(Text(heading, style=STYLES[finding.severity]), (0, 0, 0, 2), expand=False))
    for label, words in (
        ("what", finding.what),
        ("likely cause", finding.likely_cause),
        ("what to do", finding.what_to_do),
    ):
        console.print(Padding(Text(f"{label}: {words}"), (0, 0, 0, 4), expand=False))


def number(count: int, noun: str) -> str:
    """``1 finding``, ``2 findings``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def say(*parts: str, style: str = "") -> None:
    """Print a line whose first part is styled; what was read is printed as it is."""
    console.print(Text(parts[0], style=style), *parts[1:], sep="", soft_wrap=True, markup=False, highlight=False)


def recipe_is_healthy(recipe: Recipe) -> bool:
    """Check a recipe; returns whether it has no problem."""
    return all(verdict.status != "problem" for verdict in main(recipe).values())


def run_is_healthy(run_dir: str) -> bool:
    """Examine a run; returns whether nothing was found."""
    return not any(examine_run(run_dir).values())
