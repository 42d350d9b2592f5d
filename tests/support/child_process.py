"""Processes that tests start: each hears Ctrl-C, has a limit, and is ended with all that it started.

    done = run([sys.executable, "-m", "stages.sft"], cwd=ROOT)        # waits; its output is in done.stdout, done.stderr

    with ChildProcess(command, stdout=subprocess.PIPE) as process:    # goes on beside the test
        ...

A process that runs past its limit is killed, so that whoever waits for it wakes up, and the test fails.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

LIMIT_SECONDS = 300.0


@contextmanager
def _ctrl_c_is_heard() -> Iterator[None]:
    """Inside, a process that is started hears Ctrl-C even where this one ignores it, as in ``nohup make test &``."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class ChildProcess(subprocess.Popen[Any]):
    """A process in a group of its own. Start it from the main thread, and leave its block or call ``end``."""

    def __init__(self, command: Sequence[Any], *, limit_seconds: float = LIMIT_SECONDS, **options: Any) -> None:
        self.limit_seconds = limit_seconds
        self.ran_past_its_limit = False
        with _ctrl_c_is_heard():
            super().__init__(command, start_new_session=True, **options)
        self._limit = threading.Timer(limit_seconds, self._pass_limit)
        self._limit.daemon = True
        self._limit.start()

    def kill_group(self) -> None:
        """Kill it and whatever it has started in its group."""
        with suppress(ProcessLookupError, PermissionError):  # where there is none left
            os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill what still runs of it; fails where it ran past its limit."""
        self._limit.cancel()
        self.kill_group()
        self.wait()
        if self.ran_past_its_limit:
            raise AssertionError(f"{self.args} ran for more than its limit of {self.limit_seconds:g} s and was killed")

    def __exit__(self, *error: Any) -> None:
        self.kill_group()
        super().__exit__(*error)
        self.end()

    def _pass_limit(self) -> None:
        self.ran_past_its_limit = True
        self.kill_group()


def run(
    command: Sequence[Any],
    *,
    check: bool = False,
    input: str | None = None,
    limit_seconds: float = LIMIT_SECONDS,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it printed.

    Args:
        command: as for ``subprocess.Popen``.
        check: whether an exit code other than 0 fails the test.
        input: what it reads from its standard input, which is else the test's own.
        limit_seconds: how long it may take.
        options: of ``subprocess.Popen``, such as ``cwd`` and ``env``.
    """
    given = subprocess.PIPE if input is not None else None
    pipes: dict[str, Any] = {"stdin": given, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ChildProcess(command, limit_seconds=limit_seconds, text=True, **pipes, **options) as process:
        output, errors = process.communicate(input)
    if check and process.returncode:
        raise AssertionError(f"{command} ended with code {process.returncode}:\n{output}\n{errors}")
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
