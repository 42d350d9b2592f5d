"""A quality report as text for a terminal, and the words and number formats that the page shares with it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignment.data.records import GRADES, Grade
from alignment.report.number_formats import NONE, SPACE, Formatter, decimal, percent
from annotation_ui.quality.agreement import Measure
from annotation_ui.quality.quality_report import AgreementFigures, QualityReport, WorkFigures
from annotation_ui.vocabulary import SKIP_REASONS

GRADE_LABELS: dict[Grade, str] = {grade: grade.replace("_better", "").replace("_", " ") for grade in GRADES}
"""significantly, better, slightly, negligibly."""
COEFFICIENTS: tuple[tuple[str, str, Formatter, str], ...] = (
    (
        "choice",
        "same choice",
        percent,
        "Two people who judged the same pair choose the same answer; 50 % by chance.",
    ),
    (
        "kappa",
        "Cohen's kappa",
        decimal,
        "On the choice: mean over every two annotators with 20 or more pairs in common.",
    ),
    ("alpha_choice", "alpha choice", decimal, "Krippendorff's alpha on the choice (nominal)."),
    ("alpha_grade", "alpha grade", decimal, "Krippendorff's alpha on the signed grade, from -4 to 4 (ordinal)."),
    ("ac2_grade", "AC2 grade", decimal, "Gwet's AC2 on the signed grade, quadratic weights."),
    ("ac2_grade_linear", "AC2, linear", decimal, "The same with linear weights: less credit for a near miss."),
    ("safety", "same safety", percent, "Two people say the same of which answers are safe."),
    ("ac1_safety", "AC1 safety", decimal, "Gwet's AC1 on which answers are safe."),
)
"""Key in ``AgreementFigures``, heading, number format, explanation."""
_SHORTEST_ID = 9
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
        console.print(
            Text(f"\n* fewer than {report.few} values: rough. Intervals are 95{SPACE}%. {NONE}: not asked, or too few.")
        )
    for reason, n in report.overall.work.skips.items():
        console.print(Text(f"Skipped: {n:,} ({SKIP_REASONS[reason]})"))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


# -- words and numbers -------------------------------------------------------------------------------------------------


def labels_of(report: QualityReport, names: Mapping[str, str] | None = None) -> dict[str, str]:
    """What each annotator is called: their name where it is given, else the shortest start of the id that is unique."""
    ids = {person.annotator for person in report.annotators}
    length = next(n for n in count(_SHORTEST_ID) if len({name[:n] for name in ids}) == len(ids))
    return {name: (names or {}).get(name) or (name if len(name) <= length else f"{name[:length]}…") for name in ids}


def headline(report: QualityReport) -> str:
    """How much was judged, by how many."""
    work, people = report.overall.work, sum(person.work.n > 0 for person in report.annotators)
    if not work.n:
        return "No judgments yet."
    return f"{_many(work.n, 'judgment')} of {_many(work.pairs, 'pair')} by {_many(people, 'annotator')}"


def period(report: QualityReport) -> str:
    """When, and what else there is."""
    days = sorted({moment[:10] for moment in (report.first, report.last) if moment})
    parts = [" to ".join(days)]
    work, gold, skips = report.overall.work, report.overall.work.gold.n, sum(report.overall.work.skips.values())
    parts += [f"{_many(work.heldout, 'judgment')} for the held-out part"] if work.heldout else []
    parts += [f"{_many(gold, 'judgment')} of gold items, counted apart"] if gold else []
    parts += [f"{_many(skips, 'pair')} skipped"] if skips else []
    return "; ".join(filter(None, parts))


def note_lines(report: QualityReport, labels: Mapping[str, str]) -> list[str]:
    """The notes as sentences."""
    return [f"{labels[note.annotator]} {note.text}" if note.annotator else note.text for note in report.notes]


def shown(measure: Measure, form: Formatter, few: int = 0) -> str:
    """The value, with a star where it rests on fewer than ``few`` values; a dash where there is none."""
    if measure.value is None:
        return NONE
    return form(measure.value) + ("*" if measure.n < few else "")


def spread(measure: Measure, form: Formatter) -> str:
    """The interval, or why there is no value."""
    if measure.ci95 is None:
        return measure.missing
    low, high = map(form, measure.ci95)
    if low == high and form is percent:
        low, high = (f"{100 * end:.1f}{SPACE}%" for end in measure.ci95)
    return f"{low} to {high}"


def seconds(value: float | None) -> str:
    """A time with one decimal below ten seconds; a dash where it is not known."""
    return NONE if value is None else f"{value:.{1 if value < 10 else 0}f}{SPACE}s"


def by_chance(p: float | None) -> str:
    """A p-value; a dash where there is none."""
    return NONE if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def rate(value: float | None) -> str:
    """Judgments per hour."""
    return NONE if value is None else f"{value:,.0f}"


def measures_of(agreement: AgreementFigures) -> dict[str, Measure]:
    """The coefficients by key."""
    return {key: getattr(agreement, key) for key, *_ in COEFFICIENTS}


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


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
        shown_parts = parts[start : start + beside]
        table = _table("Agreement", "", [part.name for part in shown_parts])
        _row(table, ["pairs judged by 2+", *(f"{part.agreement.shared_pairs:,}" for part in shown_parts)])
        for key, heading, form, _ in COEFFICIENTS:
            measures = [measures_of(part.agreement)[key] for part in shown_parts]
            few = 0 if key == "kappa" else report.few
            _row(table, [heading, *(_with_spread(measure, form, few) for measure in measures)])
        yield table


def _with_spread(measure: Measure, form: Formatter, few: int) -> str:
    value = shown(measure, form, few)
    return f"{value} ({spread(measure, form)})" if measure.ci95 else value


def _grade_table(report: QualityReport) -> Table:
    table = _table("Grades by batch", "project, batch", ["n", *GRADE_LABELS.values()])
    for batch in report.batches:
        star = "*" if batch.n < report.few else ""
        shares = [percent(batch.grades[grade]) + star for grade in GRADES]
        _row(table, [f"{batch.project}, {batch.name}", f"{batch.n:,}", *shares])
    return table


def _work_tables(report: QualityReport, labels: Mapping[str, str]) -> Iterable[Table]:
    if len(report.projects) > 1:
        projects = _table("Projects", "project", ("judged", *_WORK))
        for part in report.projects:
            _row(projects, [part.name, f"{part.work.n:,}", *_work_cells(part.work, report.few)])
        yield projects
    people = _table("Annotators", "annotator", ("judged", "agrees", *_WORK))
    for person in report.annotators:
        agrees, cells = shown(person.agrees, percent, report.few), _work_cells(person.work, report.few)
        _row(people, [labels[person.annotator], f"{person.work.n:,}", agrees, *cells])
    yield people


_WORK = ("left", "p", "gold", "median", "/hour", "flags", "skips")


def _work_cells(work: WorkFigures, few: int) -> list[str]:
    return [
        shown(work.left, percent, few),
        by_chance(work.left_p).removeprefix("p ").removeprefix("= ").replace(" ", ""),
        shown(work.gold, percent, few),
        seconds(work.median_seconds),
        rate(work.per_hour),
        shown(work.flagged, percent, few),
        str(sum(work.skips.values())),
    ]
