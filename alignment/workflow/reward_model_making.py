"""From a recipe to reward models that are ready to train, and what is measured on them afterwards."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from alignment.data.records import Comparison, Dimension
from alignment.models.backbone import Backbone
from alignment.models.heads.known_heads import build_head
from alignment.models.scorers.reward_model import RewardModel
from alignment.reward.encoded_pairs import EncodedPair, check_usable, encode_pairs
from alignment.reward.losses import preference_loss_named
from alignment.reward.pair_scoring import calibrate, evaluate_reward_model
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.workflow.reward_data import RewardData, apart_for_guard, reward_data

GUARD = "guard"


class Encoded(NamedTuple):
    """One reward model's comparisons as token ids."""

    pairs: list[EncodedPair]
    heldout_pairs: list[EncodedPair]
    heldout: list[Comparison]
    left_out: dict[str, int]


def data_of_models(recipe: Recipe, folder: RunFolder, round_number: int) -> dict[str, RewardData]:
    """Name -> comparisons of every reward model, the guard's included."""
    own, guard = apart_for_guard(
        reward_data(recipe, folder, round_number), share=recipe.reward.guard_share, seed=recipe.seed
    )
    return dict(own.items()) | ({GUARD: guard} if guard else {})


def encode(recipe: Recipe, backbone: Backbone, data: RewardData, name: str) -> tuple[Encoded, list[str]]:
    """Encode both parts of a model's data; returns them and what is to be said of them.

    Raises:
        UserError: the settings ask for what the comparisons cannot give, or a comparison is too long.
    """
    section, head = recipe.reward.of(name), recipe.reward.head
    preference_loss_named(section.loss)
    fresh = build_head(head.name, backbone.hidden_size, arguments=head.arguments)
    check_usable(data.train, section, fresh, name=_dimension(name))
    encoding: dict[str, Any] = {
        "margin": section.margin,
        "strengths": section.strengths.model_dump(),
        "max_length_tokens": min(section.max_length_tokens, backbone.context_tokens),
        "skip_too_long": recipe.data.too_long == "skip",
    }
    pairs, _, too_long = encode_pairs(data.train, backbone.encoder, **encoding)
    heldout_pairs, heldout, heldout_too_long = encode_pairs(data.heldout, backbone.encoder, **encoding)
    too_long += heldout_too_long
    notes = [*data.notes, *([f"{name}: {too_long} comparisons too long, left out"] if too_long else [])]
    return Encoded(pairs, heldout_pairs, heldout, {**data.left_out, "too long": too_long}), notes


def new_model(recipe: Recipe, backbone: Backbone, role: str) -> RewardModel:
    """A reward model to be trained: an adapter on the SFT model, or a copy of all its weights; with a fresh head."""
    head = recipe.reward.head
    if recipe.reward.train == "full":
        own = backbone.trainable_copy(None, setting="reward.train=full", instead="reward.train=lora")
        return RewardModel(own, None, head_name=head.name, head_arguments=head.arguments)
    backbone.add_adapter(role, recipe.model.lora)
    return RewardModel(backbone, role, head_name=head.name, head_arguments=head.arguments)


def measured(recipe: Recipe, model: RewardModel, data: Encoded, name: str) -> dict[str, Any]:
    """Calibrate a trained model on its training pairs, and measure it on held-out ones: its block of the result."""
    batch_size = 2 * recipe.reward.of(name).micro_batch_size_pairs
    return {
        "n_train": len(data.pairs),
        "mixture": dict(Counter(pair.dimension for pair in data.pairs)),
        "left_out": data.left_out,
        "calibration": calibrate(model, data.pairs, _dimension(name), batch_size=batch_size),
        **evaluate_reward_model(
            model,
            data.heldout_pairs,
            data.heldout,
            seed=recipe.seed,
            batch_size=batch_size,
            threshold_probability=recipe.ppo.safety_threshold,
        ),
    }


def _dimension(name: str) -> Dimension:
    """What a model is about; the guard ranks, as helpfulness does."""
    return "safety" if name == "safety" else "helpfulness"
