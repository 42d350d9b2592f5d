"""A copy of the working tree, in which wrong changes are planted and tests run; the working tree is only read.

The copy holds what git tracks and what it does not ignore. Every planted module gets a time of its own: Python knows by
time and size whether a compiled file is that of its source, and two changes in one second may have one size.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mutant_anchors import Mutant, changed

NOT_TESTED = ("benchmarks/", "docs/")
"""Folders that are copied, but whose change does not make a verdict old."""
STEP_NS = 10**9


def tracked(root: Path) -> list[str]:
    """The files of the working tree that git tracks or does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"mutants need a git checkout, from which they copy the files: {done.stderr.strip()}")
    return sorted({name for name in done.stdout.split("\0") if name and (root / name).is_file()})


def tree_digest(root: Path) -> str:
    """A name for all that a verdict depends on: code, tests, data and settings."""
    found = hashlib.sha256()
    for name in tracked(root):
        if not name.startswith(NOT_TESTED) and not name.endswith(".md"):
            found.update(name.encode() + b"\0" + hashlib.sha256((root / name).read_bytes()).digest())
    return found.hexdigest()[:16]


def end_like_ctrl_c() -> None:
    """From here on, this process ends on SIGTERM as on Ctrl-C: what it has started is ended first."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


class Copy:
    """One copy of the tree at ``folder``; what stood there before is removed."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, self.n_planted = folder, 0
        if folder.exists():
            shutil.rmtree(folder)
        for name in tracked(root):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)

    @contextmanager
    def planted(self, mutant: Mutant) -> Iterator[None]:
        """Inside, the change stands in the copy."""
        file = self.folder / mutant.module
        before, times = file.read_text(encoding="utf-8"), file.stat()
        after = changed(mutant, before)
        self.n_planted += 1
        try:
            file.write_text(after, encoding="utf-8")
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + self.n_planted * STEP_NS))
            yield
        finally:
            file.write_text(before, encoding="utf-8")
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
