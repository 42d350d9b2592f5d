"""A quality report as text for a terminal, and the sentences and number formats that the page shares with it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignment.data.records import GRADES
from alignment.report.number_formats import NONE, SPACE, NumberFormat, decimal, percent
from annotation_ui import texts
from annotation_ui.quality.agreement import Measure
from annotation_ui.quality.quality_figures import AgreementFigures, QualityReport, WorkFigures

COEFFICIENT_FORMS: dict[str, NumberFormat] = {
    "choice": percent,
    "kappa": decimal,
    "alpha_choice": decimal,
    "alpha_grade": decimal,
    "ac2_grade": decimal,
    "ac2_grade_linear": decimal,
    "safety": percent,
    "ac1_safety": decimal,
}
"""Number format of each field of ``AgreementFigures`` that is a coefficient."""
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
        console.print(Text("\n" + texts.LEGEND.format(few=report.few, space=SPACE, none=NONE)))
    for reason, n in report.overall.work.skips.items():
        console.print(Text(texts.SKIPPED_BECAUSE.format(n=n, reason=texts.SKIP_REASONS[reason])))
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
        return texts.NO_JUDGMENTS
    return texts.HEADLINE.format(
        judgments=texts.counted(work.n, texts.JUDGMENTS),
        pairs=texts.counted(work.pairs, texts.PAIRS),
        annotators=texts.counted(people, texts.ANNOTATORS),
    )


def period(report: QualityReport) -> str:
    """When, and what else there is."""
    days = sorted({moment[:10] for moment in (report.first, report.last) if moment})
    parts = [texts.PERIOD.format(first=days[0], last=days[-1]) if len(days) > 1 else "".join(days)]
    work, gold, skips = report.overall.work, report.overall.work.gold.n, sum(report.overall.work.skips.values())
    parts += [texts.HELD_OUT.format(judgments=texts.counted(work.heldout, texts.JUDGMENTS))] if work.heldout else []
    parts += [texts.OF_GOLD.format(judgments=texts.counted(gold, texts.JUDGMENTS))] if gold else []
    parts += [texts.SKIPPED.format(pairs=texts.counted(skips, texts.PAIRS))] if skips else []
    return "; ".join(filter(None, parts))


def note_lines(report: QualityReport, labels: Mapping[str, str]) -> list[str]:
    """The notes as sentences."""
    return [f"{labels[note.annotator]} {note.text}" if note.annotator else note.text for note in report.notes]


def value_text(measure: Measure, form: NumberFormat, few: int = 0) -> str:
    """The value, with a star where it rests on fewer than ``few`` values; a dash where there is none."""
    if measure.value is None:
        return NONE
    return form(measure.value) + ("*" if measure.n < few else "")


def interval_text(measure: Measure, form: NumberFormat) -> str:
    """The interval, or why there is no value."""
    if measure.ci95 is None:
        return measure.missing
    low, high = map(form, measure.ci95)
    if low == high and form is percent:
        low, high = (f"{100 * end:.1f}{SPACE}%" for end in measure.ci95)
    return texts.INTERVAL.format(low=low, high=high)


def seconds(value: float | None) -> str:
    """A time with one decimal below ten seconds; a dash where it is not known."""
    return NONE if value is None else f"{value:.{1 if value < 10 else 0}f}{SPACE}s"


def by_chance(p: float | None) -> str:
    """A p-value; a dash where there is none."""
    return NONE if p is None else texts.BY_CHANCE_SMALL if p < 0.001 else texts.BY_CHANCE.format(p=p)


def rate(value: float | None) -> str:
    """Judgments per hour."""
    return NONE if value is None else f"{value:,.0f}"


def measures_of(agreement: AgreementFigures) -> dict[str, Measure]:
    """The coefficients by key."""
    return {key: getattr(agreement, key) for key in COEFFICIENT_FORMS}


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
