"""Where the base model of a recipe is. Not a stage itself."""

from __future__ import annotations

from alignment.recipe import TOY_MODEL, Recipe
from alignment.run import RunFolder


def base_model_path(recipe: Recipe, folder: RunFolder) -> str:
    """The toy base in the run folder, or the model that the recipe names."""
    if recipe.model.name_or_path != TOY_MODEL:
        return recipe.model.name_or_path
    return str(folder.require("base", command="python -m stages.base"))
