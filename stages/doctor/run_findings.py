"""How PPO went in a run: the findings of its health checks, read from the metrics that it left. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from alignment.errors import UserError
from alignment.rl.health.health_history import HealthSettings
from alignment.rl.health.health_watch import Finding, examine
from alignment.run.stage_inputs import round_folders
from alignment.run.stage_records import read_metrics
from alignment.settings.read_recipe import load_recipe
from stages.doctor.output import counted, print_finding, print_line


def run_is_healthy(run_dir: str) -> bool:
    """Examine a run; returns whether nothing was found."""
    return not any(examine_run(run_dir).values())


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
        result = counted(len(found), "finding") if found else "healthy"
        print_line(f"{folder}: ", f"{result} in {counted(len(rows), 'update')}", style="bold")
        for finding in found:
            print_finding(finding)
    return findings


def ppo_folders(root: Path) -> list[Path]:
    """The PPO folders of a run that have metrics, by round."""
    if not root.is_dir():
        raise UserError(f"no such run: {root}. A run is made by: python -m stages.pipeline run_dir={root}")
    folders = [folder / "ppo" for folder in round_folders(root) if (folder / "ppo" / "metrics.jsonl").is_file()]
    if not folders:
        raise UserError(f"{root} has no PPO stage to look at yet. Make it: python -m stages.ppo run_dir={root}")
    return folders
