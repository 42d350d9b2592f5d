"""Train the helpfulness and the safety reward model on graded comparisons (section 3.2.2).

Both start from the SFT model, each as an adapter with a head. Evaluated on held-out comparisons, per grade. Stopped at
any instant, the stage goes on from its last checkpoint when it is started again.

    python -m stages.reward
    python -m stages.reward "reward.models=[safety]" reward.safety.data=pairs.jsonl.gz run_dir=runs/pairs
    python -m stages.reward --evaluate-only
    python -m stages.reward --ablate margin,auxiliary,head,loss
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, NamedTuple

from trl import RewardConfig

from alignment.checkpoint import FOLDER as CHECKPOINTS
from alignment.checkpoint import latest_step
from alignment.data.records import Comparison, Dimension
from alignment.files import read_json, write_json
from alignment.models.backbone import Backbone
from alignment.models.heads import build_head
from alignment.models.policies import load_backbone
from alignment.models.reward_model import RewardModel
from alignment.models.sft import check_trainer_settings
from alignment.plugins import plugin_files
from alignment.recipe import Recipe
from alignment.reward.data import RewardData, apart_for_guard, reward_data
from alignment.reward.evaluation import calibrate, evaluate_reward_model
from alignment.reward.losses import preference_loss_named
from alignment.reward.pairs import EncodedPair, check_usable, encode_pairs
from alignment.reward.training import train_reward_model
from alignment.run import RunFolder, StageRun
from stages.interrupt import StopRequest, deferred_stop
from stages.progress import progress, say
from stages.runner import guarded, parser_for, recipe_from

GUARD = "guard"
RESULT = "result.json"
"""Written last into a reward model's folder: it is trained, evaluated and saved."""


def main(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/reward/``; returns the stage's result."""
    folder = RunFolder(recipe.run_dir)
    folder.require("sft", command="python -m stages.sft")
    folder.check_not_finished("reward", recipe, round_number)
    check_trainer_settings(recipe.reward.trainer, RewardConfig, section="reward.trainer")
    own, guard = apart_for_guard(
        reward_data(recipe, folder, round_number), share=recipe.reward.guard_share, seed=recipe.seed
    )
    data: dict[str, RewardData] = dict(own.items()) | ({GUARD: guard} if guard else {})
    backbone = load_backbone(folder, recipe.model)
    encoded = {name: encode(recipe, backbone, item, name) for name, item in data.items()}
    inputs = list(dict.fromkeys(path for item in data.values() for path in item.inputs)) + plugin_files(recipe)
    with folder.lock(), deferred_stop() as stop:
        stage = folder.begin_or_resume("reward", recipe, round_number, inputs=inputs)
        results: dict[str, Any] = {}
        for name, item in encoded.items():
            done = stage.folder / name / RESULT
            if not done.is_file():
                folder.seed(f"reward/{name}", recipe, round_number)  # the same model without the one before
                write_json(done, train_one(recipe, stage, new_model(recipe, backbone, name), item, name, stop))
                stop.obey()
            results[name] = read_json(done)
        result = folder.finish(stage, {"models": results}, inputs=inputs)
        stage.remove_checkpoints()
        return result


class Encoded(NamedTuple):
    """One reward model's comparisons as token ids."""

    pairs: list[EncodedPair]
    heldout_pairs: list[EncodedPair]
    heldout: list[Comparison]
    left_out: dict[str, int]


def encode(recipe: Recipe, backbone: Backbone, data: RewardData, name: str) -> Encoded:
    """Check that the settings can be met, encode both parts; say what was left out."""
    section = recipe.reward.of(name)
    head = build_head(recipe.reward.head.name, backbone.hidden_size, arguments=recipe.reward.head.arguments)
    preference_loss_named(section.loss)
    check_usable(data.train, section, head, name="safety" if name == "safety" else "helpfulness")
    encoding: dict[str, Any] = {
        "margin": section.margin,
        "strengths": section.strengths.model_dump(),
        "max_length_tokens": min(section.max_length_tokens, backbone.context_tokens),
        "skip_too_long": recipe.data.too_long == "skip",
    }
    pairs, _, too_long = encode_pairs(data.train, backbone.encoder, **encoding)
    heldout_pairs, heldout, heldout_too_long = encode_pairs(data.heldout, backbone.encoder, **encoding)
    too_long += heldout_too_long
    for note in [*data.notes, *([f"{name}: {too_long} comparisons too long, left out"] if too_long else [])]:
        say(note)
    return Encoded(pairs, heldout_pairs, heldout, {**data.left_out, "too long": too_long})


def new_model(recipe: Recipe, backbone: Backbone, name: str) -> RewardModel:
    """A reward model to be trained: an adapter on the SFT model, or a copy of all its weights; with a fresh head."""
    head, role = recipe.reward.head, name
    if recipe.reward.train == "full":
        own = backbone.trainable_copy(None, setting="reward.train=full", instead="reward.train=lora")
        return RewardModel(own, None, head_name=head.name, head_arguments=head.arguments)
    backbone.add_adapter(role, recipe.model.lora)
    return RewardModel(backbone, role, head_name=head.name, head_arguments=head.arguments)


def train_one(
    recipe: Recipe, stage: StageRun, model: RewardModel, data: Encoded, name: str, stop: StopRequest
) -> dict[str, Any]:
    """Train, calibrate, evaluate and save one reward model; returns its block of the result."""
    section = recipe.reward.of(name)
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
            section,
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


def measured(recipe: Recipe, model: RewardModel, data: Encoded, name: str) -> dict[str, Any]:
    """Calibrate a trained model on its training pairs, and measure it on held-out ones."""
    batch_size = 2 * recipe.reward.of(name).micro_batch_size_pairs
    dimension: Dimension = "safety" if name == "safety" else "helpfulness"
    return {
        "n_train": len(data.pairs),
        "left_out": data.left_out,
        "calibration": calibrate(model, data.pairs, dimension, batch_size=batch_size),
        **evaluate_reward_model(
            model,
            data.heldout_pairs,
            data.heldout,
            seed=recipe.seed,
            batch_size=batch_size,
            threshold_probability=recipe.ppo.safety_threshold,
        ),
    }


def command(arguments: argparse.Namespace) -> Any:
    """Train, or what the command line asks for instead."""
    from stages import reward_ablation, reward_evaluation  # which use this module

    recipe = recipe_from(arguments)
    if arguments.evaluate_only:
        return reward_evaluation.evaluate_only(recipe)
    if arguments.ablate:
        return reward_ablation.ablate(recipe, arguments.ablate.split(","))
    return main(recipe)


if __name__ == "__main__":
    parser = parser_for(__doc__, "stages.reward")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--evaluate-only", action="store_true", help="measure reward.evaluation.models, train none")
    instead.add_argument("--ablate", metavar="FACTORS", help="train and compare variants: margin,auxiliary,head,loss")
    parsed = parser.parse_intermixed_args()
    sys.exit(guarded(lambda: command(parsed)))
