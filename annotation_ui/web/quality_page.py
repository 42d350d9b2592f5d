"""A quality report as one page in one file: style and plots inline, no script, no address, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

import alignment.report
from alignment.data.records import GRADES
from alignment.report.number_formats import decimal, percent
from annotation_ui import texts
from annotation_ui.quality import figures_in_words
from annotation_ui.quality.quality_figures import Kappa, Measure, QualityReport
from annotation_ui.web.page_templates import make_page
from annotation_ui.web.quality_plots import PLOTTED_PEOPLE, draw_plots


def as_html(report: QualityReport, names: Mapping[str, str] | None = None, *, back: str = "") -> str:
    """The report as one HTML document; equal reports give equal bytes.

    Args:
        report: what to show.
        names: annotator id -> name, for those who may know; default: ids, shortened as far as they stay different.
        back: address of the page that leads here, if one does.
    """
    labels = figures_in_words.labels_of(report, names)
    page = make_page(
        "quality_page.html.j2",
        report=report,
        back=back,
        style=Markup((Path(alignment.report.__file__).parent / "page.css").read_text(encoding="utf-8")),
        # number formats
        value_text=figures_in_words.value_text,
        interval_text=figures_in_words.interval_text,
        percent=percent,
        by_chance=figures_in_words.by_chance,
        seconds=figures_in_words.seconds,
        rate=figures_in_words.rate,
        # sentences and names
        headline=figures_in_words.headline(report),
        period=figures_in_words.period(report),
        notes=figures_in_words.note_lines(report, labels),
        labels=labels,
        plotted_people=PLOTTED_PEOPLE,
        # figures
        tiles=tiles(report),
        parts=report.projects if len(report.projects) == 1 else (report.overall, *report.projects),
        forms=figures_in_words.COEFFICIENT_FORMS,
        grades=[(grade, texts.SHORT_GRADES[grade]) for grade in GRADES],
        skip_labels=texts.SKIP_REASONS,
        lowest=_lowest(report.overall.agreement.kappas),
        plots={name: Markup(svg) for name, svg in draw_plots(report, labels).items()},
    )
    return page.rstrip() + "\n"


def _lowest(kappas: Sequence[Kappa]) -> list[Kappa]:
    """The couples of annotators that agree least."""
    return sorted((kappa for kappa in kappas if kappa.value is not None), key=lambda kappa: kappa.value or 0.0)[:8]


def tiles(report: QualityReport) -> list[dict[str, str]]:
    """The numbers at the top, with their intervals; why, where there is none."""
    work, agreement = report.overall.work, report.overall.agreement

    # what a figure on few values adds
    def few(measure: Measure) -> str:
        return f"n = {measure.n}" if measure.value is not None and measure.n < report.few else ""

    # shares and coefficients, with intervals
    figures = (
        (texts.TILE_CHOICE, agreement.choice, percent),
        (texts.TILE_GRADE, agreement.ac2_grade, decimal),
        (texts.LEFT_CHOSEN, work.left, percent),
        (texts.TILE_GOLD, work.gold, percent),
    )
    shares = [
        {
            "label": label,
            "value": figures_in_words.value_text(measure, form),
            "note": figures_in_words.interval_text(measure, form),
            "few": few(measure),
        }
        for label, measure, form in figures
    ]
    # time, without one
    pace = texts.PACE.format(rate=figures_in_words.rate(work.per_hour)) if work.per_hour else texts.NO_DATA
    return [
        *shares,
        {"label": texts.TILE_TIME, "value": figures_in_words.seconds(work.median_seconds), "note": pace, "few": ""},
    ]
