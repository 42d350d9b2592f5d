"""Train the helpfulness and the safety reward model on graded comparisons (section 3.2.2).

Both start from the SFT model, each as an adapter with a head. Evaluated on held-out comparisons, per grade.

    python -m stages.reward
    python -m stages.reward "reward.models=[safety]" reward.safety.data=pairs.jsonl.gz run_dir=runs/pairs
"""

from __future__ import annotations

from typing import Any, NamedTuple

from trl import RewardConfig

from alignment.data.records import Comparison, Dimension
from alignment.models.backbone import Backbone
from alignment.models.policies import load_backbone
from alignment.models.reward_model import RewardModel
from alignment.models.sft import check_trainer_settings
from alignment.recipe import Recipe
from alignment.reward.data import RewardData, reward_data
from alignment.reward.evaluation import calibrate, evaluate_reward_model
from alignment.reward.training import EncodedPair, encode_pairs, train_reward_model
from alignment.run import RunFolder, StageRun
from stages.progress import progress, say_left_out
from stages.runner import run


def main(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/reward/``; returns the stage's result."""
    folder = RunFolder(recipe.run_dir)
    folder.require("sft", command="python -m stages.sft")
    folder.check_not_finished("reward", recipe, round_number)
    check_trainer_settings(recipe.reward.trainer, RewardConfig, section="reward.trainer")
    data = {dimension: reward_data(recipe, folder, dimension, round_number) for dimension in recipe.reward.models}
    backbone = load_backbone(folder, recipe.model)
    encoded = {dimension: encode(recipe, backbone, item, dimension) for dimension, item in data.items()}
    with folder.lock():
        stage = folder.begin("reward", recipe, round_number)
        results: dict[str, Any] = {}
        for dimension in recipe.reward.models:
            backbone.add_adapter(dimension, recipe.model.lora)
            model = RewardModel(
                backbone,
                dimension,
                head_name=recipe.reward.head.name,
                head_arguments=recipe.reward.head.arguments,
            )
            results[dimension] = train_one(recipe, stage, model, encoded[dimension], dimension)
        inputs = [path for item in data.values() for path in item.inputs]
        return folder.finish(stage, {"models": results}, inputs=inputs)


class Encoded(NamedTuple):
    """One reward model's comparisons as token ids."""

    pairs: list[EncodedPair]
    heldout_pairs: list[EncodedPair]
    heldout: list[Comparison]
    left_out: dict[str, int]


def encode(recipe: Recipe, backbone: Backbone, data: RewardData, dimension: Dimension) -> Encoded:
    """Encode both parts; say what was left out."""
    section = getattr(recipe.reward, dimension)
    encoding = {
        "margin": section.margin,
        "max_length_tokens": min(section.max_length_tokens, backbone.context_tokens),
        "skip_too_long": recipe.data.too_long == "skip",
    }
    pairs, _, too_long = encode_pairs(data.train, backbone.encoder, **encoding)
    heldout_pairs, heldout, heldout_too_long = encode_pairs(data.heldout, backbone.encoder, **encoding)
    if data.report is not None:
        say_left_out(data.report, too_long + heldout_too_long)
    left_out = {**data.left_out, "too long": too_long + heldout_too_long}
    return Encoded(pairs, heldout_pairs, heldout, left_out)


def train_one(
    recipe: Recipe, stage: StageRun, model: RewardModel, data: Encoded, dimension: Dimension
) -> dict[str, Any]:
    """Train, calibrate, evaluate and save one reward model; returns its block of the result."""
    section = getattr(recipe.reward, dimension)
    with progress(f"reward: {dimension}") as on_step:

        def log(step: int, total: int, figures: dict[str, float]) -> None:
            on_step(step, total, figures)
            stage.log({"model": dimension, "step": step, **figures})

        figures = train_reward_model(
            model,
            model.backbone.tokenizer,
            data.pairs,
            section,
            seed=recipe.seed,
            trainer=recipe.reward.trainer,
            on_step=log,
        )
    batch_size = 2 * section.micro_batch_size_pairs
    calibration = calibrate(model, data.pairs, dimension, batch_size=batch_size)
    evaluation = evaluate_reward_model(model, data.heldout_pairs, data.heldout, seed=recipe.seed, batch_size=batch_size)
    model.save(stage.folder / dimension, calibration=calibration)
    counts = {"n_train": len(data.pairs), "left_out": data.left_out}
    return {**figures, **counts, "calibration": calibration, **evaluation}


if __name__ == "__main__":
    run(main, __doc__, "stages.reward")
