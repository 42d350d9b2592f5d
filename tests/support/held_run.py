"""A run folder that another process holds for writing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from child_process import ChildProcess

HOLDER = """
import sys
from alignment.run.run_folder import RunFolder
with RunFolder(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another_process(run: Path) -> Iterator[subprocess.Popen[str]]:
    """Inside the block, a process holds the run; fails where it cannot."""
    command = [sys.executable, "-c", HOLDER, str(run)]
    with ChildProcess(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline().strip() == "held"
        yield other
