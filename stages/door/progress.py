"""What a stage says while it works: a progress bar, and what it left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from alignment.data.jsonl import ReadReport
from alignment.run.stage_run import OnStep
from stages.door.command_names import as_called

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


def say_left_out(report: ReadReport, too_long: int = 0) -> None:
    """Say what was left out of a file, if anything was."""
    if report.n_skipped:
        say(report.summary())
    if too_long:
        say(f"{report.path}: {too_long} too long, left out")
