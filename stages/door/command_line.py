"""What all stages share: the command line, and errors without tracebacks. Not a stage itself."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import transformers

from alignment.errors import UserError
from alignment.machine.environment import keep_freed_memory
from alignment.settings.read_recipe import DEFAULT_RECIPE, load_recipe, recipe_keys
from alignment.settings.recipe import Recipe
from alignment.workflow.plugins import load_plugins
from stages.door.progress import console

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


def parser_for(doc: str, module: str) -> argparse.ArgumentParser:
    """The command line that every stage has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action=_Help)
    parser.add_argument("--config", metavar="RECIPE.yaml", help="recipe; default configs/toy.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win over the recipe")
    return parser


def guarded(work: Callable[[], Any]) -> int:
    """Run ``work``; returns the exit code.

    0: done. 1: the numbers went bad. 2: something that the user can put right. 130: Ctrl-C. 143: SIGTERM.
    """
    signal.signal(signal.SIGTERM, _stop)
    keep_freed_memory()
    transformers.utils.logging.disable_progress_bar()
    try:
        work()
    except UserError as error:
        say_error(str(error))
        return 2
    except FloatingPointError as error:
        say_error(f"{error}. A lower learning rate is the first thing to try (with overwrite=true).")
        return 1
    except (KeyboardInterrupt, Terminated) as stopped:
        kept = "Finished stages are kept; the same command, without overwrite=true, goes on from there."
        console.print(f"stopped. {kept}", soft_wrap=True)
        return 143 if isinstance(stopped, Terminated) else 130
    return 0


class Terminated(BaseException):
    """SIGTERM arrived."""


def _stop(*unused: Any) -> NoReturn:
    raise Terminated


def say_error(message: str) -> None:
    """One message on standard error; a terminal folds long lines, a log gets them whole."""
    console.print(f"error: {message}", style="bold red", markup=False, highlight=False, soft_wrap=True)


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The recipe that a command line names.

    Raises:
        UserError: as ``load_recipe``, or a setting that only the user can give (``???`` in the recipe) is not given.
    """
    recipe = load_recipe(arguments.config, arguments.overrides)
    missing = [key for key, value in _leaves(recipe.model_dump()) if value == MISSING]
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        raise UserError(f"{arguments.config} leaves {len(missing)} settings to you. Give them: {given}")
    load_plugins(recipe.plugins)
    return recipe


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def run(main: Callable[[Recipe], Any], doc: str, module: str) -> NoReturn:
    """Parse the command line, load the recipe, run ``main``, exit."""
    arguments = parser_for(doc, module).parse_args()
    sys.exit(guarded(lambda: main(recipe_from(arguments))))
