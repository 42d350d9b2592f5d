"""The recipe of a run: ``recipe.yaml`` in its folder, which says what later commands need not say again.

The first command that makes something writes it: every setting, and under ``made_from`` the recipe that these are
from. A later command without ``--config`` reads it, then its own command line. What another recipe that is named sets
wins over it; whether a finished stage was made with something else is looked at afterwards
(``RunFolder.check_settings``).

Also the commands that people are told (``command``): what they gave, for another stage or again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import yaml

from alignment.errors import UserError
from alignment.files import resolve
from alignment.run.stage_records import BEFORE_IT_WAS, differing_keys
from alignment.settings.read_recipe import (
    DEFAULT_RECIPE,
    MISSING,
    leaves,
    load_recipe,
    read_settings,
    save_recipe,
    value_at,
)
from alignment.settings.recipe import Recipe

RUN_RECIPE = "recipe.yaml"
"""In a run folder."""
NOT_OF_THE_RUN = ("run_dir", "overwrite")
"""Settings of one command: where the run is now, and whether this time a stage is made again."""
_GIVEN: ContextVar[tuple[str, ...] | None] = ContextVar("given", default=None)


def recipe_of_run(config: str | None, overrides: Sequence[str]) -> tuple[Recipe, str, list[str]]:
    """The recipe that a command is to follow.

    Args:
        config: the recipe that it names, if any.
        overrides: its settings, ``key.sub=value``.

    Returns:
        The recipe; the file it is from, for people; and what is to be said of it.

    Raises:
        UserError: as ``load_recipe``, of the recipe that is named or of the run's.
    """
    run_dir = value_at(read_settings(config or DEFAULT_RECIPE, overrides), "run_dir")
    file = Path(os.path.expanduser(str(run_dir))) / RUN_RECIPE
    if not file.is_file():
        asked = load_recipe(config, overrides)
        return _of_earlier_version(asked), config or str(asked.origin.recipe), []
    kept = _of_earlier_version(load_recipe(str(file)))
    if config is not None and (asked := load_recipe(config, overrides)).origin.sha256 != kept.origin.sha256:
        return *_of_another(config, overrides, asked, kept), [_differences(config, asked, kept, file)]
    notes = [] if config else _changed_since(kept, file)
    return _of_earlier_version(load_recipe(str(file), [*overrides, f"run_dir={json.dumps(run_dir)}"])), str(file), notes


def recipe_at(root: Path) -> Recipe:
    """The recipe that a run was made with so far.

    Raises:
        UserError: it has none: nothing was made there.
    """
    file = root / RUN_RECIPE
    if not file.is_file():
        file = root / "sft" / "config.yaml"
    if not file.is_file():
        raise UserError(f"{root} has no {RUN_RECIPE}: nothing was made there yet")
    return _of_earlier_version(load_recipe(str(file))).model_copy(update={"run_dir": str(root)})


def _of_earlier_version(recipe: Recipe) -> Recipe:
    """The recipe for a run that was begun before some settings were there: these are as it was then, unless typed."""
    root = Path(recipe.run_dir)
    files = [file for file in (root / RUN_RECIPE, *sorted(root.glob("**/config.yaml"))) if file.is_file()]
    if not files:
        return recipe
    before, values = yaml.safe_load(files[0].read_text(encoding="utf-8")), recipe.model_dump()
    for key, old in BEFORE_IT_WAS.items():
        section, _, name = key.rpartition(".")
        if name not in (value_at(before, section) or {}) and not recipe.is_typed(key):
            value_at(values, section)[name] = old
    return Recipe.model_validate(values).with_origin(recipe.origin)


def _of_another(config: str, overrides: Sequence[str], asked: Recipe, kept: Recipe) -> tuple[Recipe, str]:
    """Another recipe than the one that the run has: what that leaves open is as the run has it."""
    before = kept.model_dump(mode="json")
    open_keys = [key for key, value in leaves(asked.model_dump(mode="json")) if value == MISSING]
    filled = [f"{key}={json.dumps(value_at(before, key))}" for key in open_keys if value_at(before, key) != MISSING]
    recipe = load_recipe(config, [*filled, *overrides])
    given = tuple(dict.fromkeys((*kept.origin.given, *recipe.origin.given)))
    return recipe.with_origin(recipe.origin._replace(given=given)), config


def _differences(config: str, asked: Recipe, kept: Recipe, file: Path) -> str:
    """What another recipe sets differently from the run's own."""
    keys = _differing(kept, asked)
    return f"{config} is another recipe than {file} is from, and decides: {_listed(keys, kept, asked)}"


