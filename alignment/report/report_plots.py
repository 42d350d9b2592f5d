"""The plots of the report.

Each function draws one plot from typed blocks and returns its SVG, ``None`` where there is nothing to draw.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from alignment.report.blocks_and_reward_schema import Histogram
from alignment.report.run_report_schema import POLICIES, POLICY_LABELS, CurvePoint, PolicyBlock, RunReport, WinRateBlock
from alignment.report.svg import COLOURS, draw_interval, draw_legend, new_figure, styled, to_svg


def reward_against_kl(report: RunReport) -> str | None:
    """Reward and gold helpfulness against KL on a square-root axis: over-optimisation turns down."""
    points = [point for point in report.curves.ppo if point.heldout_kl_nats is not None]
    with styled():
        figure = new_figure(5.1)
        top, bottom = figure.subplots(2, 1, sharex=True)
        drawn_top = _reward_panel(top, report, points)
        drawn_bottom = _gold_panel(bottom, report, points)
        if not drawn_top and not drawn_bottom:
            return None
        for axes in (top, bottom):
            axes.margins(x=0.06, y=0.18)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        _sqrt_axis(bottom, high=max(top.dataLim.x1, bottom.dataLim.x1, 0.1) * 1.12)
        if not drawn_bottom:
            bottom.text(0.5, 0.5, "no gold judge for this data", transform=bottom.transAxes, ha="center")
            bottom.set_yticks([])
    return to_svg(figure, salt="kl", label="Reward and gold helpfulness against KL divergence from the SFT policy")


def win_rates(rates: Sequence[WinRateBlock]) -> str | None:
    """Win, tie and loss as stacked bars; the prompts and the judge are named where they differ."""
    if not rates:
        return None
    with styled():
        figure = new_figure(0.75 + 0.52 * len(rates))
        axes = figure.subplots()
        # One bar a pair: its parts side by side, each with its percentage where there is room.
        for row, rate in enumerate(rates):
            left = 0.0
            for name, part in (("win", rate.win), ("tie", rate.tie), ("loss", rate.loss)):
                axes.barh(row, part, left=left, height=0.62, color=COLOURS[name], label=name if row == 0 else "_")
                if part >= 0.07:
                    axes.text(
                        left + part / 2,
                        row,
                        f"{100 * part:.0f} %",
                        ha="center",
                        va="center",
                        color=COLOURS["on-bar"],
                    )
                left += part
        # Names of the pairs on the left, first pair on top; no frame, no ticks.
        names = [_pair_name(rate, name_judge=len({rate.judge for rate in rates}) > 1) for rate in rates]
        axes.set_yticks(range(len(rates)), names, color=COLOURS["ink"])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([])
        draw_legend(figure, axes)
    return to_svg(figure, salt="wins", label="Win, tie and loss shares for each pair of policies")


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
            axes.set_xlim(left=-0.01)
            axes.set_ylim(len(policies) - 0.4, -0.6)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        all_axes[0].set_yticks(range(len(policies)), [POLICY_LABELS[name] for name in policies], color=COLOURS["ink"])
    return to_svg(figure, salt="safety", label="Violation and false-refusal rates of each policy, 95 % intervals")


def ppo_curve(points: Sequence[CurvePoint], key: str, *, title: str, percent: bool = False) -> str | None:
    """One figure of PPO over its updates.

    Args:
        points: the figures of each update.
        key: name of the figure in a point; points without it are left out.
        title: what the figure is, in words.
        percent: label the axis in percent, for shares.
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
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
        axes.margins(x=0.01)
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
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_ylim(bottom=0)
        draw_legend(figure, axes)
    return to_svg(figure, salt=f"histogram-{model}", label=f"Histogram of {model} reward scores under each policy")


def _pair_name(rate: WinRateBlock, *, name_judge: bool) -> str:
    lines = [f"{POLICY_LABELS[rate.policy]} vs {POLICY_LABELS[rate.against]}"]
    lines += [rate.prompts.replace("_", " ")] if rate.prompts != "all" else []
    lines += textwrap.wrap(rate.judge, 18) if name_judge else []
    return "\n".join(lines)


def _reward_panel(axes: Axes, report: RunReport, points: Sequence[CurvePoint]) -> bool:
    held_out = [(_nats(point), point.heldout_reward) for point in points if point.heldout_reward is not None]
    training = [
        (max(point.kl_nats or 0.0, 0.0), point.reward) for point in report.curves.ppo if point.reward is not None
    ]
    drawn = held_out or sorted(training)
    if drawn:
        style: dict[str, Any] = {"markersize": 4} if held_out else {"markersize": 2.5, "linestyle": "none"}
        axes.plot(*zip(*drawn, strict=True), color=COLOURS["ppo"], marker="o", clip_on=False, **style)
    guard = [(_nats(point), point.heldout_guard) for point in points if point.heldout_guard is not None]
    if guard:
        axes.plot(
            *zip(*guard, strict=True), color=COLOURS["ppo"], marker="s", markersize=4, linestyle="--", label="guard"
        )
        axes.legend(frameon=False, fontsize=9)
    axes.set_title("reward (raw), selection prompts" if held_out else "reward (raw), training prompts", pad=6)
    return bool(drawn)


def _gold_panel(axes: Axes, report: RunReport, points: Sequence[CurvePoint]) -> bool:
    gold = [(_nats(point), point.gold_helpfulness) for point in points if point.gold_helpfulness is not None]
    if gold:
        axes.plot(*zip(*gold, strict=True), color=COLOURS["ppo"], marker="o", markersize=4, clip_on=False)
    drawn = bool(gold)
    for name in POLICIES[1:]:
        block = report.policies.get(name)
        if block and block.helpfulness and block.kl_to_sft_nats:
            kl, figure = max(block.kl_to_sft_nats.value, 0.0), block.helpfulness
            draw_interval(axes, figure.value, kl, figure.ci95, name)
            axes.annotate(POLICY_LABELS[name], (kl, figure.value), (7, -11), textcoords="offset points", fontsize=9)
            drawn = True
    axes.set_title("gold helpfulness, selection prompts", pad=6)
    return drawn


def _nats(point: CurvePoint) -> float:
    """The held-out KL on a square-root axis: an estimate near 0 may fall below it."""
    return max(point.heldout_kl_nats or 0.0, 0.0)


def _sqrt_axis(axes: Axes, *, high: float) -> None:
    """A square-root axis from 0 to ``high`` with ticks at round numbers of nats."""
    axes.set_xlim(0, high)  # first: the scale cannot place points that are all at 0 by itself
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    steps = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 50)
    ticks: list[float] = []
    for tick in steps:
        if tick <= high and (not ticks or np.sqrt(tick) - np.sqrt(ticks[-1]) >= 0.13 * np.sqrt(high)):
            ticks.append(tick)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("KL to the SFT policy (nats, square-root axis)")
