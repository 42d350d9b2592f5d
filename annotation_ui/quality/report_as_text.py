"""A quality report as text for a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignment.data.records import GRADES
from alignment.report.number_formats import NONE, SPACE, NumberFormat, percent
from annotation_ui import texts
from annotation_ui.quality.figures_in_words import (
    COEFFICIENT_FORMS,
    by_chance,
    headline,
    interval_text,
    labels_of,
    measures_of,
    note_lines,
    period,
    rate,
    seconds,
    value_text,
)
from annotation_ui.quality.quality_figures import Measure, QualityReport, WorkFigures

_AGREEMENT_WIDTH = 24
"""Columns of text for the agreement of one project."""


def as_text(report: QualityReport, names: Mapping[str, str] | None = None, *, width: int = 100) -> str:
    """The report as aligned plain text.

    Args:
        report: what to show.
        names: annotator id -> name, for those who may know; default: ids, shortened as far as they stay different.
        width: columns of the terminal.
    """
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False, emoji=False)
    labels = labels_of(report, names)
    for line in filter(None, (headline(report), period(report))):
        console.print(Text(line))
    for line in note_lines(report, labels):
        console.print(Text(f"! {line}"), soft_wrap=False)
    if report.overall.work.n:
        for table in (*_agreement_tables(report, width), _grade_table(report), *_work_tables(report, labels)):
            console.print(table)
        console.print(Text("\n" + texts.LEGEND.format(few=report.few, space=SPACE, none=NONE)))
    for reason, n in report.overall.work.skips.items():
        console.print(Text(texts.SKIPPED_BECAUSE.format(n=n, reason=texts.SKIP_REASONS[reason])))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


# -- tables ------------------------------------------------------------------------------------------------------------


def _table(title: str, first: str, headings: Iterable[str]) -> Table:
    table = Table(
        title=Text(f"\n{title}"),
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column(Text(first), overflow="fold")
    for heading in headings:
        table.add_column(Text(heading), justify="right")
    return table


def _row(table: Table, cells: Sequence[str]) -> None:
    table.add_row(*map(Text, cells))


def _agreement_tables(report: QualityReport, width: int) -> Iterable[Table]:
    """One table for every few projects: as many as stand beside each other."""
    parts = report.projects if len(report.projects) == 1 else (report.overall, *report.projects)
    beside = max(1, width // _AGREEMENT_WIDTH - 1)
    for start in range(0, len(parts), beside):
        beside_each_other = parts[start : start + beside]
        table = _table(texts.TABLE_AGREEMENT, "", [part.name for part in beside_each_other])
        _row(table, [texts.SHARED_PAIRS, *(f"{part.agreement.shared_pairs:,}" for part in beside_each_other)])
        for key, form in COEFFICIENT_FORMS.items():
            measures = [measures_of(part.agreement)[key] for part in beside_each_other]
            few = 0 if key == "kappa" else report.few
            _row(table, [texts.COEFFICIENTS[key][0], *(_with_spread(measure, form, few) for measure in measures)])
        yield table


def _with_spread(measure: Measure, form: NumberFormat, few: int) -> str:
    value = value_text(measure, form, few)
    return f"{value} ({interval_text(measure, form)})" if measure.ci95 else value


def _grade_table(report: QualityReport) -> Table:
    table = _table(*texts.TABLE_GRADES, ["n", *texts.SHORT_GRADES.values()])
    for batch in report.batches:
        star = "*" if batch.n < report.few else ""
        shares = [percent(batch.grades[grade]) + star for grade in GRADES]
        _row(table, [f"{batch.project}, {batch.name}", f"{batch.n:,}", *shares])
    return table


def _work_tables(report: QualityReport, labels: Mapping[str, str]) -> Iterable[Table]:
    if len(report.projects) > 1:
        projects = _table(*texts.TABLE_PROJECTS, (texts.JUDGED, *texts.WORK_COLUMNS))
        for part in report.projects:
            _row(projects, [part.name, f"{part.work.n:,}", *_work_cells(part.work, report.few)])
        yield projects
    people = _table(*texts.TABLE_PEOPLE, (texts.JUDGED, texts.AGREES, *texts.WORK_COLUMNS))
    for person in report.annotators:
        agrees, cells = value_text(person.agrees, percent, report.few), _work_cells(person.work, report.few)
        _row(people, [labels[person.annotator], f"{person.work.n:,}", agrees, *cells])
    yield people


def _work_cells(work: WorkFigures, few: int) -> list[str]:
    return [
        value_text(work.left, percent, few),
        by_chance(work.left_p).removeprefix("p ").removeprefix("= ").replace(" ", ""),
        value_text(work.gold, percent, few),
        seconds(work.median_seconds),
        rate(work.per_hour),
        value_text(work.flagged, percent, few),
        str(sum(work.skips.values())),
    ]
