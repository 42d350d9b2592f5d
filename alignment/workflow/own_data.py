"""Data of somebody's own, and the toy's: they do not mix without a word.

A run is somebody's own once it has demonstrations or comparisons that are not the toy's. What is still the toy's then,
only because a recipe that comes with Tandem says so, was meant by nobody.
"""

from __future__ import annotations

from typing import Any

from alignment.errors import UserError
from alignment.files import resolve, resource
from alignment.settings.read_recipe import value_at
from alignment.settings.recipe import Recipe
from alignment.settings.reward_sections import COLLECTED, source_names


def own_keys(recipe: Recipe) -> list[str]:
    """The settings that name demonstrations or comparisons of somebody's own; none, if the run is the toy's."""
    named: dict[str, list[Any]] = {"sft.data": [recipe.sft.data], "annotate.data": [recipe.annotate.data]}
    for name in recipe.reward.models:
        section = recipe.reward.of(name)
        named[f"reward.{name}.data"] = source_names(section.data)
        named[f"reward.{name}.mix"] = [path for source in section.mix for path in source_names(source.data)]
    return [
        key for key, paths in named.items() if any(path and path != COLLECTED and not is_toy(path) for path in paths)
    ]


def is_toy(path: str) -> bool:
    """Whether a file is one of the toy's."""
    return resource("data/toy").resolve() in resolve(path).resolve().parents


def is_left_over(recipe: Recipe, key: str) -> bool:
    """Whether a file of the toy's is in a run with own data, and nobody asked for it.

    Args:
        recipe: of the run.
        key: of the setting that names the file.
    """
    path = value_at(recipe.model_dump(), key)
    return path is not None and is_toy(path) and not recipe.is_typed(key) and bool(own_keys(recipe))


def check_meant(recipe: Recipe, *keys: str) -> None:
    """Raise ``UserError`` where a file of the toy's that nobody asked for is about to be read in a run with own data.

    Args:
        recipe: of the run.
        keys: of the settings that name the files.
    """
    for key in keys:
        if is_left_over(recipe, key):
            _refuse(recipe, key, "is the toy's file", "FILE")


def check_judge_meant(recipe: Recipe, key: str, *, toys: str, instead: str) -> None:
    """Raise ``UserError`` where somebody who knows the toy world only is to judge own data, and nobody asked for it.

    Args:
        recipe: of the run.
        key: of the setting that says who judges.
        toys: its value that is the toy's.
        instead: other values.
    """
    if value_at(recipe.model_dump(), key) == toys and not recipe.is_typed(key) and own_keys(recipe):
        _refuse(recipe, key, "knows the toy world only", instead)


def _refuse(recipe: Recipe, key: str, what: str, instead: str) -> None:
    values = recipe.model_dump()
    own, value = own_keys(recipe)[0], value_at(values, key)
    raise UserError(
        f"{key}={value} {what}, and {own}={value_at(values, own)} is your own data. Give {key}={instead}; or "
        f"{key}={value}, if the toy's is meant."
    )
