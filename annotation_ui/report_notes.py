"""What in a quality report deserves a look: people who lean, miss gold items, disagree or rush, and too little data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from alignment.report.text import percent
from annotation_ui.report import FEW, Note, Part, Person
from annotation_ui.report_text import by_chance

GOLD_FLOOR = 0.8
"""Agreement with known answers that is expected: what the qualification test asks for by default."""


def notes_on(overall: Part, people: Sequence[Person]) -> Iterable[Note]:
    """What deserves a look, and what is too little to tell.

    Args:
        overall: all projects together.
        people: the annotators.
    """
    yield from _notes_on_size(overall)
    work = overall.work
    if work.left.value is not None and work.left_p is not None and work.left_p < 0.01:
        yield Note(
            f"Over all annotators, the left answer was chosen in {percent(work.left.value)} of the judgments "
            f"({by_chance(work.left_p)} if sides did not matter)."
        )
    for person in people:
        yield from _notes_on(person, overall)


def _notes_on_size(overall: Part) -> Iterable[Note]:
    n, shared = overall.work.n, overall.agreement.shared_pairs
    if 0 < n < FEW:
        yield Note(f"Only {n} judgment{'s'[: n > 1]} so far: too little for more than a first look.")
    if n and not shared:
        yield Note("No pair was judged by two people, so agreement cannot be measured: set an overlap of 2 or more.")
    elif n and shared < FEW:
        yield Note(
            f"Only {shared} pair{'s were' if shared > 1 else ' was'} judged by two or more people: the figures "
            "on agreement are rough."
        )


def _notes_on(person: Person, overall: Part) -> Iterable[Note]:
    work, name = person.work, person.annotator
    if person.leans and work.left.value is not None:
        yield Note(
            f"chose the left answer in {percent(work.left.value)} of {work.n} judgments ({by_chance(work.left_p)} if "
            "sides did not matter).",
            name,
        )
    if work.gold.value is not None and work.gold.ci95 is not None and work.gold.ci95[1] < GOLD_FLOOR:
        yield Note(
            f"judged {percent(work.gold.value)} of {work.gold.n} gold items as known; {percent(GOLD_FLOOR)} or more is "
            "expected.",
            name,
        )
    agrees, usual = person.agrees, overall.agreement.choice
    if agrees.n >= FEW and agrees.value is not None and agrees.ci95 and usual.ci95 and agrees.ci95[1] < usual.ci95[0]:
        yield Note(
            f"chooses as others do in {percent(agrees.value)} of {agrees.n} pairs; all together, people agree in "
            f"{percent(usual.value or 0)}.",
            name,
        )
    seconds, usual_seconds = work.median_seconds, overall.work.median_seconds
    if work.n >= FEW and seconds is not None and usual_seconds is not None and seconds < usual_seconds / 3:
        yield Note(
            f"takes {seconds:.1f} s for a judgment (median), less than a third of the {usual_seconds:.1f} s of all.",
            name,
        )
