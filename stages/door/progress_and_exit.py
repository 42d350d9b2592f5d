"""What a stage says while it works and how it ends: progress, what was left out, errors, exit codes, and stopping.

An error is one message without a traceback. Ctrl-C and SIGTERM wait for the step at hand where a stage asks for that.

Commands in what is said are as the program was called, ``tandem sft`` or ``python -m stages.sft`` (``as_called``).
"""

from __future__ import annotations

import io
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from alignment.errors import UserError
from alignment.progress import OnStep
from stages.door.machine_faults import fault_of_the_machine

if TYPE_CHECKING:  # the command ``tandem``, which only lists the stages, needs none of it
    from alignment.data.jsonl_and_raw_rows import ReadReport
    from alignment.machine.device_and_processes import Processes

DESK = "desk"
"""Name of the command that is ``python -m annotation_ui``."""
FIGURES = ("loss", "accuracy", "objective/score", "objective/kl", "rollout/length", "rollout/stop_rate")
"""Metrics that stand beside the bar, the most telling first."""
TITLE, BAR, CLOCKS, SPACES = 22, 16, 14, 6
"""Columns of a terminal that a line takes beside its count and figures."""
console = Console(stderr=True)


@contextmanager
def progress(title: str, *, show: bool = True) -> Iterator[OnStep]:
    """A progress bar; yields a function to call with (done, total, figures).

    Bar, count and time left are always there; figures as far as the terminal is wide enough for whole ones.
    Without a terminal, one line at the end says what was done; nothing is said at all where ``show`` is off.
    """
    columns = (
        TextColumn(f"{{task.description:<{TITLE}}}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=BAR),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True)),
    )
    latest: dict[str, float] = {}
    with Progress(*columns, console=console, disable=not (console.is_terminal and show)) as bar:
        task = bar.add_task(title, total=None, figures="")

        def on_step(done: int, total: int, figures: dict[str, float]) -> None:
            latest.clear()
            latest.update(figures)
            taken = max(TITLE, len(title)) + BAR + CLOCKS + SPACES + 2 * len(str(total)) + 1
            bar.update(task, completed=done, total=total, figures=figures_line(figures, console.width - taken))

        yield on_step
        last = bar.tasks[0]
    if show and not console.is_terminal:
        console.print(f"{title}: {int(last.completed)} done in {last.elapsed or 0:.0f} s  {figures_line(latest)}")


def figures_line(figures: Mapping[str, float], room: int | None = None) -> str:
    """The figures that a line has room for, each whole; all of them where room is no matter."""
    line = ""
    for key in FIGURES:
        if key in figures:
            longer = f"{line}{'  ' if line else ''}{key.rpartition('/')[2]} {figures[key]:.3g}"
            if room is not None and len(longer) > room:
                break
            line = longer
    return line


def say(message: str) -> None:
    """One line on standard error; commands in it are as the program was called."""
    console.print(as_called(message), markup=False, highlight=False, soft_wrap=True)


def say_left_out(report: ReadReport, later: Mapping[str, int] | None = None) -> None:
    """Say what of a file was left out or not used, if anything was.

    Args:
        report: of the reading.
        later: reason -> how many rows were left out after it.
    """
    if not report.is_whole:
        say(report.summary())
    for reason, count in (later or {}).items():
        if count:
            say(f"{report.path}: {count} {reason}, left out")


class Terminated(BaseException):
    """SIGTERM arrived."""


def guarded(work: Callable[[], Any]) -> int:
    """Run ``work``; returns the exit code.

    0: done. 1: the numbers went bad. 2: something that the user can put right. 130: Ctrl-C. 143: SIGTERM.
    """
    signal.signal(signal.SIGTERM, _stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows ASCII only gets a sign for what it lacks
            stream.reconfigure(errors="replace")
    try:
        work()
    except UserError as error:
        say_error(str(error))
        return 2
    except (OSError, MemoryError, RuntimeError, UnicodeError) as error:
        if (found := fault_of_the_machine(error)) is None:
            raise
        say_error(found)
        return 2
    except FloatingPointError as error:
        say_error(f"{error}. A lower learning rate is the first thing to try (with overwrite=true).")
        return 1
    except (KeyboardInterrupt, Terminated) as stopped:
        kept = "Finished stages are kept; the same command, without overwrite=true, goes on from there."
        console.print(f"stopped. {kept}", soft_wrap=True)
        return 143 if isinstance(stopped, Terminated) else 130
    return 0


def _stop(*unused: Any) -> NoReturn:
    raise Terminated


def say_error(message: str) -> None:
    """One message on standard error; a terminal folds long lines, a log gets them whole."""
    console.print(f"error: {as_called(message)}", style="bold red", markup=False, highlight=False, soft_wrap=True)


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


def is_tandem() -> bool:
    """Whether this process was started as ``tandem``, and not as ``python -m stages.NAME``."""
    return Path(sys.argv[0]).stem == "tandem"


def as_called(text: str) -> str:
    """A text whose commands are as the program was called: ``tandem sft`` for ``python -m stages.sft``."""
    if not is_tandem():
        return text
    return re.sub(r"python -m stages\.(\w+)", r"tandem \1", text).replace("python -m annotation_ui", f"tandem {DESK}")
