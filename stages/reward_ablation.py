"""Train variants of the run's reward models and compare them. Not a stage itself: it is part of ``stages.reward``.

The tables of the paper's A.3 for one's own comparisons: every variant sees the same pairs in the same order, from the
same random start, and is measured on the same held-out comparisons. A variant that is done is kept, so that the same
command goes on after a stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from alignment.config import parse_recipe
from alignment.data.records import GRADES
from alignment.errors import UserError
from alignment.files import read_json, write_json
from alignment.models.backbone import Backbone
from alignment.models.heads import HEADS
from alignment.models.policies import load_backbone
from alignment.recipe import Recipe
from alignment.reward.data import RewardData, reward_data
from alignment.reward.losses import LOSSES, MARGINS
from alignment.reward.training import train_reward_model
from alignment.run import RunFolder
from alignment.statistics import Figure
from stages.progress import console, progress, say
from stages.reward import encode, measured, new_model
from stages.reward_evaluation import cell

BINS = {
    "preferred_safe_other_unsafe": "safe over unsafe",
    "both_safe": "safe over safe",
    "both_unsafe": "unsafe over unsafe",
}


class Factor(NamedTuple):
    """A setting to vary, for one of the models or for all."""

    values: Callable[[], dict[str, dict[str, Any]]]
    """Name of a variant -> its settings within ``reward`` (``{}`` stands for the model's name)."""
    models: tuple[str, ...]


FACTORS = {
    "margin": Factor(lambda: {name: {"{}.margin": name} for name in MARGINS}, ("helpfulness",)),
    "auxiliary": Factor(
        lambda: {"ranking only": {"{}.safety_weight": 0.0}, "with auxiliary loss": {"{}.safety_weight": 1.0}},
        ("safety",),
    ),
    "head": Factor(
        lambda: {name: {"head": {"name": name, "arguments": {}}} for name in HEADS}, ("helpfulness", "safety")
    ),
    "loss": Factor(lambda: {name: {"{}.loss": name} for name in LOSSES}, ("helpfulness", "safety")),
}
"""Name on the command line -> what is varied: Tables 27 to 29, heads and losses."""


def ablate(recipe: Recipe, factors: list[str]) -> dict[str, Any]:
    """Train every variant of the factors that is not done, print a table for each, and write ``ablations.json``.

    Returns:
        Factor -> model -> variant -> its figures.

    Raises:
        UserError: an unknown factor; lists the valid ones.
    """
    unknown = [name for name in factors if name not in FACTORS]
    if unknown:
        raise UserError(f"--ablate {unknown[0]}: unknown; valid: {', '.join(FACTORS)}")
    folder = RunFolder(recipe.run_dir)
    round_number = folder.latest_round("annotate") or 1
    data = reward_data(recipe, folder, round_number)
    backbone = load_backbone(folder, recipe.model)
    target = folder.root / "reward-ablations"
    found: dict[str, Any] = {}
    with folder.lock():
        target.mkdir(exist_ok=True)
        for factor in factors:
            found[factor] = {
                model: _variants(recipe, folder, round_number, backbone, data[model], factor, model, target)  # type: ignore[index]
                for model in FACTORS[factor].models
                if model in data
            }
            for model, variants in found[factor].items():
                console.print(table_of(factor, model, variants))
    write_json(target / "ablations.json", {"schema_version": 1, "seed": recipe.seed, "factors": found})
    say(f"written: {target / 'ablations.json'}")
    return found


def _variants(
    recipe: Recipe,
    folder: RunFolder,
    round_number: int,
    backbone: Backbone,
    data: RewardData,
    factor: str,
    model: str,
    target: Path,
) -> dict[str, Any]:
    """The figures of every variant of one model; those that the comparisons cannot feed are named and left out."""
    figures: dict[str, Any] = {}
    for name, settings in FACTORS[factor].values().items():
        varied = with_settings(recipe, {key.format(model): value for key, value in settings.items()})
        file = target / f"{factor}-{model}-{name.replace(' ', '-')}.json"
        asked = {**varied.reward.model_dump(mode="json"), "seed": recipe.seed}
        done = read_json(file) if file.is_file() else {}
        if done.get("settings") != asked or recipe.overwrite:
            try:
                done = {"settings": asked, "figures": _train(varied, folder, round_number, backbone, data, model, name)}
            except UserError as error:
                say(f"{factor} {name} is left out for {model}: {error}")
                continue
            write_json(file, done)
        figures[name] = done["figures"]
    return figures


def _train(
    recipe: Recipe, folder: RunFolder, round_number: int, backbone: Backbone, data: RewardData, model: str, name: str
) -> dict[str, Any]:
    encoded = encode(recipe, backbone, data, model)
    folder.seed(f"reward/{model}", recipe, round_number)
    made = new_model(recipe, backbone, _free_name(backbone))
    section = recipe.reward.of(model)
    with progress(f"{model}: {name}") as on_step:
        train_reward_model(
            made,
            backbone.tokenizer,
            encoded.pairs,
            section,
            seed=recipe.seed,
            trainer=recipe.reward.trainer,
            on_step=on_step,
        )
    return measured(recipe, made, encoded, model)


def _free_name(backbone: Backbone) -> str:
    """A name for one more adapter; those before stay, frozen by nobody and used by nobody."""
    return f"ablation_{len(backbone.peft.peft_config) if backbone.peft is not None else 0}"


def with_settings(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    """The recipe with some settings of ``reward``, by their dotted keys, changed."""
    values = recipe.model_dump(mode="json")
    for key, value in settings.items():
        *path, last = key.split(".")
        section = values["reward"]
        for part in path:
            section = section[part]
        section[last] = value
    return parse_recipe(values, origin="--ablate")


def table_of(factor: str, model: str, variants: dict[str, Any]) -> Table:
    """Table 28 (by grade) or, for the auxiliary loss, Table 29 (by safety bin, with unsafe recall), for a terminal."""
    by_bin = factor == "auxiliary"
    columns = ["all", *(BINS.values() if by_bin else (grade.replace("_", " ") for grade in GRADES))]
    table = Table(factor, *columns, *(["unsafe recall at 0.5"] if by_bin else []), title_justify="left")
    table.title = f"{model} model: accuracy by {'safety bin' if by_bin else 'grade'}"
    for name, figures in variants.items():
        table.add_row(name, *(cell(figure) for figure in row_of(figures, by_bin=by_bin)))
    return table


def row_of(figures: dict[str, Any], *, by_bin: bool) -> Iterator[Figure | None]:
    """What stands in a variant's row."""
    yield figures["accuracy"]["all"]
    if not by_bin:
        yield from (figures["accuracy"][grade] for grade in GRADES)
        return
    yield from (figures["accuracy_by_safety_bin"][name] for name in BINS)
    detected = figures["unsafe_detection"]
    yield detected["at_half"]["recall"] if detected else None
