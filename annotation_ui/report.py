"""The quality of what annotators said, as one report: how they agree, lean, grade, and keep pace.

``build_report`` takes judgments in memory (``annotation_ui.quality`` reads them from the store); ``as_text`` and
``as_html`` show a report, ``as_json`` keeps it. A report names annotators by their pseudonymous ids only; who may know
the user names gives them to ``as_text`` or ``as_html``. Equal judgments give equal reports.

Gold items count for nothing but gold accuracy: everybody judges them, so they would drown the rest.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from scipy import stats

from alignment.data.records import GRADES, Dimension, Grade
from alignment.statistics import proportion
from annotation_ui.agreement import (
    NO_DATA,
    NO_OVERLAP,
    SIGNED_GRADES,
    JudgedPair,
    Kappa,
    Measure,
    Skipped,
    agreement_with_others,
    choice_counts,
    cohen_kappas,
    grade_counts,
    gwet,
    identity_weights,
    krippendorff_alpha,
    mean_kappa,
    raw_agreement,
    safety_counts,
    weights_by_distance,
)
from annotation_ui.report_html import as_html
from annotation_ui.report_notes import FEW, Note, notes_on
from annotation_ui.report_text import as_text
from annotation_ui.session import SkipReason

__all__ = ["FEW", "Report", "as_html", "as_json", "as_text", "build_report"]


@dataclass(frozen=True)
class Work:
    """How a group of judgments was made.

    Attributes:
        n: judgments, without gold items.
        pairs: different pairs among them.
        heldout: judgments that are for the held-out part of the data.
        left: share that chose the left answer.
        left_p: two-sided exact binomial test that this is one half.
        grades: share of each grade, strongest first; empty where there is no judgment.
        median_seconds: of active time, over judgments for which it is known.
        per_hour: judgments per hour of active time.
        flagged: share marked for review.
        gold: share of gold items judged as known.
        skips: how many pairs were skipped, by reason, the most frequent first.
    """

    n: int
    pairs: int
    heldout: int
    left: Measure
    left_p: float | None
    grades: Mapping[Grade, float]
    median_seconds: float | None
    per_hour: float | None
    flagged: Measure
    gold: Measure
    skips: Mapping[SkipReason, int]


@dataclass(frozen=True)
class Agreement:
    """How people agree who judged the same pairs; see ``annotation_ui.agreement`` for each coefficient.

    Attributes:
        shared_pairs: pairs judged by two or more.
        choice: raw agreement on the choice.
        kappa: mean of Cohen's kappa over couples of annotators; ``n`` counts the couples.
        alpha_choice: Krippendorff's alpha on the choice, nominal.
        alpha_grade: the same on the signed grade, ordinal.
        ac2_grade: Gwet's AC2 on the signed grade, quadratic weights.
        ac2_grade_linear: the same with linear weights.
        safety: raw agreement on which answers are safe.
        ac1_safety: Gwet's AC1 on which answers are safe.
        kappas: Cohen's kappa of every two annotators with enough pairs in common.
    """

    shared_pairs: int
    choice: Measure
    kappa: Measure
    alpha_choice: Measure
    alpha_grade: Measure
    ac2_grade: Measure
    ac2_grade_linear: Measure
    safety: Measure
    ac1_safety: Measure
    kappas: tuple[Kappa, ...]


@dataclass(frozen=True)
class Part:
    """All projects together, or one of them."""

    name: str
    dimension: Dimension | None
    work: Work
    agreement: Agreement


@dataclass(frozen=True)
class Person:
    """One annotator; ``leans``: chooses one side more often than chance explains, over all annotators tested."""

    annotator: str
    work: Work
    agrees: Measure
    leans: bool


@dataclass(frozen=True)
class Batch:
    """The grades of one batch of a project, as in Llama-2's figure of the drift of grades."""

    project: str
    name: str
    n: int
    first_day: str
    grades: Mapping[Grade, float]


@dataclass(frozen=True)
class Day:
    """How many judgments were made in a project on a day (UTC)."""

    project: str
    day: str
    n: int


