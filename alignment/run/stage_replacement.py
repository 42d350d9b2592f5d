"""A stage that is made again stands beside the finished one until it has succeeded: ``ppo.new`` beside ``ppo``.

One that is only measured again is ``ppo.measured``, a copy of what was made, without its result. Whoever reads the run
in the meantime finds the finished one, whole. The two change places by renaming folders; where that is cut short,
``settle`` ends it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from alignment.run.manifest import MANIFEST, RESULT
from alignment.run.stage_inputs import INPUT_STAGES, round_folders

_NEW, _MEASURED, _OLD = ".new", ".measured", ".replaced"


def beside(folder: Path) -> Path:
    """Where a stage is made again whose finished folder is ``folder``."""
    return folder.with_name(folder.name + _NEW)


def copy_to_measure(folder: Path) -> Path:
    """Copy what a finished stage made, without its result, for that to be measured again; returns the copy."""
    copy = folder.with_name(folder.name + _MEASURED)
    shutil.rmtree(copy, ignore_errors=True)
    own = {RESULT, MANIFEST}
    shutil.copytree(
        folder, copy, ignore=lambda place, _: own if Path(place) == folder else set(), copy_function=_link_or_copy
    )
    return copy


def _link_or_copy(source: str, target: str) -> None:
    """Give a file a second name, as none is changed in place; copy it where the file system knows no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def put_in_place(folder: Path, new: Path) -> None:
    """Let what was made beside a finished stage take its place."""
    old = folder.with_name(folder.name + _OLD)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def settle(root: Path) -> None:
    """End what a kill cut short: each stage of the run is the new one if that had succeeded, else the old one."""
    for new in (*_stages_called(root, _NEW), *_stages_called(root, _MEASURED)):
        if (new / RESULT).is_file():
            put_in_place(new.with_suffix(""), new)
    for old in _stages_called(root, _OLD):
        folder = old.with_suffix("")
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)


def _stages_called(root: Path, suffix: str) -> list[Path]:
    """The folders of stages with that at the end of their names; what else bears it is the user's own."""
    parents = (root, *round_folders(root))
    found = (parent / f"{name}{suffix}" for parent in parents for name in INPUT_STAGES)
    return [folder for folder in found if folder.is_dir()]
