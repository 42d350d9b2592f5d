"""Supervised fine-tuning on curated dialogues, loss on the answers only (section 3.1).

Needs the base model; leaves ``sft/``, a standard Hugging Face model folder with the adapter merged in.

    python -m stages.sft
    python -m stages.sft sft.data=my_dialogues.jsonl sft.epochs=3
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import SFTConfig

from alignment.data.chat_template import date_of
from alignment.data.encoded_dialogues import encode_dialogues, without_marks
from alignment.data.readers import load_demonstrations
from alignment.data.splits import answered_prompts
from alignment.files import resolve
from alignment.models.backbone import save_model
from alignment.models.model_places import folder_of
from alignment.models.optimizer_and_trainer import check_trainer_settings
from alignment.models.pretrained import check_trainable, load_base, merge_and_save
from alignment.models.sft_trainer import train_sft
from alignment.models.weights_from_files import some
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.workflow.prompts_and_policies import base_model_path, check_against_heldout
from stages.door.preconditions import check_sft
from stages.door.progress_and_exit import progress, say, say_left_out


def run(recipe: Recipe) -> dict[str, Any]:
    """Make ``sft/`` in the run folder; returns the stage's result."""
    # Read the demonstrations and check them, before a model is loaded.
    folder = RunFolder(recipe.run_dir)
    check_sft(recipe)
    folder.look("sft", recipe)
    base = base_model_path(recipe, folder)
    source = resolve(recipe.sft.data)
    demonstrations, report = load_demonstrations(
        str(source), format=recipe.sft.format, on_error=recipe.data.on_error, unused=recipe.data.unused
    )
    check_against_heldout(recipe, answered_prompts(demonstrations), name=str(source))
    check_trainer_settings(recipe.sft.trainer, SFTConfig, section="sft.trainer")
    # Load the base model and encode the demonstrations for it.
    backbone = load_base(base, recipe.model)
    check_trainable(backbone, recipe.model)
    if backbone.unexpected_weights:
        say(f"{base}: weights that the model has no use for are left out: {some(backbone.unexpected_weights)}")
    limit = min(recipe.sft.max_length_tokens, backbone.context_tokens)
    readable, marked = without_marks(demonstrations, backbone.encoder, on_error=recipe.data.on_error)
    dialogues, too_long = encode_dialogues(
        readable, backbone.encoder, max_length_tokens=limit, skip_too_long=recipe.data.too_long == "skip"
    )
    left_out = {**report.skipped, **marked, "too long": too_long}
    say_left_out(report, {**marked, "too long": too_long})
    # Train all weights, or an adapter beside them.
    full = recipe.sft.method == "full"
    if full:
        backbone.unfreeze()
    settings = recipe.sft.model_copy(update={"max_length_tokens": limit})
    with folder.lock():
        stage = folder.begin("sft", recipe)
        model = backbone.base if full else backbone.train_adapter("policy", recipe.model.lora)
        with progress("sft") as on_step:

            def log(step: int, total: int, figures: dict[str, float]) -> None:
                on_step(step, total, figures)
                stage.log({"step": step, **figures})

            figures = train_sft(model, backbone.tokenizer, dialogues, settings, seed=recipe.seed, on_step=log)
        # Save a whole model either way: an adapter is kept, and merged into the base.
        if full:
            save_model(backbone.base, backbone.encoder, stage.folder)
        else:
            backbone.save_adapter("policy", stage.folder / "adapter")
            merge_and_save(base, stage.folder / "adapter", recipe.model, backbone.encoder, stage.folder)
        backbone.tokenizer.save_pretrained(str(stage.folder))
        # Write the result; the SFT model is the run's policy now.
        result = {**figures, "demonstrations": len(dialogues), "left_out": left_out}
        result["unexpected_weights"] = backbone.unexpected_weights
        written = date_of(backbone.encoder.template_source)
        result["template_date"] = None if written is None else written.isoformat()
        weights = folder_of(base)
        result["hub_snapshot"] = None if weights is None or Path(base).is_dir() else str(weights)
        folder.finish(stage, result, inputs=[source, *([weights] if weights else [])])
        folder.set_policy("sft")
        return folder.result("sft")
