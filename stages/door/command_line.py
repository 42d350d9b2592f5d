"""The command line that all stages share: it is parsed and checked before the stage, and with it torch, is imported."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from alignment.errors import UserError
from alignment.machine.environment import keep_freed_memory
from alignment.settings.read_recipe import DEFAULT_RECIPE, load_recipe
from alignment.settings.recipe import Recipe
from alignment.workflow.plugins import check_plugins, load_plugins
from stages.door.command_names import as_called
from stages.door.exit_codes import guarded
from stages.door.help_text import description_of, help_text, leaves
from stages.door.stop_request import deferred_stop

MISSING = "???"
"""In a recipe: no sensible default, the user gives it."""
STAGE, ALL = "stage", "all"
"""Whose settings ``--help`` and ``--help-all`` show."""


def parser_for(stage: str) -> argparse.ArgumentParser:
    """The command line that every stage has; what it does is said by the docstring of its package."""
    parser = argparse.ArgumentParser(
        prog=as_called(f"python -m stages.{stage}"),
        description=description_of(importlib.import_module(f"stages.{stage}").__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.set_defaults(stage=stage, parser=parser)
    for option, which, what in (("--help", STAGE, "its settings"), ("--help-all", ALL, "every setting")):
        names = ["-h", option] if which == STAGE else [option]
        parser.add_argument(*names, dest="help", action="store_const", const=which, help=f"show this and {what}")
    parser.add_argument("--config", metavar="RECIPE.yaml", help=f"recipe; default {DEFAULT_RECIPE}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the recipe")
    return parser


def enter(arguments: argparse.Namespace, work: Callable[[], Any]) -> int:
    """Show the help that a command line asks for, or do the work; returns the exit code."""
    return guarded(lambda: show_help(arguments) if arguments.help else work())


def show_help(arguments: argparse.Namespace) -> None:
    """Print what the stage does and its settings, with the values that they have on this command line."""
    recipe = load_recipe(arguments.config, arguments.overrides)
    origin = arguments.config or DEFAULT_RECIPE
    everything = arguments.help == ALL
    print(help_text(arguments.parser, arguments.stage, recipe, origin=origin, everything=everything))


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The recipe that a command line names.

    Raises:
        UserError: as ``load_recipe``; a setting that only the user can give (``???`` in the recipe) is not given; a
            plugin is not there.
    """
    recipe = load_recipe(arguments.config, arguments.overrides)
    missing = [key for key, value in leaves(recipe.model_dump()) if value == MISSING]
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        raise UserError(f"{arguments.config} leaves {len(missing)} settings to you. Give them: {given}")
    check_plugins(recipe.plugins)
    return recipe


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

    return enter(arguments, work)


def open_page(page: str, recipe: Recipe) -> Any:
    """The module with a stage's work, and with it the plugins that a recipe names.

    Imported by name, and only here: it needs torch, whose import takes seconds that no refusal should take.
    """
    with deferred_stop() as stop:  # some libraries take a signal that meets them half imported for an error of theirs
        module = importlib.import_module(page)
        import transformers  # here for the same reason
    stop.obey()
    transformers.utils.logging.disable_progress_bar()
    keep_freed_memory()
    load_plugins(recipe.plugins)
    return module
