"""Train variants of the run's reward models and compare them. Not a stage itself: it is part of ``stages.reward``.

Every variant sees the same pairs in the same order, from the same random start, and is measured on the same held-out
comparisons. A variant that is done is kept, so that the same command goes on after a stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from alignment.data.records import GRADES, SafetyBin
from alignment.errors import UserError
from alignment.figures.intervals import Figure
from alignment.files import read_json, write_json
from alignment.models.backbone import Backbone
from alignment.models.heads.known_heads import HEADS
from alignment.reward.encoded_pairs import EncodedParts
from alignment.reward.losses import LOSSES, MARGINS
from alignment.reward.reward_training import train_reward_model
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import parse_recipe
from alignment.settings.recipe import Recipe
from alignment.workflow.plugins import plugin_files
from alignment.workflow.prompts_and_policies import load_backbone
from alignment.workflow.reward_data import RewardData, data_of_models
from stages.door.progress_and_exit import console, progress, say
from stages.reward.evaluate_only import cell
from stages.reward.measure_reward_models import measured
from stages.reward.train_reward_models import encode, new_model

FOLDER = "reward-ablations"


def ablate(recipe: Recipe, factors: list[str]) -> dict[str, Any]:
    """Train every variant that is not done, print a table for each factor and model, and write ``ablations.json``.

    Returns:
        Factor -> model -> variant -> its figures.

    Raises:
        UserError: an unknown factor, or no comparisons.
    """
    check_factors(factors)
    folder = RunFolder(recipe.run_dir)
    round_number = folder.latest_round("annotate") or 1
    data = data_of_models(recipe, folder, round_number)
    backbone = load_backbone(folder, recipe.model)
    found: dict[str, dict[str, Any]] = {}
    with folder.lock():
        for factor in factors:
            found[factor] = {}
            for model, own in data.items():
                if model not in FACTORS[factor].models:
                    continue
                found[factor][model] = compare(recipe, folder, round_number, backbone, own, factor, model)
                console.print(table_of(factor, model, found[factor][model]))
        file = folder.root / FOLDER / "ablations.json"
        write_json(file, {"schema_version": 1, "seed": recipe.seed, "factors": found})
    say(f"written: {file}")
    return found


def compare(
    recipe: Recipe,
    folder: RunFolder,
    round_number: int,
    backbone: Backbone,
    data: RewardData,
    factor: str,
    model: str,
) -> dict[str, Any]:
    """The figures of every variant of one model; variants that the comparisons cannot feed are named and left out.

    Args:
        recipe: the run's own, which each variant changes in one place.
        folder: the run; figures of variants that are done are kept in it.
        round_number: of the comparisons, from 1.
        backbone: the SFT model that every variant starts from.
        data: the model's comparisons, the same for all variants.
        factor: a name in ``FACTORS``.
        model: the reward model's name.

    Returns:
        Variant -> its figures.
    """
    figures: dict[str, Any] = {}
    for name, varied in variants(recipe, factor, model).items():
        # A variant is done if its file was made from the same settings and inputs.
        file = folder.root / FOLDER / f"{factor}-{model}-{name.replace(' ', '-')}.json"
        asked = {
            "settings": varied.model_dump(mode="json", include={"reward", "model", "seed", "data"}),
            "made_from": folder.inputs.hashes([folder.stage("sft"), *data.inputs, *plugin_files(recipe)]),
        }
        done = _read(file)
        # Otherwise train it, and keep its figures.
        if done.get("asked") != asked or recipe.overwrite:
            try:
                encoded, _ = encode(varied, backbone, data, model)
            except UserError as error:
                say(f"{factor} {name} left out for the {model} model: {error}")
                continue
            folder.seed(f"reward/{model}", recipe, round_number)  # as the run's own model was
            done = {"asked": asked, "figures": train(varied, backbone, encoded, model, name)}
            write_json(file, done)
        figures[name] = done["figures"]
    return figures


def _read(file: Path) -> dict[str, Any]:
    file.parent.mkdir(exist_ok=True)
    return dict(read_json(file)) if file.is_file() else {}


def train(recipe: Recipe, backbone: Backbone, encoded: EncodedParts, model: str, name: str) -> dict[str, Any]:
    """Train and measure one variant, as one more adapter; nothing of it but its figures is kept.

    Args:
        recipe: the variant's.
        backbone: the SFT model, which gets the adapter.
        encoded: the model's comparisons as token ids.
        model: the reward model's name.
        name: of the variant, for the progress bar.
    """
    n_adapters = len(backbone.peft.peft_config) if backbone.peft is not None else 0
    made = new_model(recipe, backbone, f"variant_{n_adapters}")
    with progress(f"{model}: {name}") as on_step:
        train_reward_model(
            made,
            backbone.tokenizer,
            encoded.pairs,
            recipe.reward.of(model),
            seed=recipe.seed,
            trainer=recipe.reward.trainer,
            on_step=on_step,
        )
    return measured(recipe, made, encoded, model)


def table_of(factor: str, model: str, variants: dict[str, Any]) -> Table:
    """One row a variant, for a terminal."""
    table = Table(factor, *columns_of(factor), title=f"{model} model", title_justify="left")
    for name, figures in variants.items():
        table.add_row(name, *map(cell, row_of(factor, figures)))
    return table


BINS: dict[SafetyBin, str] = {
    "preferred_safe_other_unsafe": "safe over unsafe",
    "both_safe": "safe over safe",
    "both_unsafe": "unsafe over unsafe",
}
"""The columns of Table 29."""


class Factor(NamedTuple):
    """Something to vary."""

    values: Callable[[], dict[str, dict[str, Any]]]
    """Name of a variant -> its settings within ``reward``; ``MODEL`` stands for the model's name."""
    models: tuple[str, ...]
    """For which reward models."""


