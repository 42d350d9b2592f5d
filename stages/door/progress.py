"""What a stage says while it works: a progress bar, and what it left out. Not a stage itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alignment.data.jsonl import ReadReport
from stages.door.commands import as_called

OnStep = Callable[[int, int, dict[str, float]], None]
SHOWN = ("loss", "accuracy", "objective/score", "objective/kl", "rollout/length", "rollout/stop_rate")
console = Console(stderr=True)


@contextmanager
def progress(title: str, *, show: bool = True) -> Iterator[OnStep]:
    """A progress bar; yields a function to call with (done, total, figures).

    Without a terminal, one line at the end says what was done; nothing is said at all where ``show`` is off.
    """
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not (console.is_terminal and show)) as bar:
        task = bar.add_task(title, total=None, figures="")

        def on_step(done: int, total: int, figures: dict[str, float]) -> None:
            shown = "  ".join(f"{key.rpartition('/')[2]} {figures[key]:.3g}" for key in SHOWN if key in figures)
            bar.update(task, completed=done, total=total, figures=shown)

        yield on_step
        last = bar.tasks[0]
    if show and not console.is_terminal:
        console.print(f"{title}: {int(last.completed)} done in {last.elapsed or 0:.0f} s  {last.fields['figures']}")


def say(message: str) -> None:
    """One line on standard error; commands in it are as the program was called."""
    console.print(as_called(message), markup=False, highlight=False, soft_wrap=True)


def say_left_out(report: ReadReport, too_long: int = 0) -> None:
    """Say what was left out of a file, if anything was."""
    if report.n_skipped:
        say(report.summary())
    if too_long:
        say(f"{report.path}: {too_long} too long, left out")
