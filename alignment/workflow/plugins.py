"""Files of the user's own that add reward heads, preference losses or gates to what a recipe can name.

Such a file is ordinary Python that puts something into ``HEADS``, ``LOSSES`` or ``GATES`` when it is run::

    from alignment.models.heads import HEADS, RewardHead
    class MyHead(RewardHead): ...
    HEADS["mine"] = MyHead

It is run with the user's rights, like any program; nothing but what a recipe names is ever run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from alignment.errors import UserError
from alignment.settings.recipe import Recipe

TABLES = {
    "HEADS": "alignment.models.heads:HEADS",
    "LOSSES": "alignment.reward.losses:LOSSES",
    "GATES": "alignment.reward.gate:GATES",
}
"""Table that a plugin can add to -> where it stands."""


def tables() -> dict[str, dict[str, Any]]:
    """What a plugin can add to, by name; opened here, since it needs torch, and whether files are there does not."""
    return {name: pkgutil.resolve_name(place) for name, place in TABLES.items()}


def plugin_files(recipe: Recipe) -> list[Path]:
    """The recipe's plugins, for the record of what a stage was made from."""
    return [Path(name) for name in recipe.plugins]


def check_plugins(files: Sequence[str]) -> None:
    """Raise ``UserError`` unless every file is there."""
    missing = [name for name in files if not Path(name).is_file()]
    if missing:
        raise UserError(f"plugins: no such file: {missing[0]}")


def load_plugins(files: Sequence[str]) -> None:
    """Run each file once.

    Raises:
        UserError: a file is missing, fails, adds nothing, takes a name that is already in use, or is no longer what
            was run.
    """
    check_plugins(files)
    for file in (Path(name).resolve() for name in files):
        module = f"tandem_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
        if module not in sys.modules:
            _run(file, module)
        elif _digest(file.read_bytes()) != sys.modules[module].__dict__[WAS_RUN]:
            raise UserError(f"plugins: {file} has changed since it was run. Run the same command again.")


WAS_RUN = "__sha256__"
"""Name in a plugin's module: the hash of the source that was run."""


class _Source(SourceFileLoader):
    """Runs a file as it is, not a compiled copy, which a file of the same size and second would be taken for."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        sys.modules[fullname].__dict__[WAS_RUN] = _digest(source)
        return self.source_to_code(source, self.path)


def _digest(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


def _run(file: Path, module_name: str) -> None:
    before = {table: dict(entries) for table, entries in tables().items()}
    spec = importlib.util.spec_from_file_location(module_name, file, loader=_Source(module_name, str(file)))
    assert spec is not None and spec.loader is not None, "there is a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # so that what it defines can be found by its module's name
    try:
        spec.loader.exec_module(module)
        _check(file, before)
    except BaseException as error:
        del sys.modules[module_name]
        for table, entries in before.items():
            tables()[table].clear()
            tables()[table].update(entries)
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(f"plugins: {file} failed: {type(error).__name__}: {error} (line {last.lineno})") from error


def _check(file: Path, before: dict[str, dict[str, Any]]) -> None:
    taken = [
        f"{table}[{name!r}]"
        for table, entries in before.items()
        for name in entries
        if tables()[table].get(name) is not entries[name]
    ]
    if taken:
        raise UserError(f"plugins: {file} replaces {', '.join(taken)}, which is already there. Choose another name.")
    if all(tables()[table].keys() == entries.keys() for table, entries in before.items()):
        raise UserError(f"plugins: {file} adds nothing to {', '.join(before)}; register what it defines there")