def _changed_since(kept: Recipe, file: Path) -> list[str]:
    """What is another now in the recipe that the run's own is from; nothing where that is gone."""
    name = kept.origin.recipe
    if name is None or not (source := resolve(name)).is_file():
        return []
    if hashlib.sha256(source.read_bytes()).hexdigest() == kept.origin.sha256:
        return []
    try:
        now = load_recipe(name)
    except UserError as error:
        return [f"{name} has changed since {file} was made, and is no recipe now ({str(error).splitlines()[0]})"]
    keys = [key for key in _differing(kept, now) if key not in kept.origin.given]
    if not keys:
        return []
    return [f"{name} has changed since {file} was made: {_listed(keys, kept, now)}. Give --config {name} to follow it."]


def _differing(before: Recipe, now: Recipe) -> list[str]:
    found = differing_keys(before.model_dump(mode="json"), now.model_dump(mode="json"))
    return [key for key in found if key not in NOT_OF_THE_RUN]


def _listed(keys: Sequence[str], before: Recipe, now: Recipe) -> str:
    then, there = before.model_dump(mode="json"), now.model_dump(mode="json")
    return changes({key: (value_at(then, key), value_at(there, key)) for key in keys}) or "nothing"


def changes(found: Mapping[str, tuple[Any, Any]]) -> str:
    """Settings that differ, each as ``key=before, now after``."""
    return "; ".join(f"{key}={_shown(before)}, now {_shown(now)}" for key, (before, now) in found.items())


def _shown(value: Any) -> str:
    """A value as it stands on a command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def keep_recipe(root: Path, recipe: Recipe, *, leaving: Sequence[str] = ()) -> None:
    """Write down the settings of a run, with which one of its stages begins.

    Args:
        root: the run folder.
        recipe: the settings.
        leaving: keys that stay as they are written: what is meant for this stage alone.
    """
    file = root / RUN_RECIPE
    values, given = recipe.model_dump(mode="json"), dict.fromkeys(recipe.origin.given)
    if leaving and file.is_file():
        kept = load_recipe(str(file))
        for key in leaving:
            section, _, name = key.rpartition(".")
            (value_at(values, section) if section else values)[name] = value_at(kept.model_dump(mode="json"), key)
        given = dict.fromkeys([*kept.origin.given, *(key for key in given if key not in leaving)])
    origin = recipe.origin._replace(given=tuple(key for key in given if key not in NOT_OF_THE_RUN))
    kept_recipe = Recipe.model_validate(values | {"overwrite": False}).with_origin(origin)
    save_recipe(kept_recipe, file, with_origin=True)


@contextmanager
def called_with(config: str | None, overrides: Sequence[str]) -> Iterator[None]:
    """While the block runs, commands that are told say what was said on this command line."""
    token = _GIVEN.set((*(("--config", config) if config else ()), *overrides))
    try:
        yield
    finally:
        _GIVEN.reset(token)


def command(stage: str, run_dir: Path, *settings: str) -> str:
    """The command that runs a stage as the present one was called.

    Args:
        stage: as in ``python -m stages.NAME``.
        run_dir: the run, named where the present command is not known.
        settings: ``key=value`` of its own, which take the place of those that were given.
    """
    given = _GIVEN.get()
    words = (f"run_dir={run_dir}",) if given is None else given
    own = {item.partition("=")[0] for item in settings} | {"overwrite"}
    kept = [word for word in words if word.partition("=")[0] not in own]
    return " ".join([f"python -m stages.{stage}", *map(shlex.quote, (*kept, *settings))])
