"""Variants of reward models, one setting apart, and the rows that compare them (the paper's A.3, Tables 27 to 29)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from alignment.config import parse_recipe
from alignment.data.records import GRADES, SafetyBin
from alignment.errors import UserError
from alignment.models.heads import HEADS
from alignment.recipe import Recipe
from alignment.reward.losses import LOSSES, MARGINS
from alignment.statistics import Figure

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
