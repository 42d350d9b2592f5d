"""Write a reward model or the newest policy as a standard folder, for Transformers, PEFT, TRL and the Hub.

Reward models need ``reward.head.name=linear``. Not a stage of the pipeline: it changes nothing in the run.

    python -m stages.export export.what=policy
    python -m stages.export export.what=safety export.form=adapter export.to=models/safety run_dir=runs/linear
"""

from __future__ import annotations

from pathlib import Path

from alignment.errors import UserError
from alignment.models.backbone import Backbone
from alignment.models.export.standard_folders import check_free, export_policy, export_reward_model
from alignment.models.scorers.reward_model import RewardModel
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.settings.sections import TOY_MODEL
from alignment.workflow.prompts_and_policies import Policy, load_backbone, load_policy, policy_names
from stages.door.preconditions import check_export
from stages.door.progress_and_exit import console


def run(recipe: Recipe) -> Path:
    """Make the folder that ``export.to`` names, or ``export/WHAT`` in the run folder; returns it."""
    folder, section = RunFolder(recipe.run_dir), recipe.export
    target = Path(section.to) if section.to else folder.root / "export" / section.what
    check_export(recipe)
    check_free(target, overwrite=recipe.overwrite)
    (export_newest if section.what == "policy" else export_reward)(recipe, folder, target)
    console.print(f"{section.what}, {section.form}: {target}", soft_wrap=True)
    return target


def export_reward(recipe: Recipe, folder: RunFolder, target: Path) -> None:
    """Export a reward model of the latest round, or of ``export.round``."""
    section = recipe.export
    number = section.round or folder.latest_round("reward") or 1
    model = RewardModel.load(base_of(recipe, folder), section.what, folder.stage("reward", number) / section.what)
    export_reward_model(
        model, target, merged=section.form == "merged", made_from=made_from(recipe), overwrite=recipe.overwrite
    )


def export_newest(recipe: Recipe, folder: RunFolder, target: Path) -> None:
    """Export the newest policy, of the run or of ``export.round``."""
    policy = newest(recipe, folder)
    merged = recipe.export.form == "merged"
    export_policy(
        *policy.role,
        target,
        merged=merged,
        made_from=made_from(recipe),
        overwrite=recipe.overwrite,
    )


def made_from(recipe: Recipe) -> str | None:
    """The model that the run began with; the toy's base is made in the run itself."""
    return None if recipe.model.name_or_path == TOY_MODEL else recipe.model.name_or_path


def newest(recipe: Recipe, folder: RunFolder) -> Policy:
    """The newest policy, loaded."""
    name, number = "newest", recipe.export.round
    if number is not None:
        made = [found for found in policy_names(folder) if found.endswith(f"-{number}")]
        if not made:
            raise UserError(
                f"{folder.root}: round {number} has made no policy. Make it first: "
                f"{folder.command_for('ppo', round_number=number)}"
            )
        name = made[-1]
    return load_policy(folder, base_of(recipe, folder), name)


def base_of(recipe: Recipe, folder: RunFolder) -> Backbone:
    """The SFT model, without a second copy to sample with."""
    return load_backbone(folder, recipe.model.model_copy(update={"sampling_copy": False}))
