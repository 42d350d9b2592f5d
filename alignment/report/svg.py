"""SVG in the page's colours: matplotlib paints with stand-ins, ``to_svg`` swaps in CSS variables. And what plots share.

What differs from run to run (dates, random ids) and what points outside the file is dropped, so equal figures
give equal bytes and the page stays one file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

COLOURS = {
    "ink": "#010101",
    "muted": "#020202",
    "grid": "#030303",
    "base": "#040401",
    "sft": "#040402",
    "rejection": "#040403",
    "ppo": "#040404",
    "helpfulness": "#050501",
    "safety": "#050502",
    "win": "#060601",
    "tie": "#060602",
    "loss": "#060603",
    "on-bar": "#070701",
}
"""CSS variable of the page -> the stand-in colour that it replaces."""

WIDTH = 4.7
LEGEND_LETTERS = 60
"""That fit beside each other."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": COLOURS["ink"],
    "axes.edgecolor": COLOURS["grid"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.6,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.4,
    "axes.unicode_minus": True,
}


def styled(more: dict[str, Any] | None = None) -> AbstractContextManager[None]:
    """Matplotlib settings of the report, and ``more``, for a ``with`` block."""
    return matplotlib.rc_context({**STYLE, **(more or {})})  # type: ignore[dict-item]


def new_figure(height: float) -> Figure:
    """An empty figure of the page's width; ``height`` in inches."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def draw_legend(figure: Figure, axes: Axes) -> None:
    """One legend above the plot, in as many columns as its words leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(4, LEGEND_LETTERS // max(map(len, labels), default=1)))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, columnspacing=1.4)


def offsets(count: int, step: float) -> list[float]:
    """Where to put ``count`` things side by side around 0."""
    return [step * (position - (count - 1) / 2) for position in range(count)]


LEAST_SPAN = 1.0
"""Of an axis of scores: one unit, which is a factor of e in the odds that an answer is preferred."""
LEAST_KL = 0.1
"""Nats that an axis of KL shows at least: an estimate near 0 is noise."""


def show_whole_scale(axes: Axes, *, share: bool = False, signed: bool = False) -> None:
    """Scale the upright axis so that a small difference looks small.

    Args:
        axes: with everything drawn.
        share: from 0 to 100 %; default: from 0 upwards.
        signed: for scores, whose 0 means nothing: what was drawn, but no less than ``LEAST_SPAN``.
    """
    if share:
        axes.set_ylim(-0.02, 1.02)
        axes.set_yticks((0, 0.25, 0.5, 0.75, 1))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        return
    axes.yaxis.set_major_locator(MaxNLocator(4))
    low, high = axes.get_ylim()
    if signed:
        axes.set_ylim(of_scores(low, high))
    else:
        axes.set_ylim(min(low, 0.0), max(high, LEAST_KL))


def of_scores(low: float, high: float) -> tuple[float, float]:
    """Ends of an axis of scores: these, moved apart evenly where they are closer than ``LEAST_SPAN``."""
    missing = max(LEAST_SPAN - (high - low), 0.0)
    return low - missing / 2, high + missing / 2


def draw_interval(
    axes: Axes,
    value: float,
    position: float,
    ci95: Sequence[float],
    colour: str,
    *,
    horizontal: bool = False,
    label: str | None = None,
    marker: str = "o",
) -> None:
    """A dot with its interval, upright or lying.

    Args:
        axes: where to draw.
        value: the figure, in the units of the axis that it is read from.
        position: where the dot stands on the other axis.
        ci95: (low, high) end of the 95 % interval, in the units of ``value``.
        colour: a name in ``COLOURS``.
        horizontal: draw the interval from left to right; default: upright.
        label: name in the legend; ``None``: not listed.
        marker: what stands at the value.
    """
    spread = [[max(value - ci95[0], 0)], [max(ci95[1] - value, 0)]]
    style: dict[str, Any] = {
        "fmt": marker,
        "markersize": 5.5,
        "color": COLOURS[colour],
        "elinewidth": 1.6,
        "clip_on": False,
    }
    if horizontal:
        axes.errorbar([value], [position], xerr=spread, label=label, **style)
    else:
        axes.errorbar([position], [value], yerr=spread, label=label, **style)


def to_svg(figure: Figure, *, salt: str, label: str) -> str:
    """The figure as an ``<svg>`` element for a page: no ids that clash, no dates, no addresses, page colours.

    Args:
        figure: what was drawn under ``STYLE``.
        salt: name of the plot; keeps the ids of two plots on one page apart.
        label: what the plot shows, for people who cannot see it.
    """
    buffer = io.StringIO()
    with styled({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\sid="[a-zA-Z0-9.]+_\d+"', "", svg)  # group ids that nothing refers to
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"\s*\n\s*", "\n", svg.replace("'DejaVu Sans'", "inherit")).replace("<g/>\n", "")
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label, quote=True)}"', 1).strip()
