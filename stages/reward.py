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
from alignment.recipe import Recipe, RewardModelSection
from alignment.reward.data import RewardData, apart_for_guard, reward_data
from alignment.reward.evaluation import calibrate, evaluate_reward_model
from alignment.reward.training import EncodedPair, encode_pairs, train_reward_model
from alignment.run import RunFolder, StageRun
from stages.progress import progress, say_left_out
from stages.runner import run

GUARD = "guard"


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
    with folder.lock():
        stage = folder.begin("reward", recipe, round_number)
        results: dict[str, Any] = {}
        for name in data:
            backbone.add_adapter(name, recipe.model.lora)
            model = RewardModel(
                backbone,
                name,
                head_name=recipe.reward.head.name,
                head_arguments=recipe.reward.head.arguments,
            )
            results[name] = train_one(recipe, stage, model, encoded[name], name)
        inputs = [path for item in data.values() for path in item.inputs]
        return folder.finish(stage, {"models": results}, inputs=inputs)


class Encoded(NamedTuple):
    """One reward model's comparisons as token ids."""

    pairs: list[EncodedPair]
    heldout_pairs: list[EncodedPair]
    heldout: list[Comparison]
    left_out: dict[str, int]


def settings_of(recipe: Recipe, name: str) -> RewardModelSection:
    """A reward model's settings; the guard, a ranking model, has those of helpfulness."""
    section: RewardModelSection = getattr(recipe.reward, "helpfulness" if name == GUARD else name)
    return section


def encode(recipe: Recipe, backbone: Backbone, data: RewardData, name: str) -> Encoded:
    """Encode both parts; say what was left out."""
    section = settings_of(recipe, name)
    encoding: dict[str, Any] = {
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


def train_one(recipe: Recipe, stage: StageRun, model: RewardModel, data: Encoded, name: str) -> dict[str, Any]:
    """Train, calibrate, evaluate and save one reward model; returns its block of the result."""
    section = settings_of(recipe, name)
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
        )
    batch_size = 2 * section.micro_batch_size_pairs
    dimension: Dimension = "safety" if name == "safety" else "helpfulness"
    calibration = calibrate(model, data.pairs, dimension, batch_size=batch_size)
    evaluation = evaluate_reward_model(model, data.heldout_pairs, data.heldout, seed=recipe.seed, batch_size=batch_size)
    model.save(stage.folder / name, calibration=calibration)
    counts = {"n_train": len(data.pairs), "left_out": data.left_out}
    return {**figures, **counts, "calibration": calibration, **evaluation}


if __name__ == "__main__":
    run(main, __doc__, "stages.reward")
