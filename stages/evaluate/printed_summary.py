"""What the terminal shows of a report: the headline, the table of policies, and where the page is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from alignment.report.headline_and_summary import (
    SCORE_COLUMNS,
    headline,
    sample_size,
    score_rows,
    summary_columns,
    summary_rows,
)
from alignment.report.number_formats import duration
from alignment.report.run_report_schema import validate_report
from alignment.run.run_folder import RunFolder


def show(report: dict[str, Any], folder: RunFolder) -> None:
    """Print the headline, the tables that fit what was measured, and where the report is."""
    checked = validate_report(report)
    output = Console()
    output.print(headline(checked), highlight=False)
    output.print(_table(summary_columns(checked), summary_rows(checked)))
    if checked.judge is None:
        output.print(f"{sample_size(checked)}; no judge has verified them", highlight=False)
        if scores := score_rows(checked):
            output.print("scores of the reward models, in brackets the 95 % intervals:", highlight=False)
            output.print(_table(SCORE_COLUMNS, scores))
    total = duration(checked.timings_s.total)
    memory = "" if checked.peak_memory_gib is None else f", at most {checked.peak_memory_gib:.1f} GiB of memory"
    output.print(f"{total} of work{memory}", highlight=False)
    output.print(f"report: {folder.root / 'report.html'}", soft_wrap=True, markup=False, highlight=False)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of which nothing is cut in 80 columns."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(columns):
        width = max(6, *map(len, column.split()), *(len(row[place]) for row in rows))
        table.add_column(column, justify="right" if place else "left", width=width)
    for row in rows:
        table.add_row(*row)
    return table
