"""Train the helpfulness and the safety reward model on graded comparisons (section 3.2.2).

Both start from the SFT model, each as an adapter with a head. Evaluated on held-out comparisons, per grade. Stopped at
any instant, the stage goes on from its last checkpoint when it is started again.

    python -m stages.reward
    python -m stages.reward "reward.models=[safety]" reward.safety.data=pairs.jsonl.gz run_dir=runs/pairs
    python -m stages.reward --evaluate-only
    python -m stages.reward --ablate margin,auxiliary,head,loss
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from trl import RewardConfig

from alignment.data.encoded_dialogues import without_marks
from alignment.data.records import Comparison
from alignment.files import read_json, write_json
from alignment.machine.checkpoint import latest_step
from alignment.models.backbone import Backbone
from alignment.models.heads.known_heads import build_head
from alignment.models.optimizer_and_trainer import check_trainer_settings
from alignment.models.scorers.reward_model import RewardModel
from alignment.reward.encoded_pairs import EncodedParts, check_usable, encode_pairs
from alignment.reward.losses import preference_loss_named
from alignment.reward.reward_training import train_reward_model
from alignment.run.run_folder import RunFolder
from alignment.run.stage_records import CHECKPOINTS, StageRun
from alignment.settings.recipe import Recipe
from alignment.workflow.plugins import load_plugins, plugin_files
from alignment.workflow.prompts_and_policies import load_backbone
from alignment.workflow.reward_data import RewardData, data_of_models
from stages.door.preconditions import check_reward
from stages.door.progress_and_exit import StopRequest, deferred_stop, progress, say
from stages.reward.measure_reward_models import RESULT, dimension_of, measure_again, measure_one, measured


def run(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/reward/``; returns the stage's result."""
    folder = RunFolder(recipe.run_dir)
    check_reward(recipe, round_number)
    check_trainer_settings(recipe.reward.trainer, RewardConfig, section="reward.trainer")
    folder.look("reward", recipe)
    load_plugins(recipe.plugins)  # after the look, so that what was run is what was looked at
    data = data_of_models(recipe, folder, round_number)
    backbone = load_backbone(folder, recipe.model)
    encoded = {name: encode(recipe, backbone, item, name) for name, item in data.items()}
    for note in dict.fromkeys(note for _, notes in encoded.values() for note in notes):
        say(note)
    inputs = list(dict.fromkeys(path for item in data.values() for path in item.inputs)) + plugin_files(recipe)
    if folder.has_stale_figures("reward", round_number) and not recipe.overwrite:
        pairs = {name: item for name, (item, _) in encoded.items()}
        return measure_again(recipe, folder, backbone, pairs, round_number, inputs=inputs)
    with folder.lock(), deferred_stop() as stop:
        stage = folder.begin_or_resume("reward", recipe, round_number, inputs=inputs)
        results: dict[str, Any] = {}
        for name, (item, _) in encoded.items():
            done = stage.folder / name / RESULT
            if not done.is_file():
                folder.seed(f"reward/{name}", recipe, round_number)  # the same model without the one before
                write_json(done, train_one(recipe, stage, new_model(recipe, backbone, name), item, name, stop))
                stop.obey()
            elif stage.has_stale_figures:  # it was measured before a stop, on other held-out pairs
                measure_one(recipe, backbone, item, stage.folder / name)
            results[name] = read_json(done)
        result = folder.finish(stage, {"models": results}, inputs=inputs)
        stage.remove_checkpoints()
        return result


def train_one(
    recipe: Recipe, stage: StageRun, model: RewardModel, data: EncodedParts, name: str, stop: StopRequest
) -> dict[str, Any]:
    """Train one reward model from where it was stopped, measure and save it.

    Args:
        recipe: settings of the training.
        stage: the stage at work; its folder takes model, metrics and checkpoints.
        model: to be trained, with a fresh head.
        data: its comparisons as token ids.
        name: of the reward model.
        stop: whether the person has asked to stop; if so, training ends at a checkpoint.

    Returns:
        The model's block of the result.
    """
    # Go back to the last checkpoint: metrics logged after it are dropped.
    checkpoint_folder = stage.folder / CHECKPOINTS / name
    done = latest_step(checkpoint_folder)
    stage.cut_log(lambda row: row["model"] != name or row["step"] <= done)
    # Train on from there.
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
    # Leave here if training was stopped; else measure the model and save it.
    if not figures.pop("finished"):
        stop.obey()
    found = measured(recipe, model, data, name)
    model.save(stage.folder / name, calibration=found["calibration"])
    return {**figures, **found}


def encode(recipe: Recipe, backbone: Backbone, data: RewardData, name: str) -> tuple[EncodedParts, list[str]]:
    """Encode both parts of a model's data; returns them and what is to be said of them.

    Args:
        recipe: settings of the model and its head, and what to do with comparisons that are too long.
        backbone: whose tokenizer and context.
        data: the model's comparisons, both parts.
        name: of the reward model.

    Raises:
        UserError: the settings ask for what the comparisons cannot give, or a comparison is too long.
    """
    section, head = recipe.reward.of(name), recipe.reward.head
    preference_loss_named(section.loss)
    fresh = build_head(head.name, backbone.hidden_size, arguments=head.arguments)
    check_usable(data.train, section, fresh, name=dimension_of(name))
    encoding: dict[str, Any] = {
        "margin": section.margin,
        "strengths": section.strengths.model_dump(),
        "max_length_tokens": min(section.max_length_tokens, backbone.context_tokens),
        "skip_too_long": recipe.data.too_long == "skip",
    }
    left_out = Counter({"too long": 0})
    readable: list[list[Comparison]] = []
    for part in (data.train, data.heldout):
        kept, marked = without_marks(part, backbone.encoder, on_error=recipe.data.on_error)
        readable.append(kept)
        left_out.update(marked)
    pairs, _, too_long = encode_pairs(readable[0], backbone.encoder, **encoding)
    heldout_pairs, heldout, heldout_too_long = encode_pairs(readable[1], backbone.encoder, **encoding)
    left_out["too long"] += too_long + heldout_too_long
    said = [f"{name}: {count} comparisons {reason}, left out" for reason, count in left_out.items() if count]
    return EncodedParts(pairs, heldout_pairs, heldout, {**data.left_out, **left_out}), [*data.notes, *said]


def new_model(recipe: Recipe, backbone: Backbone, role: str) -> RewardModel:
    """A reward model to be trained: an adapter on the SFT model, or a copy of all its weights; with a fresh head."""
    head = recipe.reward.head
    if recipe.reward.train == "full":
        own = backbone.trainable_copy(None, setting="reward.train=full", instead="reward.train=lora")
        return RewardModel(own, None, head_name=head.name, head_arguments=head.arguments)
    backbone.add_adapter(role, recipe.model.lora)
    return RewardModel(backbone, role, head_name=head.name, head_arguments=head.arguments)
