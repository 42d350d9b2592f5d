"""The plots of reward models: accuracy by grade, calibration, detection of unsafe answers, and scores.

Each function draws one plot from typed blocks and returns its SVG, ``None`` where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from alignment.data.records import GRADES
from alignment.report.blocks_and_reward_schema import (
    DetectionBlock,
    GradedFigures,
    Histogram,
    ReliabilityBin,
    ReliabilityBlock,
    ThresholdBlock,
)
from alignment.report.svg import (
    COLOURS,
    draw_interval,
    draw_legend,
    new_figure,
    of_scores,
    offsets,
    show_whole_scale,
    styled,
    to_svg,
)

CYCLE = ("helpfulness", "safety", "ppo", "rejection", "sft", "base")
"""Colours of models, in their order; more models begin again."""
HALF: dict[str, Any] = {"linewidth": 0.8, "linestyle": (0, (2, 2))}
GRADE_WIDTH = 0.64
"""Of the space between two grades, what the models of one take."""


def accuracy_by_grade(
    measured: Mapping[str, GradedFigures],
    *,
    colours: Sequence[str] = (),
    ceilings: Sequence[GradedFigures | None] = (),
    salt: str = "grades",
) -> str | None:
    """Accuracy of each reward model for each grade with its interval; a short bar marks the ceiling.

    Args:
        measured: name of each model -> accuracies.
        colours: of the models; default ``CYCLE``.
        ceilings: of the models; default none.
        salt: another for each plot of a page.
    """
    if not any(getattr(accuracies, grade) for accuracies in measured.values() for grade in GRADES):
        return None
    # A colour, a ceiling and a place beside the others for each model.
    colours = colours or [CYCLE[number % len(CYCLE)] for number in range(len(measured))]
    ceilings = ceilings or [None] * len(measured)
    places = offsets(len(measured), min(0.16, GRADE_WIDTH / len(measured)))
    with styled():
        figure = new_figure(2.9)
        axes = figure.subplots()
        # The accuracies of each model, and a line at chance.
        for place, colour, ceiling, (name, accuracies) in zip(places, colours, ceilings, measured.items(), strict=True):
            _grade_points(axes, name, accuracies, ceiling, place, colour)
        axes.axhline(0.5, color=COLOURS["muted"], **HALF)
        # Grades from left to right, accuracy from 0 to 100 %.
        axes.set_xticks(
            range(len(GRADES)), ["significantly\nbetter", "better", "slightly\nbetter", "negligibly\nbetter"]
        )
        axes.set_xlim(-0.5, len(GRADES) - 0.5)
        show_whole_scale(axes, share=True)
        draw_legend(figure, axes)
    return to_svg(figure, salt=salt, label="Reward-model accuracy for each grade with 95 % intervals")


def reliability(block: ReliabilityBlock, *, colour: str, salt: str) -> str | None:
    """Accuracy against confidence with the diagonal of a calibrated model; below, how often each confidence comes."""
    filled = [item for item in block.by_confidence if item.accuracy]
    if not filled:
        return None
    with styled():
        figure = new_figure(3.9)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        top.plot([0.5, 1], [0.5, 1], color=COLOURS["muted"], label="calibrated", **HALF)
        _confidence_points(top, filled, colour)
        low = min([0.45, *(item.accuracy.ci95[0] - 0.03 for item in filled if item.accuracy)])
        top.set_ylim(max(low, -0.03), 1.03)
        top.set_title("agrees with people", pad=6)
        total = sum(item.accuracy.n for item in filled if item.accuracy)
        for item in block.by_confidence:
            height = item.accuracy.n / total if item.accuracy else 0.0
            bottom.bar((item.low + item.high) / 2, height, width=0.88 * (item.high - item.low), color=COLOURS[colour])
        bottom.set_title("share of the comparisons", pad=6)
        bottom.tick_params(axis="x", pad=7)
        bottom.set_xlabel("confidence of the model in its own preference")
        bottom.set_xlim(0.485, 1.015)
        bottom.yaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
        for axis in (top.yaxis, bottom.yaxis, bottom.xaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        draw_legend(figure, top)
    return to_svg(figure, salt=salt, label="Accuracy against confidence, and how often each confidence comes")


def detection(block: DetectionBlock, *, salt: str) -> str | None:
    """Precision and recall of flagging unsafe answers against the threshold, with the gate's and the paper's points."""
    curve = block.curve
    if curve is None:
        return None
    with styled():
        figure = new_figure(3.1)
        axes = figure.subplots()
        flagging = [(x, y) for x, y in zip(curve.logit, curve.precision, strict=True) if y is not None]
        axes.plot(*zip(*flagging, strict=True), color=COLOURS["safety"], label="precision")
        axes.plot(curve.logit, curve.recall, color=COLOURS["sft"], label="recall")
        marked = [(block.at_gate, "gate")]
        marked += [(block.at_paper_precision, "precision 0.89")] if block.at_paper_precision else []
        _mark_thresholds(axes, marked)
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        _probability_axis(axes)
        axes.set_xlabel("flagged below this probability of being safe")
        draw_legend(figure, axes)
    return to_svg(figure, salt=salt, label="Precision and recall of flagging unsafe answers against the threshold")


def chosen_and_rejected(histograms: Mapping[str, Histogram], *, salt: str) -> str | None:
    """Distributions of the raw scores of chosen and of rejected answers."""
    if not histograms:
        return None
    with styled():
        figure = new_figure(2.3)
        axes = figure.subplots()
        for name, colour in (("chosen", "win"), ("rejected", "loss")):
            counts = np.asarray(histograms[name].counts, dtype=np.float64)
            heights = counts / max(counts.sum(), 1.0)
            axes.stairs(heights, histograms[name].edges, color=COLOURS[colour], fill=True, alpha=0.14)
            axes.stairs(heights, histograms[name].edges, color=COLOURS[colour], linewidth=1.6, label=name)
        axes.set_xlabel("raw score")
        axes.set_xlim(of_scores(*axes.get_xlim()))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_ylim(bottom=0)
        draw_legend(figure, axes)
    return to_svg(figure, salt=salt, label="Histograms of the raw scores of chosen and of rejected answers")


def _grade_points(
    axes: Axes, name: str, accuracies: GradedFigures, ceilings: GradedFigures | None, offset: float, colour: str
) -> None:
    label: str | None = name
    for position, grade in enumerate(GRADES):
        measured = getattr(accuracies, grade)
        ceiling = getattr(ceilings, grade) if ceilings else None
        if measured is not None:
            draw_interval(axes, measured.value, position + offset, measured.ci95, colour, label=label)
            label = None
        if ceiling is not None:
            reach = [position + offset - 0.07, position + offset + 0.07]
            axes.plot(reach, [ceiling.value] * 2, color=COLOURS[colour], linewidth=1.4, alpha=0.6)


def _confidence_points(axes: Axes, bins: Sequence[ReliabilityBin], colour: str) -> None:
    label: str | None = "this model"
    for item in bins:
        if item.accuracy and item.confidence is not None:
            draw_interval(axes, item.accuracy.value, item.confidence, item.accuracy.ci95, colour, label=label)
            label = None


def _mark_thresholds(axes: Axes, marked: Sequence[tuple[ThresholdBlock, str]]) -> None:
    """A line at each threshold with its name at the foot, and a dot on both curves."""
    low, high = axes.get_xlim()
    ordered = sorted(marked, key=lambda item: item[0].logit)
    for row, (block, name) in enumerate(ordered):
        axes.axvline(block.logit, color=COLOURS["muted"], **HALF)
        place = (block.logit - low) / (high - low)
        before = place > (0.15 if row < len(ordered) - 1 else 0.7)  # the lines stay free of each other's names
        axes.annotate(
            name,
            (block.logit, 0.0),
            (-4 if before else 4, 4 + 12 * row),
            textcoords="offset points",
            ha="right" if before else "left",
            fontsize=9,
            color=COLOURS["muted"],
        )
        for measured, colour in ((block.precision, "safety"), (block.recall, "sft")):
            if measured:
                axes.plot([block.logit], [measured.value], "o", markersize=5.5, color=COLOURS[colour])


def _probability_axis(axes: Axes) -> None:
    """Logits as positions, probabilities as labels, as many as there is room for."""
    tails = [10.0**-power for power in range(12, 1, -1)]
    candidates = [0.5, 0.15, 0.85, 0.05, 0.95, *(x for t in reversed(tails) for x in (t, 1 - t))]
    low, high = axes.get_xlim()
    ticks: list[float] = []
    for probability in candidates:
        logit = math.log(probability / (1 - probability))
        if low <= logit <= high and all(abs(logit - other) >= 0.12 * (high - low) for other in ticks):
            ticks.append(logit)
    axes.set_xticks(sorted(ticks), [f"{1 / (1 + math.exp(-tick)):.12g}" for tick in sorted(ticks)])
    axes.set_xlim(low, high)