FACTORS = {
    "margin": Factor(lambda: {name: {"MODEL.margin": name} for name in MARGINS}, ("helpfulness",)),
    "auxiliary": Factor(
        lambda: {"ranking only": {"MODEL.safety_weight": 0.0}, "with auxiliary": {"MODEL.safety_weight": 1.0}},
        ("safety",),
    ),
    "head": Factor(
        lambda: {name: {"head": {"name": name, "arguments": {}}} for name in HEADS}, ("helpfulness", "safety")
    ),
    "loss": Factor(lambda: {name: {"MODEL.loss": name} for name in LOSSES}, ("helpfulness", "safety")),
}
"""Name -> what is varied; heads and losses of plugins take part."""


def check_factors(names: list[str]) -> None:
    """Raise ``UserError`` for an unknown factor; lists the valid ones."""
    unknown = [name for name in names if name not in FACTORS]
    if unknown:
        raise UserError(f"--ablate: unknown {unknown[0]!r}; valid: {', '.join(FACTORS)}, several with commas")


def variants(recipe: Recipe, factor: str, model: str) -> dict[str, Recipe]:
    """Name -> recipe of each variant of one reward model."""
    return {
        name: _with_settings(recipe, {key.replace("MODEL", model): value for key, value in settings.items()})
        for name, settings in FACTORS[factor].values().items()
    }


def _with_settings(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    """The recipe with some settings of ``reward``, by their dotted keys, changed."""
    values = recipe.model_dump(mode="json")
    for key, value in settings.items():
        *path, last = key.split(".")
        section = values["reward"]
        for part in path:
            section = section[part]
        section[last] = value
    return parse_recipe(values, origin="--ablate")


def columns_of(factor: str) -> list[str]:
    """What ``row_of`` gives: accuracy by grade; for the auxiliary loss by safety bin, with recall and precision."""
    if factor == "auxiliary":
        return ["all", *BINS.values(), "unsafe recall at 0.5", "precision"]
    return ["all", *(grade.replace("_", " ") for grade in GRADES)]


def row_of(factor: str, figures: dict[str, Any]) -> Iterator[Figure | None]:
    """A variant's figures (``reward_figures``) in the order of ``columns_of``."""
    yield figures["accuracy"]["all"]
    if factor != "auxiliary":
        yield from (figures["accuracy"][grade] for grade in GRADES)
        return
    yield from (figures["accuracy_by_safety_bin"][name] for name in BINS)
    detected = figures["unsafe_detection"]
    yield from (detected["at_half"][name] if detected else None for name in ("recall", "precision"))
