"""Whether a run's files are what its stages made and were made from; taking an edit as meant. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from alignment.errors import UserError
from alignment.run.manifest import RESULT
from alignment.run.run_folder import RunFolder
from alignment.run.stage_inputs import INPUT_STAGES, round_folders
from stages.doctor.output import counted, print_line


def run_is_as_made(run_dir: str) -> bool:
    """Read every byte of a run's finished stages, and of what they were made from; returns whether all is as it was."""
    folder = _run(run_dir)
    return all([_stage_is_as_made(folder, stage) for stage in _finished_stages(folder.root)])  # each says its line


def _stage_is_as_made(folder: RunFolder, stage: str) -> bool:
    manifests = folder.manifests
    manifest = manifests.of(stage)
    if manifest is None:
        print_line(f"{stage}: ", "not checked, from a version that wrote no manifest", style="yellow")
        return True
    wrong = manifests.edited(stage, read=True)
    measured_on = folder.inputs.changed_measurements(stage)
    made_from = [path for path in manifests.changed_inputs(stage, read=True) if path not in measured_on]
    wrong += [f"it was made from {path}, which has changed" for path in made_from]
    wrong += [f"it was made before the present {item}" for item in folder.inputs.changed_stages(stage)]
    wrong += [f"it was measured before the present {item}" for item in measured_on]
    unchecked = [f"it was made from {path}, which is not there" for path in manifests.missing_inputs(stage)]
    if wrong:
        print_line(f"{stage}: ", "; ".join(wrong), style="bold red")
    else:
        print_line(f"{stage}: ", f"as it was made, {counted(len(manifest['files']), 'file')}", style="bold")
    for what in unchecked:
        print_line("  not checked: ", what, style="yellow")
    return not wrong


def accept_stage(run_dir: str, stage: str) -> None:
    """Take a stage's files as they are, and say what that means."""
    folder = _run(run_dir)
    with folder.lock():
        found = folder.manifests.accept(stage.strip("/"))
    if not found:
        print_line(f"{stage}: ", "as it was made; nothing to accept", style="bold")
        return
    print_line(f"{stage}: ", f"{', '.join(found)}; taken as meant. Stages made from it are out of date.", style="bold")


def _run(run_dir: str) -> RunFolder:
    if not Path(run_dir).is_dir():
        raise UserError(f"no such run: {run_dir}. A run is made by: python -m stages.pipeline run_dir={run_dir}")
    return RunFolder(run_dir)


def _finished_stages(root: Path) -> list[str]:
    """The finished stages of a run, in the order in which they are made."""
    of_rounds = [folder / name for folder in round_folders(root) for name in list(INPUT_STAGES)[2:]]
    found = [root / "base", root / "sft", *of_rounds]
    return [folder.relative_to(root).as_posix() for folder in found if (folder / RESULT).is_file()]
