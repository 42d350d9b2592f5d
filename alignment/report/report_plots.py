"""The plots of the report.

Each function draws one plot from typed blocks and returns its SVG, ``None`` where there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from alignment.report.blocks_and_reward_schema import Histogram
from alignment.report.run_report_schema import POLICY_LABELS, CurvePoint, PolicyBlock, WinRateBlock
from alignment.report.svg import (
    COLOURS,
    draw_interval,
    draw_legend,
    new_figure,
    of_scores,
    show_whole_scale,
    styled,
    to_svg,
)


def win_rates(rates: Sequence[WinRateBlock], *, salt: str = "wins") -> str | None:
    """Win, tie and loss as stacked bars, by one judge; beside each the win rate with its interval.

    Args:
        rates: of one judge.
        salt: another for each plot of a page.
    """
    if not rates:
        return None
    with styled():
        figure = new_figure(0.75 + 0.62 * len(rates))
        axes = figure.subplots()
        # One bar a pair: its parts side by side, each with its percentage where there is room.
        for row, rate in enumerate(rates):
            left = 0.0
            for name, part in (("win", rate.win), ("tie", rate.tie), ("loss", rate.loss)):
                axes.barh(row, part, left=left, height=0.62, color=COLOURS[name], label=name if row == 0 else "_")
                if part >= 0.09:
                    axes.text(
                        left + part / 2,
                        row,
                        f"{100 * part:.0f} %",
                        ha="center",
                        va="center",
                        color=COLOURS["on-bar"],
                    )
                left += part
        # Names and win rates on the left, first pair on top; no frame, no ticks.
        axes.set_yticks(range(len(rates)), list(map(_pair_name, rates)), color=COLOURS["ink"])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([])
        draw_legend(figure, axes)
    return to_svg(figure, salt=salt, label=f"Win, tie and loss shares for each pair of policies, by {rates[0].judge}")


def safety_rates(policies: dict[str, PolicyBlock]) -> str | None:
    """Violation and false-refusal rates of each policy with their intervals."""
    panels = {"violations": "violation_rate", "false refusals": "false_refusal_rate"}
    if not any(getattr(block, key) is not None for block in policies.values() for key in panels.values()):
        return None
    with styled({"axes.grid.axis": "x"}):
        figure = new_figure(0.95 + 0.34 * len(policies))
        all_axes = figure.subplots(1, 2, sharey=True)
        for axes, (title, key) in zip(all_axes, panels.items(), strict=True):
            for row, (name, block) in enumerate(policies.items()):
                measured = getattr(block, key)
                if measured is not None:
                    draw_interval(axes, measured.value, row, measured.ci95, name, horizontal=True)
            axes.set_title(title, pad=8)
            axes.set_xlim(-0.01, 1.01)
            axes.set_ylim(len(policies) - 0.4, -0.6)
            axes.set_xticks((0, 0.5, 1))
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        all_axes[0].set_yticks(range(len(policies)), [POLICY_LABELS[name] for name in policies], color=COLOURS["ink"])
    return to_svg(figure, salt="safety", label="Violation and false-refusal rates of each policy, 95 % intervals")


def ppo_curve(points: Sequence[CurvePoint], key: str, *, title: str, percent: bool = False) -> str | None:
    """One figure of PPO over its updates.

    Args:
        points: the figures of each update.
        key: name of the figure in a point; points without it are left out.
        title: what the figure is, in words.
        percent: it is a share: the axis goes from 0 to 100 %.
    """
    points = [point for point in points if getattr(point, key) is not None]
    if len(points) < 2:
        return None
    with styled():
        figure = new_figure(1.6)
        axes = figure.subplots()
        axes.plot(
            [point.update for point in points],
            [getattr(point, key) for point in points],
            color=COLOURS["ppo"],
        )
        show_whole_scale(axes, share=percent, signed=key == "reward")
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("update")
    return to_svg(figure, salt=f"curve-{key}", label=f"PPO: {title} over updates")


def score_histogram(histograms: dict[str, Histogram], *, model: str) -> str | None:
    """Distribution of one reward model's raw scores under each policy."""
    if not histograms:
        return None
    with styled():
        figure = new_figure(2.2)
        axes = figure.subplots()
        for name, histogram in histograms.items():
            total = max(sum(histogram.counts), 1)
            heights = np.asarray(histogram.counts) / total
            axes.stairs(heights, histogram.edges, color=COLOURS[name], linewidth=1.6, label=POLICY_LABELS[name])
        axes.set_xlabel(f"raw {model} score")
        axes.set_xlim(of_scores(*axes.get_xlim()))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_ylim(bottom=0)
        draw_legend(figure, axes)
    return to_svg(figure, salt=f"histogram-{model}", label=f"Histogram of {model} reward scores under each policy")


def _pair_name(rate: WinRateBlock) -> str:
    lines = [f"{POLICY_LABELS[rate.policy]} vs {POLICY_LABELS[rate.against]}"]
    lines += [rate.prompts.replace("_", " ")] if rate.prompts != "all" else []
    low, high = rate.ci95
    return "\n".join([*lines, f"{100 * rate.win_rate:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)"])