@dataclass(frozen=True)
class Report:
    """Everything that the text and the page show.

    Attributes:
        first, last: moments of the first and the last judgment.
        overall: all projects together.
        projects: each one, by name.
        annotators: those who judged most first.
        batches: by project, then by time.
        days: by project, then by day.
        notes: what deserves a look, and what is too little to tell.
        few: figures on fewer values than this are rough.
    """

    first: str | None
    last: str | None
    overall: Part
    projects: tuple[Part, ...]
    annotators: tuple[Person, ...]
    batches: tuple[Batch, ...]
    days: tuple[Day, ...]
    notes: tuple[Note, ...]
    few: int = FEW
    schema_version: int = 1


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values for ``json.dumps``."""
    return dataclasses.asdict(report)


def build_report(rows: Iterable[JudgedPair], skips: Iterable[Skipped] = ()) -> Report:
    """The report on some judgments.

    Args:
        rows: current judgments of work, gold items among them; one per pair and annotator.
        skips: pairs that were skipped.
    """
    judged, skipped = sorted(rows, key=lambda row: (row.judged_at, row.pair_id, row.annotator)), list(skips)
    work = [row for row in judged if not row.is_gold]
    people, projects = _people(judged, skipped), _projects(judged, skipped)
    together = projects[0].agreement if len(projects) == 1 else _agreement(work)
    overall = Part("all projects", None, _work(judged, skipped), together)
    by_day = Counter((row.project, row.judged_at[:10]) for row in work)
    moments = [row.judged_at for row in work]
    return Report(
        first=moments[0] if moments else None,
        last=moments[-1] if moments else None,
        overall=overall,
        projects=projects,
        annotators=people,
        batches=_batches(work),
        days=tuple(Day(*key, n) for key, n in sorted(by_day.items())),
        notes=tuple(notes_on(overall, people)),
    )


# -- parts -------------------------------------------------------------------------------------------------------------


def _projects(judged: Sequence[JudgedPair], skipped: Sequence[Skipped]) -> tuple[Part, ...]:
    skips, parts = _by(skipped, "project"), []
    for name, rows in sorted(_by(judged, "project").items()):
        work = [row for row in rows if not row.is_gold]
        parts.append(Part(name, rows[0].dimension, _work(rows, skips.get(name, [])), _agreement(work)))
    return tuple(parts)


def _people(judged: Sequence[JudgedPair], skipped: Sequence[Skipped]) -> tuple[Person, ...]:
    skips, agreement = _by(skipped, "annotator"), agreement_with_others(row for row in judged if not row.is_gold)
    own = _by(judged, "annotator")
    works = {name: _work(own.get(name, []), skips.get(name, [])) for name in {**own, **skips}}
    # Bonferroni: among many annotators, some lean by chance.
    level = 0.05 / max(sum(work.n > 0 for work in works.values()), 1)
    none = Measure(None, 0, missing=NO_OVERLAP)
    people = [
        Person(name, work, agreement.get(name, none), leans=work.left_p is not None and work.left_p < level)
        for name, work in works.items()
    ]
    return tuple(sorted(people, key=lambda person: (-person.work.n, person.annotator)))


def _batches(work: Sequence[JudgedPair]) -> tuple[Batch, ...]:
    found: dict[tuple[str, str], list[JudgedPair]] = defaultdict(list)
    for row in work:
        found[row.project, row.batch].append(row)
    batches = [
        Batch(project, name, len(rows), rows[0].judged_at[:10], grade_shares(rows))
        for (project, name), rows in found.items()
    ]
    return tuple(sorted(batches, key=lambda batch: batch.project))  # in time within a project, as rows are


def _by(rows: Iterable[Any], key: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        found[getattr(row, key)].append(row)
    return found


# -- figures -----------------------------------------------------------------------------------------------------------


def _agreement(work: Sequence[JudgedPair]) -> Agreement:
    kappas = cohen_kappas(work)
    choices, grades, safety = choice_counts(work), grade_counts(work), safety_counts(work)
    return Agreement(
        shared_pairs=int((choices.sum(axis=1) >= 2).sum()),
        choice=raw_agreement(choices),
        kappa=mean_kappa(kappas),
        alpha_choice=krippendorff_alpha(choices, (0, 1), "nominal"),
        alpha_grade=krippendorff_alpha(grades, SIGNED_GRADES, "ordinal"),
        ac2_grade=gwet(grades, weights_by_distance(SIGNED_GRADES, power=2)),
        ac2_grade_linear=gwet(grades, weights_by_distance(SIGNED_GRADES, power=1)),
        safety=raw_agreement(safety),
        ac1_safety=gwet(safety, identity_weights(safety.shape[1])),
        kappas=tuple(kappas),
    )


def _work(judged: Sequence[JudgedPair], skipped: Sequence[Skipped]) -> Work:
    work = [row for row in judged if not row.is_gold]
    gold = [row.gold_ok for row in judged if row.is_gold and row.gold_ok is not None]
    seconds = [row.active_ms / 1000 for row in work if row.active_ms is not None]
    left = sum(row.choice == row.left_slot for row in work)
    return Work(
        n=len(work),
        pairs=len({row.pair_id for row in work}),
        heldout=sum(row.part == "heldout" for row in work),
        left=share_of(left, len(work)),
        left_p=float(stats.binomtest(left, len(work), 0.5).pvalue) if work else None,
        grades=grade_shares(work),
        median_seconds=median(seconds) if seconds else None,
        per_hour=3600 * len(seconds) / sum(seconds) if sum(seconds) else None,
        flagged=share_of(sum(row.flagged for row in work), len(work)),
        gold=share_of(sum(gold), len(gold)),
        skips=dict(Counter(row.reason for row in sorted(skipped, key=lambda row: row.reason)).most_common()),
    )


def share_of(count: int, n: int) -> Measure:
    """A share of independent events with Wilson's interval; no value where there is nothing to count."""
    if not n:
        return Measure(None, 0, missing=NO_DATA)
    figure = proportion(count, n)
    return Measure(figure["value"], n, (figure["ci95"][0], figure["ci95"][1]))


def grade_shares(rows: Sequence[JudgedPair]) -> dict[Grade, float]:
    """Share of each grade, strongest first; empty for no rows."""
    counts = Counter(row.grade for row in rows)
    return {grade: counts[grade] / len(rows) for grade in GRADES} if rows else {}
