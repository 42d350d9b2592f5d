"""Stopping at a good place: Ctrl-C or SIGTERM waits for the step at hand. Not a stage itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from stages.door.exit_codes import Terminated
from stages.door.progress import say

if TYPE_CHECKING:
    from alignment.machine.processes import Processes


class StopRequest:
    """Whether somebody has asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self.signal is not None

    def requested(self, processes: Processes) -> bool:
        """Whether any process was asked to stop; all of them get the same answer."""
        asked = processes.sum({"signal": float(self.signal or 0)})["signal"]
        if asked and self.signal is None:
            self.signal = signal.SIGTERM
        return asked > 0

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take note of the first signal; a second one stops at once."""
        if self.signal is not None:
            raise _exception(number)
        self.signal = number
        say("stopping after this step; once more to stop at once")

    def obey(self) -> None:
        """Stop if asked to."""
        if self.signal is not None:
            raise _exception(self.signal)


def _exception(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated()


@contextmanager
def deferred_stop() -> Iterator[StopRequest]:
    """Inside the block, a signal to stop is noted, to be obeyed where nothing is half done."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # signals go to the main thread
        return
    before = {number: signal.signal(number, request.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
