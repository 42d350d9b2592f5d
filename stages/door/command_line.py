"""The command line that all stages share: it is parsed and checked before the stage, and with it torch, is imported."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from alignment.errors import UserError
from alignment.machine.environment import keep_freed_memory
from alignment.settings.read_recipe import DEFAULT_RECIPE, load_recipe, recipe_keys
from alignment.settings.recipe import Recipe
from alignment.workflow.plugins import check_plugins, load_plugins
from stages.door.exit_codes import guarded

MISSING = "???"
"""In a recipe: no sensible default, the user gives it."""


class _Help(argparse.Action):
    """``--help``: what the stage does, two commands to try, and every setting."""

    def __init__(self, option_strings: list[str], dest: str, **unused: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show every setting and exit")

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> NoReturn:
        print(parser.format_help())
        print(f"settings, with their values in {DEFAULT_RECIPE} (in a recipe, or as key=value on the command line):")
        values = dict(_leaves(load_recipe().model_dump(mode="json")))
        for key, kind, default, description in recipe_keys():
            value = str(values.get(key, default))
            otherwise = "" if value == default else f"  (in a recipe without it: {default})"
            print(f"  {key} : {kind} = {value}{otherwise}\n      {description}")
        parser.exit()


def parser_for(stage: str) -> argparse.ArgumentParser:
    """The command line that every stage has; what it does is said by the docstring of its package."""
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{stage}",
        description=importlib.import_module(f"stages.{stage}").__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action=_Help)
    parser.add_argument("--config", metavar="RECIPE.yaml", help="recipe; default configs/toy.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the recipe")
    return parser


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The recipe that a command line names.

    Raises:
        UserError: as ``load_recipe``; a setting that only the user can give (``???`` in the recipe) is not given; a
            plugin is not there.
    """
    recipe = load_recipe(arguments.config, arguments.overrides)
    missing = [key for key, value in _leaves(recipe.model_dump()) if value == MISSING]
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        raise UserError(f"{arguments.config} leaves {len(missing)} settings to you. Give them: {given}")
    check_plugins(recipe.plugins)
    return recipe


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def run_stage(stage: str, check: Callable[[Recipe], None], *, page: str, argv: Sequence[str] | None) -> int:
    """Parse the command line, check what a stage needs, and run it; returns the exit code.

    Args:
        stage: its name, as in ``python -m stages.NAME``.
        check: raises ``UserError`` where the stage cannot begin.
        page: the module whose ``main`` takes the recipe and does the work.
        argv: the words of the command line; default: those of this process.
    """
    arguments = parser_for(stage).parse_intermixed_args(argv)

    def work() -> None:
        recipe = recipe_from(arguments)
        check(recipe)
        open_page(page, recipe).main(recipe)

    return guarded(work)


def open_page(page: str, recipe: Recipe | None = None) -> Any:
    """The module with a stage's work, and with it the plugins that a recipe names.

    Imported by name, and only here: it needs torch, whose import takes seconds that no refusal should take.
    """
    module = importlib.import_module(page)
    import transformers  # here for the same reason

    transformers.utils.logging.disable_progress_bar()
    keep_freed_memory()
    load_plugins(recipe.plugins if recipe else ())
    return module
