"""Notes of a quality report on what deserves a look: too few judgments, and who leans, disagrees or hurries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from alignment.report.number_formats import percent
from annotation_ui import texts
from annotation_ui.quality.figures_in_words import by_chance
from annotation_ui.quality.quality_figures import FEW, AnnotatorFigures, ProjectFigures, ReportNote

GOLD_FLOOR = 0.8
"""Agreement with known answers that is expected: what the qualification test asks for by default."""


def notes_on(overall: ProjectFigures, people: Sequence[AnnotatorFigures]) -> Iterable[ReportNote]:
    """What deserves a look, and what is too little to tell.

    Args:
        overall: all projects together.
        people: the annotators.
    """
    yield from _notes_on_size(overall)
    work = overall.work
    if work.left.value is not None and work.left_p is not None and work.left_p < 0.01:
        yield ReportNote(texts.NOTE_ALL_LEFT.format(share=percent(work.left.value), p=by_chance(work.left_p)))
    for person in people:
        for note in _notes_on(person, overall):
            yield ReportNote(note, person.annotator)


def _notes_on_size(overall: ProjectFigures) -> Iterable[ReportNote]:
    n, shared = overall.work.n, overall.agreement.shared_pairs
    if 0 < n < FEW:
        yield ReportNote(texts.NOTE_FEW.format(judgments=texts.counted(n, texts.JUDGMENTS)))
    if n and not shared:
        yield ReportNote(texts.NOTE_NONE_SHARED)
    elif n and shared < FEW:
        yield ReportNote(texts.NOTE_FEW_SHARED[shared != 1].format(n=shared))


def _notes_on(person: AnnotatorFigures, overall: ProjectFigures) -> Iterable[str]:
    """What deserves a look in the work of one annotator, as it goes on after their name."""
    work = person.work
    if person.leans and work.left.value is not None:
        yield texts.NOTE_LEANS.format(share=percent(work.left.value), n=work.n, p=by_chance(work.left_p))
    if work.gold.value is not None and work.gold.ci95 is not None and work.gold.ci95[1] < GOLD_FLOOR:
        yield texts.NOTE_GOLD.format(share=percent(work.gold.value), n=work.gold.n, floor=percent(GOLD_FLOOR))
    agrees, usual = person.agrees, overall.agreement.choice
    if agrees.n >= FEW and agrees.value is not None and agrees.ci95 and usual.ci95 and agrees.ci95[1] < usual.ci95[0]:
        yield texts.NOTE_DISAGREES.format(share=percent(agrees.value), n=agrees.n, usual=percent(usual.value or 0))
    seconds, usual_seconds = work.median_seconds, overall.work.median_seconds
    if work.n >= FEW and seconds is not None and usual_seconds is not None and seconds < usual_seconds / 3:
        yield texts.NOTE_FAST.format(seconds=seconds, usual=usual_seconds)
