"""One command at a time writes to a run: the lock, who holds it, and what a command was at that never let it go.

A pipeline holds the lock from its start to its end, and its stages, which take it too, find it theirs; while people are
waited for, it is let go.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignment.errors import UserError
from alignment.files import read_json, write_json

RUNNING = "running.json"
"""In the run: the stage at work, and the process. It is there while a stage works, and stays if that is killed."""


def note_running(root: Path, stage: str) -> None:
    """Write down that this process is at a stage."""
    write_json(root / RUNNING, {"stage": stage, **_this_process()})


def forget_running(root: Path) -> None:
    """No stage is at work any more."""
    (root / RUNNING).unlink(missing_ok=True)


def killed_at(root: Path) -> dict[str, Any] | None:
    """The stage, and the process, that a command was at which ended without a word; ``None`` if none did.

    Nobody can write down that he was killed: this is what is left where no one holds the run.
    """
    if not (root / RUNNING).is_file():
        return None
    try:
        with RunLock(root).held():
            return dict(read_json(root / RUNNING))
    except (UserError, OSError):  # somebody is at work, or what is left cannot be read
        return None


class RunLock:
    """The lock of a run folder; within a thread, all that are made for one folder are the same lock.

    Beside ``.lock`` itself, whose content means nothing, ``.lock.json`` says who holds it: ``pid``, ``host``,
    ``command``, ``since`` (UTC). What a killed process left of it is overwritten by the next.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._holder = root / ".lock.json"
        self._lock = FileLock(root.resolve() / ".lock", is_singleton=True)

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock; yields whether it was free before, and not held by the caller already.

        Raises:
            UserError: another command holds it; says which.
        """
        first = not self._lock.is_locked
        self._acquire()
        try:
            yield first
        finally:
            if self._lock.lock_counter == 1:
                self._holder.unlink(missing_ok=True)
            self._lock.release()  # which does nothing where it was let go

    @contextmanager
    def let_go(self) -> Iterator[None]:
        """Inside the block, others may hold the lock, however often it was taken here; afterwards it is ours again.

        Raises:
            UserError: another command holds it at the end of the block.
        """
        depth = self._lock.lock_counter
        self._holder.unlink(missing_ok=True)
        self._lock.release(force=True)
        yield
        for _ in range(depth):
            self._acquire()

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(f"{self.root} is in use by {self._holder_in_words()}. Wait until it has ended.") from error
        if self._lock.lock_counter == 1:
            write_json(self._holder, _this_process())

    def _holder_in_words(self) -> str:
        try:
            holder = dict(read_json(self._holder))
            return "{command} (process {pid} on {host}, since {since})".format(**holder)
        except (UserError, KeyError, ValueError, TypeError):  # in the moment between the lock and the note of it
            return "another command"


def _this_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": command_line(),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def command_line() -> str:
    """This process as it was typed: ``python -m stages.ppo seed=1``, or ``tandem ppo seed=1``."""
    program = Path(sys.argv[0])
    if program.name != "__main__.py" and program.is_file():
        return shlex.join([program.name, *sys.argv[1:]])
    return shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]])
