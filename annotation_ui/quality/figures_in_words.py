"""The figures of a quality report in words: sentences and number formats, for the terminal and the page alike."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from alignment.report.number_formats import NONE, SPACE, NumberFormat, decimal, percent
from annotation_ui import texts
from annotation_ui.quality.quality_figures import AgreementFigures, Measure, QualityReport

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
