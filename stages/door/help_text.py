"""``--help``: what a stage does, its options, and its settings with their values in the recipe that is named."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from alignment.run.provenance import SECTIONS
from alignment.settings.read_recipe import REQUIRED, recipe_keys
from alignment.settings.recipe import Recipe
from stages.door.command_names import as_called

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


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings in nested sections, each with its dotted key."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


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
