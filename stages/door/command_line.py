"""The command line that all stages share, and its ``--help``: what a stage does, its options and its settings.

It is parsed and checked before the stage, and with it torch, is imported.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from alignment.errors import UserError
from alignment.run.run_recipe import called_with, recipe_of_run
from alignment.run.stage_records import SECTIONS
from alignment.settings.read_recipe import DEFAULT_RECIPE, MISSING, REQUIRED, leaves, recipe_keys
from alignment.settings.recipe import Recipe
from alignment.workflow.plugins import check_plugins, load_plugins
from stages.door.machine_faults import killed
from stages.door.progress_and_exit import as_called, deferred_stop, guarded, say

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
    with called_with(arguments.config, arguments.overrides):
        return guarded(lambda: show_help(arguments) if arguments.help else work())


def show_help(arguments: argparse.Namespace) -> None:
    """Print what the stage does and its settings, with the values that they have on this command line."""
    recipe, origin, _ = recipe_of_run(arguments.config, arguments.overrides)
    everything = arguments.help == ALL
    text = help_text(arguments.parser, arguments.stage, recipe, origin=origin, everything=everything)
    Console().out(text, highlight=False)  # not print: its reader may leave, as in "--help-all | head"


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The recipe that a command line is about: the run's own where it has one, else the one that is named.

    Raises:
        UserError: as ``load_recipe``; a setting that only the user can give (``???`` in the recipe) is not given; a
            plugin is not there.
    """
    recipe, origin, notes = recipe_of_run(arguments.config, arguments.overrides)
    for note in notes:
        say(note)
    missing = [key for key, value in leaves(recipe.model_dump()) if value == MISSING]
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        raise UserError(f"{origin} leaves {len(missing)} settings to you. Give them: {given}")
    check_plugins(recipe.plugins)
    if said := killed(Path(recipe.run_dir)):
        say(said)
    return recipe


def run_stage(stage: str, check: Callable[[Recipe], None], *, page: str, argv: Sequence[str] | None) -> int:
    """Parse the command line, check what a stage needs, and run it; returns the exit code.

    Args:
        stage: its name, as in ``python -m stages.NAME``.
        check: raises ``UserError`` where the stage cannot begin.
        page: the module whose ``run`` takes the recipe and does the work.
        argv: the words of the command line; default: those of this process.
    """
    arguments = parser_for(stage).parse_intermixed_args(argv)

    def work() -> None:
        recipe = recipe_from(arguments)
        check(recipe)
        open_page(page, recipe).run(recipe)

    return enter(arguments, work)


def open_page(page: str, recipe: Recipe) -> Any:
    """The module with a stage's work, and with it the plugins that a recipe names.

    Imported by name, and only here: it needs torch, whose import takes seconds that no refusal should take.
    """
    with deferred_stop() as stop:  # some libraries take a signal that meets them half imported for an error of theirs
        module = importlib.import_module(page)
        import transformers  # here, and the next, for the same reason

        from alignment.machine.device_and_processes import keep_freed_memory
    stop.obey()
    transformers.utils.logging.disable_progress_bar()
    keep_freed_memory()
    load_plugins(recipe.plugins)
    return module


COMMON = ("run_dir", "seed", "overwrite", "plugins")
"""Settings that every stage has."""
SECTIONS_OF_STAGE: dict[str, tuple[str, ...]] = {
    **SECTIONS,
    "ppo": (*SECTIONS["rejection"], *SECTIONS["ppo"]),
    "evaluate": SECTIONS["eval"],
    "chat": ("model", "evaluate.sampling"),
    "export": ("model", "export"),
    "doctor": ("model", "data", "sft", "reward", "ppo"),
    "pipeline": ("rounds",),
}
"""Stage, as it is called -> the sections and settings that it reads."""


def help_text(parser: argparse.ArgumentParser, stage: str, recipe: Recipe, *, origin: str, everything: bool) -> str:
    """The whole of ``--help``, or of ``--help-all``, no wider than the terminal.

    Args:
        parser: of the stage's command line.
        stage: its name.
        recipe: whose values are shown.
        origin: where they are from, for people.
        everything: all settings, not those of the stage alone.
    """
    width = shutil.get_terminal_size().columns
    heading = "every setting" if everything else "the settings of this stage"
    told = f"{heading}, with the values of {origin} (in a recipe, or as key=value on the command line):"
    lines = [parser.format_help(), *textwrap.wrap(told, width)]
    values = dict(leaves(recipe.model_dump(mode="json")))
    for key, kind, default, description in recipe_keys():
        if everything or _reads(stage, key):
            value = str(values.get(key, default))
            lines += _wrapped(f"{key} : {kind} = {value}{_otherwise(value, default)}", width, indent=2)
            lines += _wrapped(description, width, indent=6)
    if not everything:
        rest = "every stage" if stage == "pipeline" else "the other stages"
        lines += ["", *textwrap.wrap(f"The settings of {rest}: {parser.prog} --help-all", width)]
    return "\n".join(lines)


def description_of(doc: str) -> str:
    """A docstring for a terminal: paragraphs filled to its width, commands left whole and as the program was called."""
    width = shutil.get_terminal_size().columns
    paragraphs = as_called(doc).strip().split("\n\n")
    return "\n\n".join(text if text.startswith("    ") else textwrap.fill(text, width) for text in paragraphs)


def _otherwise(value: str, default: str) -> str:
    """What a recipe without the setting has, where that is something else."""
    if value == default or (_is_number(value) and _is_number(default) and float(value) == float(default)):
        return ""
    return "  (without a default)" if default == REQUIRED else f"  (in a recipe without it: {default})"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _reads(stage: str, key: str) -> bool:
    wanted = (*COMMON, *SECTIONS_OF_STAGE[stage])
    return any(key == name or key.startswith(f"{name}.") for name in wanted)


def _wrapped(text: str, width: int, *, indent: int) -> list[str]:
    """Lines of a text; what does not fit on one goes on further to the right, and no word is cut."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * 6,
        break_long_words=False,
        break_on_hyphens=False,
    )
