"""Train the helpfulness and the safety reward model on graded comparisons (section 3.2.2).

Both start from the SFT model, each as an adapter with a head. Evaluated on held-out comparisons, per grade. Stopped at
any instant, the stage goes on from its last checkpoint when it is started again.

    python -m stages.reward
    python -m stages.reward "reward.models=[safety]" reward.safety.data=pairs.jsonl.gz run_dir=runs/pairs
    python -m stages.reward --evaluate-only
    python -m stages.reward --ablate margin,auxiliary,head,loss
"""

from __future__ import annotations

from typing import Any

from trl import RewardConfig

from alignment.files import read_json, write_json
from alignment.machine.checkpoint import latest_step
from alignment.models.scorers.reward_model import RewardModel
from alignment.models.trainer_kit import check_trainer_settings
from alignment.reward.reward_training import train_reward_model
from alignment.run.run_folder import RunFolder
from alignment.run.stage_run import CHECKPOINTS as CHECKPOINTS
from alignment.run.stage_run import StageRun
from alignment.settings.recipe import Recipe
from alignment.workflow.plugins import plugin_files
from alignment.workflow.reward_model_making import Encoded, data_of_models, encode, measured, new_model
from alignment.workflow.run_policies import load_backbone
from stages.door.preconditions import check_reward
from stages.door.progress import progress, say
from stages.door.stop_request import StopRequest, deferred_stop

RESULT = "result.json"
"""Written last into a reward model's folder: it is trained, measured and saved."""


def main(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/reward/``; returns the stage's result."""
    folder = RunFolder(recipe.run_dir)
    check_reward(recipe, round_number)
    check_trainer_settings(recipe.reward.trainer, RewardConfig, section="reward.trainer")
    data = data_of_models(recipe, folder, round_number)
    backbone = load_backbone(folder, recipe.model)
    encoded = {name: encode(recipe, backbone, item, name) for name, item in data.items()}
    for note in dict.fromkeys(note for _, notes in encoded.values() for note in notes):
        say(note)
    inputs = list(dict.fromkeys(path for item in data.values() for path in item.inputs)) + plugin_files(recipe)
    with folder.lock(), deferred_stop() as stop:
        stage = folder.begin_or_resume("reward", recipe, round_number, inputs=inputs)
        results: dict[str, Any] = {}
        for name, (item, _) in encoded.items():
            done = stage.folder / name / RESULT
            if not done.is_file():
                folder.seed(f"reward/{name}", recipe, round_number)  # the same model without the one before
                write_json(done, train_one(recipe, stage, new_model(recipe, backbone, name), item, name, stop))
                stop.obey()
            results[name] = read_json(done)
        result = folder.finish(stage, {"models": results}, inputs=inputs)
        stage.remove_checkpoints()
        return result


def train_one(
    recipe: Recipe, stage: StageRun, model: RewardModel, data: Encoded, name: str, stop: StopRequest
) -> dict[str, Any]:
    """Train one reward model from where it was stopped, measure and save it; returns its block of the result."""
    checkpoint_folder = stage.folder / CHECKPOINTS / name
    done = latest_step(checkpoint_folder)
    stage.cut_log(lambda row: row["model"] != name or row["step"] <= done)
    with progress(f"reward: {name}") as on_step:

        def log(step: int, total: int, figures: dict[str, float]) -> None:
            on_step(step, total, figures)
            stage.log({"model": name, "step": step, **figures})

        figures = train_reward_model(
            model,
            model.backbone.tokenizer,
            data.pairs,
            recipe.reward.of(name),
            seed=recipe.seed,
            trainer=recipe.reward.trainer,
            on_step=log,
            checkpoint_folder=checkpoint_folder,
            stop_asked=lambda: stop.asked,
        )
    if not figures.pop("finished"):
        stop.obey()
    found = measured(recipe, model, data, name)
    model.save(stage.folder / name, calibration=found["calibration"])
    return {**figures, **found}
