"""The axes of plots: a small difference looks small."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alignment.data.records import GRADES
from alignment.report import report_plots, reward_plots
from alignment.report.blocks_and_reward_schema import FigureBlock, GradedFigures, Histogram
from alignment.report.svg import new_figure, show_whole_scale, styled


@pytest.fixture
def axes_drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that plots are drawn on."""
    figures: list[Figure] = []

    def noted(height: float) -> Figure:
        figures.append(new_figure(height))
        return figures[-1]

    for module in (report_plots, reward_plots):
        monkeypatch.setattr(module, "new_figure", noted)
    return figures


@pytest.mark.parametrize(
    ("drawn", "options", "low", "high"),
    [
        pytest.param([0.992, 1.0, 0.984], {"share": True}, -0.02, 1.02, id="one answer of 128 that did not stop"),
        pytest.param([0.5, 0.52], {"signed": True}, 0.01, 1.01, id="scores, whose zero means nothing"),
        pytest.param([-4.0, 6.0], {"signed": True}, -4.5, 6.5, id="scores that differ"),
        pytest.param([20.0, 24.0], {}, 0.0, 24.2, id="lengths"),
        pytest.param([-0.002, 0.001], {}, -0.00215, 0.1, id="estimates of a KL near 0"),
    ],
)
def test_an_axis_shows_the_whole_scale(drawn: list[float], options: dict[str, bool], low: float, high: float) -> None:
    """Matplotlib's own limits are those of the data and a twentieth of their span on each side."""
    with styled():
        axes = new_figure(1.6).subplots()
        axes.plot(drawn)
        show_whole_scale(axes, **options)
        assert axes.get_ylim() == pytest.approx((low, high))


def lines_at(axes: Axes, height: float) -> int:
    """How many lines go across at this height."""
    return sum(list(line.get_ydata()) == [height, height] for line in axes.get_lines())


@pytest.mark.parametrize("accuracy", [0.9, 0.3], ids=["above chance", "below chance"])
def test_accuracies_stand_on_an_axis_from_0_to_100_with_a_line_at_chance(
    accuracy: float, axes_drawn: list[Figure]
) -> None:
    """One comparison of a hundred between two grades is a hundredth of the axis, whatever the model."""
    blocks = {
        grade: FigureBlock(value=accuracy + number / 100, ci95=(accuracy - 0.05, accuracy + 0.08), n=100)
        for number, grade in enumerate(GRADES)
    }
    assert reward_plots.accuracy_by_grade({"model": GradedFigures(all=None, **blocks)})
    axes = axes_drawn[0].axes[0]
    assert axes.get_ylim() == (-0.02, 1.02)
    assert list(axes.get_yticks()) == [0, 0.25, 0.5, 0.75, 1], "both ends are named"
    assert lines_at(axes, 0.5) == 1


NARROW = Histogram(edges=[2.50, 2.51, 2.52], counts=[1, 3])
WIDE = Histogram(edges=[-4.0, 0.0, 6.0], counts=[1, 3])


@pytest.mark.parametrize(
    ("histogram", "low", "high"),
    [
        pytest.param(NARROW, 2.01, 3.01, id="a fiftieth of a unit around 2.51"),
        pytest.param(WIDE, -4.5, 6.5, id="ten units and a twentieth on each side"),
    ],
)
def test_scores_that_hardly_differ_are_a_spike(
    histogram: Histogram, low: float, high: float, axes_drawn: list[Figure]
) -> None:
    assert reward_plots.chosen_and_rejected({"chosen": histogram, "rejected": histogram}, salt="scores")
    assert report_plots.score_histogram({"sft": histogram, "ppo": histogram}, model="safety")
    assert [figure.axes[0].get_xlim() for figure in axes_drawn] == [pytest.approx((low, high))] * 2
