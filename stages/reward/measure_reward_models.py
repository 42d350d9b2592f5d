"""Reward models of the stage, calibrated on their training comparisons and measured on held-out ones.

Once more where the held-out comparisons have changed since (``measure_again``): no weight is trained again then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.data.records import Dimension
from alignment.files import read_json, write_json
from alignment.models.backbone import Backbone
from alignment.models.scorers.reward_model import RewardModel
from alignment.reward.encoded_pairs import EncodedParts
from alignment.reward.pair_scoring import calibrate, evaluate_reward_model
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe

RESULT = "result.json"
"""Written last into a reward model's folder: it is trained, measured and saved."""


def measured(recipe: Recipe, model: RewardModel, data: EncodedParts, name: str) -> dict[str, Any]:
    """Calibrate a trained model on its training pairs, and measure it on held-out ones: its block of the result.

    Args:
        recipe: batch size, seed and safety threshold.
        model: the trained model.
        data: its comparisons as token ids.
        name: of the reward model.
    """
    return {
        "n_train": len(data.pairs),
        "mixture": dict(Counter(pair.dimension for pair in data.pairs)),
        "left_out": data.left_out,
        "calibration": calibrate(model, data.pairs, dimension_of(name), batch_size=scored_at_once(recipe, name)),
        **heldout_figures(recipe, model, data, name),
    }


def measure_again(
    recipe: Recipe,
    folder: RunFolder,
    backbone: Backbone,
    data: Mapping[str, EncodedParts],
    round_number: int,
    *,
    inputs: Sequence[Path],
) -> dict[str, Any]:
    """Measure finished reward models on held-out pairs that have changed since; no weight is trained again.

    Args:
        recipe: as they were trained with.
        folder: the run.
        backbone: the SFT model.
        data: name -> its comparisons as token ids.
        round_number: of the round, from 1.
        inputs: files that the stage reads.

    Returns:
        The stage's result.
    """
    with folder.lock():
        stage = folder.begin_measuring("reward", recipe, round_number)
        for name, item in data.items():
            measure_one(recipe, backbone, item, stage.folder / name)
        results = {name: read_json(stage.folder / name / RESULT) for name in data}
        return folder.finish(stage, {"models": results}, inputs=inputs)


def measure_one(recipe: Recipe, backbone: Backbone, data: EncodedParts, folder: Path) -> None:
    """Measure a finished reward model on the held-out pairs that there are now, and write its result anew.

    Args:
        recipe: as it was trained with.
        backbone: the SFT model.
        data: its comparisons as token ids.
        folder: the model's.
    """
    model = RewardModel.load(backbone, folder.name, folder)
    figures = heldout_figures(recipe, model, data, folder.name)
    write_json(folder / RESULT, {**read_json(folder / RESULT), "left_out": data.left_out, **figures})


def heldout_figures(recipe: Recipe, model: RewardModel, data: EncodedParts, name: str) -> dict[str, Any]:
    """What a calibrated model is worth on held-out pairs.

    Args:
        recipe: batch size, seed and safety threshold.
        model: the trained model.
        data: its comparisons as token ids.
        name: of the reward model.
    """
    return evaluate_reward_model(
        model,
        data.heldout_pairs,
        data.heldout,
        seed=recipe.seed,
        batch_size=scored_at_once(recipe, name),
        threshold_probability=recipe.ppo.safety_threshold,
    )


def scored_at_once(recipe: Recipe, name: str) -> int:
    """Answers in a batch: as many as pass at once in training."""
    return 2 * recipe.reward.of(name).micro_batch_size_pairs


def dimension_of(name: str) -> Dimension:
    """What a model is about; the guard ranks, as helpfulness does."""
    return "safety" if name == "safety" else "helpfulness"
