"""The whole recipe, for as many rounds as configured: base, SFT, then annotate, reward, PPO and evaluate.

Finished stages are kept: started again, it goes on where it was. Ends by printing the table and the report's path.

    python -m stages.pipeline
    python -m stages.pipeline seed=1 run_dir=runs/seed-1 rounds=2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alignment.files import read_json
from alignment.machine.device_and_processes import forget_peak_memory
from alignment.run.run_folder import RunFolder
from alignment.run.run_recipe import keep_recipe
from alignment.settings.recipe import Recipe
from stages.annotate import collect as annotate
from stages.base import write_base_model as base
from stages.door.preconditions import planned_stages, why_evaluated_again
from stages.door.progress_and_exit import console, say
from stages.evaluate import judge_policies as evaluate
from stages.evaluate.printed_summary import show
from stages.ppo import train_policy as ppo
from stages.reward import train_reward_models
from stages.sft import finetune

Work = Callable[[Recipe, int], dict[str, Any]]
REPLACED = (
    "it is made again, and {root}/report.html and report.json are replaced once that is done; Ctrl-C until then keeps "
    "them"
)


def run(recipe: Recipe) -> dict[str, Any]:
    """Run what is not finished yet; returns the report."""
    folder, said = RunFolder(recipe.run_dir), set[str]()
    with folder.lock():
        keep_recipe(folder.root, recipe)
        for name, number in planned_stages(recipe) if recipe.overwrite else ():
            folder.make_again(name, number)  # so that, once stopped, the same command without overwrite goes on
        for name, number in planned_stages(recipe):
            if not recipe.overwrite and (why := why_evaluated_again(folder, name, number, recipe)):
                say(f"{folder.stage(name, number)} {why}; {REPLACED.format(root=folder.root)}")
                folder.make_again(name, number)
            if folder.kept(name, number, recipe):
                console.print(finished_line(folder, folder.place(name, number), said), soft_wrap=True, markup=False)
            else:
                if folder.has_stale_figures(name, number):
                    say(stale_line(folder, folder.place(name, number)))
                forget_peak_memory()
                WORK[name](recipe, number or 1)
    report: dict[str, Any] = read_json(folder.root / "report.json")
    show(report, folder)
    return report


def stale_line(folder: RunFolder, stage: str) -> str:
    """What a finished stage was measured on that has changed, so that it is measured again."""
    changed = " and ".join(folder.inputs.changed_measurements(stage))
    return f"{folder.root / stage}: measured before the present {changed}; measured again, what was trained stays"


def finished_line(folder: RunFolder, stage: str, said: set[str]) -> str:
    """That a stage is finished, and what of it could not be looked at.

    Args:
        folder: the run.
        stage: its place in the run.
        said: files that were said to be gone before; more are added.
    """
    line = f"{folder.root / stage}: already finished"
    if folder.manifests.of(stage) is None:
        line += "; its files are not checked, for an earlier version made it"
    gone = [path for path in folder.manifests.missing_inputs(stage) if path not in said]
    said.update(gone)
    return f"{line}; not checked, for it is not there: {', '.join(gone)}" if gone else line


WORK: dict[str, Work] = {
    "base": lambda recipe, _: base.run(recipe),
    "sft": lambda recipe, _: finetune.run(recipe),
    "annotate": lambda recipe, number: annotate.run(recipe, number),
    "reward": lambda recipe, number: train_reward_models.run(recipe, number),
    "rejection": lambda recipe, number: ppo.run(recipe, number, method="rejection"),
    "ppo": lambda recipe, number: ppo.run(recipe, number, method="ppo"),
    "eval": lambda recipe, number: evaluate.run(recipe, number),
}
"""Stage folder -> what makes it, for a round."""
