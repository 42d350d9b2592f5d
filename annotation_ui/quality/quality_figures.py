"""The figures of a quality report, field by field: how annotators agree, lean, grade, and keep pace.

``quality_report`` makes them of judgments in memory (``stored_judgments`` reads those from the store);
``report_as_text`` and the app's ``quality_page`` show them. A report names annotators by their ids only, which are
pseudonyms; who may know the user names gives them to those that show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alignment.data.records import Dimension, Grade
from annotation_ui.vocabulary import SkipReason

FEW = 30
"""A figure on fewer values than this is marked as rough."""


@dataclass(frozen=True)
class ReportNote:
    """Something to look at; with ``annotator``, the text goes on after their name."""

    text: str
    annotator: str | None = None


@dataclass(frozen=True)
class WorkFigures:
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
class AgreementFigures:
    """How people agree who judged the same pairs; see ``annotation_ui.quality.agreement`` for each coefficient.

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
class ProjectFigures:
    """All projects together, or one of them."""

    name: str
    dimension: Dimension | None
    work: WorkFigures
    agreement: AgreementFigures


@dataclass(frozen=True)
class AnnotatorFigures:
    """One annotator; ``leans``: chooses one side more often than chance explains, over all annotators tested."""

    annotator: str
    work: WorkFigures
    agrees: Measure
    leans: bool


@dataclass(frozen=True)
class BatchGrades:
    """The grades of one batch of a project, as in Llama-2's figure of the drift of grades."""

    project: str
    name: str
    n: int
    first_day: str
    grades: Mapping[Grade, float]


@dataclass(frozen=True)
class DailyCount:
    """How many judgments were made in a project on a day (UTC); an edited one counts on the day of its last edit."""

    project: str
    day: str
    n: int


@dataclass(frozen=True)
class QualityReport:
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
    overall: ProjectFigures
    projects: tuple[ProjectFigures, ...]
    annotators: tuple[AnnotatorFigures, ...]
    batches: tuple[BatchGrades, ...]
    days: tuple[DailyCount, ...]
    notes: tuple[ReportNote, ...]
    few: int = FEW
    schema_version: int = 1


@dataclass(frozen=True)
class Measure:
    """A figure, how many values it rests on, and its 95 % interval; where there is none, ``missing`` says why."""

    value: float | None
    n: int
    ci95: tuple[float, float] | None = None
    missing: str = ""


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa of two annotators; no value where both always chose the same slot."""

    first: str
    second: str
    n: int
    value: float | None
