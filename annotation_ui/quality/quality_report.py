"""Makes a quality report: of what is in the store, or of judgments in memory. Equal judgments, equal reports."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from scipy import stats

from alignment.data.records import GRADES, Grade
from alignment.figures.intervals import proportion
from annotation_ui import texts
from annotation_ui.quality.agreement import (
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
from annotation_ui.quality.judged_pairs import SIGNED_GRADES, JudgedPair, SkippedPair
from annotation_ui.quality.quality_figures import (
    AgreementFigures,
    AnnotatorFigures,
    BatchGrades,
    DailyCount,
    Measure,
    ProjectFigures,
    QualityReport,
    ReportNote,
    WorkFigures,
)
from annotation_ui.quality.report_notes import notes_on
from annotation_ui.quality.stored_judgments import annotator_names, judged_pairs, skipped_pairs
from annotation_ui.store.database import Store
from annotation_ui.store.projects import project_named
from annotation_ui.vocabulary import is_simulated


def as_json(report: QualityReport) -> dict[str, Any]:
    """The report as plain values for ``json.dumps``."""
    return dataclasses.asdict(report)


def quality_report(store: Store, *, project_name: str | None = None, with_simulated: bool = False) -> QualityReport:
    """The report on everything judged so far.

    Args:
        store: where judgments are.
        project_name: of the one project to report on; default: all.
        with_simulated: count simulated annotators beside people; where no person has judged, they count anyway.

    Raises:
        UserError: there is no such project.
    """
    with store.read() as connection:
        if project_name is not None:
            project_named(connection, project_name)
        judged, skipped = judged_pairs(connection, project_name), skipped_pairs(connection, project_name)
    simulated = {key for key, name in annotator_names(store).items() if is_simulated(name)}
    of_people = [row for row in judged if row.annotator not in simulated]
    if with_simulated or not of_people:
        return build_report(judged, skipped)
    report = build_report(of_people, [row for row in skipped if row.annotator not in simulated])
    n = len(judged) - len(of_people)
    if not n:
        return report
    note = texts.NOTE_SIMULATED.format(judgments=texts.counted(n, texts.JUDGMENTS))
    return replace(report, notes=(ReportNote(note), *report.notes))


def build_report(rows: Iterable[JudgedPair], skips: Iterable[SkippedPair] = ()) -> QualityReport:
    """The report on some judgments.

    Args:
        rows: current judgments of work, gold items among them; one per pair and annotator.
        skips: pairs that were skipped.
    """
    judged, skipped = sorted(rows, key=lambda row: (row.judged_at, row.pair_id, row.annotator)), list(skips)
    work = [row for row in judged if not row.is_gold]
    people, projects = _people(judged, skipped), _projects(judged, skipped)
    together = projects[0].agreement if len(projects) == 1 else _agreement(work)
    overall = ProjectFigures(texts.ALL_PROJECTS, None, _work(judged, skipped), together)
    by_day = Counter((row.project, row.judged_at[:10]) for row in work)
    moments = [row.judged_at for row in work]
    return QualityReport(
        first=moments[0] if moments else None,
        last=moments[-1] if moments else None,
        overall=overall,
        projects=projects,
        annotators=people,
        batches=_batches(work),
        days=tuple(DailyCount(*key, n) for key, n in sorted(by_day.items())),
        notes=tuple(notes_on(overall, people)),
    )


# -- parts -------------------------------------------------------------------------------------------------------------


def _projects(judged: Sequence[JudgedPair], skipped: Sequence[SkippedPair]) -> tuple[ProjectFigures, ...]:
    skips, parts = _by(skipped, "project"), []
    for name, rows in sorted(_by(judged, "project").items()):
        work = [row for row in rows if not row.is_gold]
        parts.append(ProjectFigures(name, rows[0].dimension, _work(rows, skips.get(name, [])), _agreement(work)))
    return tuple(parts)


def _people(judged: Sequence[JudgedPair], skipped: Sequence[SkippedPair]) -> tuple[AnnotatorFigures, ...]:
    skips, agreement = _by(skipped, "annotator"), agreement_with_others(row for row in judged if not row.is_gold)
    own = _by(judged, "annotator")
    works = {name: _work(own.get(name, []), skips.get(name, [])) for name in {**own, **skips}}
    # Bonferroni: among many annotators, some lean by chance.
    level = 0.05 / max(sum(work.n > 0 for work in works.values()), 1)
    none = Measure(None, 0, missing=texts.NO_OVERLAP)
    people = [
        AnnotatorFigures(name, work, agreement.get(name, none), leans=work.left_p is not None and work.left_p < level)
        for name, work in works.items()
    ]
    return tuple(sorted(people, key=lambda person: (-person.work.n, person.annotator)))


def _batches(work: Sequence[JudgedPair]) -> tuple[BatchGrades, ...]:
    by_batch: dict[tuple[str, str], list[JudgedPair]] = defaultdict(list)
    for row in work:
        by_batch[row.project, row.batch].append(row)
    batches = [
        BatchGrades(project, name, len(rows), rows[0].judged_at[:10], grade_shares(rows))
        for (project, name), rows in by_batch.items()
    ]
    return tuple(sorted(batches, key=lambda batch: batch.project))  # in time within a project, as rows are


def _by(rows: Iterable[Any], key: str) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        groups[getattr(row, key)].append(row)
    return groups


# -- figures -----------------------------------------------------------------------------------------------------------


def _agreement(work: Sequence[JudgedPair]) -> AgreementFigures:
    kappas = cohen_kappas(work)
    choices, grades, safety = choice_counts(work), grade_counts(work), safety_counts(work)
    return AgreementFigures(
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


def _work(judged: Sequence[JudgedPair], skipped: Sequence[SkippedPair]) -> WorkFigures:
    work = [row for row in judged if not row.is_gold]
    gold = [row.gold_ok for row in judged if row.is_gold and row.gold_ok is not None]
    seconds = [row.active_ms / 1000 for row in work if row.active_ms is not None]
    left = sum(row.choice == row.left_slot for row in work)
    return WorkFigures(
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
        return Measure(None, 0, missing=texts.NO_DATA)
    figure = proportion(count, n)
    return Measure(figure["value"], n, (figure["ci95"][0], figure["ci95"][1]))


def grade_shares(rows: Sequence[JudgedPair]) -> dict[Grade, float]:
    """Share of each grade, strongest first; empty for no rows."""
    counts = Counter(row.grade for row in rows)
    return {grade: counts[grade] / len(rows) for grade in GRADES} if rows else {}
