"""The axes of plots: a small difference looks small."""

from __future__ import annotations

import pytest

from alignment.report.svg import new_figure, show_whole_scale, styled


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
