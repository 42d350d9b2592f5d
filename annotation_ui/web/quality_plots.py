"""The plots of a quality report: agreement by project, grades by batch, lean to the left, judgments a day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from alignment.data.records import GRADES
from alignment.report.svg import COLOURS, draw_interval, draw_legend, new_figure, offsets, styled, to_svg
from annotation_ui import texts
from annotation_ui.quality.quality_figures import (
    AnnotatorFigures,
    BatchGrades,
    DailyCount,
    ProjectFigures,
    QualityReport,
)

GRADE_COLOURS = ("ppo", "sft", "helpfulness", "tie")
"""Strongest first; figures can be read on each of them, light or dark."""
PROJECT_COLOURS = ("helpfulness", "ppo", "safety", "rejection", "sft", "base")
PLOTTED_PEOPLE = 40
"""More than these in a plot are too many to read; those who judged most are shown."""
AGREEMENTS = (("choice", "sft"), ("ac2_grade", "ppo"), ("ac1_safety", "safety"))
_LONGEST_LABEL = 26
_GAPS_UP_TO = 60
"""Days that are drawn with gaps between them."""


def draw_plots(report: QualityReport, labels: Mapping[str, str]) -> dict[str, str]:
    """Every plot that the report has data for, by name."""
    drawn = {
        "agreement": agreement_by_project(report.projects),
        "left": left_shares(report.annotators, labels),
        "days": judgments_per_day(report.days),
    }
    for place, part in enumerate(report.projects):
        batches = [batch for batch in report.batches if batch.project == part.name]
        drawn[f"grades_{place}"] = grades_by_batch(batches, salt=f"grades-{place}")
    return {name: svg for name, svg in drawn.items() if svg is not None}


def agreement_by_project(projects: Sequence[ProjectFigures]) -> str | None:
    """Raw agreement on the choice, AC2 and AC1 of each project with their intervals."""
    measured = [part for part in projects if part.agreement.shared_pairs]
    if not measured:
        return None
    with styled({"axes.grid.axis": "x"}):
        figure = new_figure(max(3.2, 0.9 + 0.55 * len(measured)))
        axes = figure.subplots()
        for offset, (key, colour) in zip(offsets(len(AGREEMENTS), 0.22), AGREEMENTS, strict=True):
            label = texts.COEFFICIENTS[key][0]
            for row, part in enumerate(measured):
                measure = getattr(part.agreement, key)
                if measure.value is not None:
                    ci95 = measure.ci95 or (measure.value, measure.value)
                    named = label if label not in axes.get_legend_handles_labels()[1] else None
                    draw_interval(axes, measure.value, row + offset, ci95, colour, horizontal=True, label=named)
        _rows(axes, [part.name for part in measured])
        axes.set_xlim(min(axes.dataLim.x0, 0.0) - 0.01, 1.01)
        draw_legend(figure, axes)
    return to_svg(figure, salt="agreement", label=texts.PLOT_AGREEMENT)


def grades_by_batch(batches: Sequence[BatchGrades], *, salt: str) -> str | None:
    """Shares of the four grades in each batch, the earliest on top."""
    if not batches:
        return None
    with styled():
        figure = new_figure(0.8 + 0.36 * len(batches))
        axes = figure.subplots()
        for row, batch in enumerate(batches):
            left = 0.0
            for grade, colour in zip(GRADES, GRADE_COLOURS, strict=True):
                part, label = batch.grades[grade], texts.SHORT_GRADES[grade] if row == 0 else "_"
                axes.barh(row, part, left=left, height=0.7, color=COLOURS[colour], label=label)
                if part >= 0.08:
                    axes.text(left + part / 2, row, f"{100 * part:.0f} %", **_ON_BAR)
                left += part
        _rows(axes, [batch.name for batch in batches])
        axes.set_xlim(0, 1)
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([])
        draw_legend(figure, axes)
    return to_svg(figure, salt=salt, label=texts.PLOT_GRADES)


_ON_BAR: dict[str, Any] = {"ha": "center", "va": "center", "color": COLOURS["on-bar"], "fontsize": 9}


def left_shares(people: Sequence[AnnotatorFigures], labels: Mapping[str, str]) -> str | None:
    """How often each annotator chose the left answer, with its interval; those who lean stand out."""
    plotted = [person for person in people if person.work.n][:PLOTTED_PEOPLE]
    if not plotted:
        return None
    with styled({"axes.grid.axis": "x"}):
        figure = new_figure(0.6 + 0.3 * len(plotted))
        axes = figure.subplots()
        axes.axvline(0.5, color=COLOURS["muted"], linewidth=0.9)
        for row, person in enumerate(plotted):
            left = person.work.left
            if left.value is not None and left.ci95 is not None:
                draw_interval(axes, left.value, row, left.ci95, "loss" if person.leans else "sft", horizontal=True)
        _rows(axes, [labels[person.annotator] for person in plotted])
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return to_svg(figure, salt="left", label=texts.PLOT_LEFT)


def judgments_per_day(days: Sequence[DailyCount]) -> str | None:
    """How many judgments were made on each day, the projects on top of each other."""
    if len({day.day for day in days}) < 2:
        return None
    with styled():
        figure = new_figure(2.6)
        axes = figure.subplots()
        below: dict[int, int] = {}
        width = 0.8 if len({day.day for day in days}) <= _GAPS_UP_TO else 1.0
        for place, project in enumerate(sorted({day.project for day in days})):
            colour = PROJECT_COLOURS[place % len(PROJECT_COLOURS)]
            own = {date.fromisoformat(day.day).toordinal(): day.n for day in days if day.project == project}
            bottoms = [below.get(day, 0) for day in own]
            axes.bar(list(own), list(own.values()), width, bottoms, color=COLOURS[colour], label=_plain(project))
            below |= {day: below.get(day, 0) + n for day, n in own.items()}
        axes.set_xlim(min(below) - 0.6, max(below) + 0.6)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=2))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda day, _: _short_date(int(day))))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        draw_legend(figure, axes)
    return to_svg(figure, salt="days", label=texts.PLOT_DAYS)


def _short_date(ordinal: int) -> str:
    day = date.fromordinal(ordinal)
    return f"{day.day} {day:%b}"


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """Name the rows of a lying plot, the first on top."""
    axes.set_yticks(range(len(labels)), [_plain(label) for label in labels], color=COLOURS["ink"])
    axes.set_ylim(len(labels) - 0.45, -0.55)


def _plain(label: str) -> str:
    """A label that fits, whose dollar signs do not begin a formula."""
    short = label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"
    return short.replace("$", r"\$")
