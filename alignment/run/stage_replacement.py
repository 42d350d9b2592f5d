"""A stage that is made again stands beside the finished one until it has succeeded: ``ppo.new`` beside ``ppo``.

Whoever reads the run in the meantime finds the finished one, whole. The two change places by renaming folders; where
that is cut short, ``settle`` ends it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

RESULT = "result.json"
"""Written last, and atomically: a stage folder with one is finished."""
_NEW, _OLD = ".new", ".old"


def beside(folder: Path) -> Path:
    """Where a stage is made again whose finished folder is ``folder``."""
    return folder.with_name(folder.name + _NEW)


def put_in_place(folder: Path) -> None:
    """Let what was made beside a finished stage take its place."""
    old = folder.with_name(folder.name + _OLD)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    beside(folder).rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def settle(root: Path) -> None:
    """End what a kill cut short: each stage of the run is the new one if that had succeeded, else the old one."""
    for new in _stages_called(root, _NEW):
        if (new / RESULT).is_file():
            put_in_place(new.with_suffix(""))
    for old in _stages_called(root, _OLD):
        folder = old.with_suffix("")
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)


def _stages_called(root: Path, suffix: str) -> list[Path]:
    return [*root.glob(f"*{suffix}"), *root.glob(f"round-*/*{suffix}")]
