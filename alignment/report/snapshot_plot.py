"""Reward and judge against the distance from SFT, snapshot by snapshot, each with its 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from alignment.report.run_report_schema import POLICIES, POLICY_LABELS, CurvePoint, Ends, RunReport
from alignment.report.svg import COLOURS, LEAST_KL, draw_interval, new_figure, show_whole_scale, styled, to_svg


def reward_against_kl(report: RunReport) -> str | None:
    """Reward, guard and gold helpfulness against KL on a square-root axis."""
    points = [point for point in report.curves.ppo if point.heldout_kl_nats is not None]
    judged = any(point.gold_helpfulness is not None for point in points) or any(
        block.helpfulness and block.kl_to_sft_nats for name, block in report.policies.items() if name != "base"
    )
    with styled():
        # One panel a measure: reward, the guard that pays no policy, and the judge.
        guarded = any(point.heldout_guard is not None for point in points)
        drawers = [_reward_panel] if points else []
        drawers += [_guard_panel] if guarded else []
        drawers += [_gold_panel] if judged else []
        if not drawers:
            return None
        figure = new_figure(0.5 + 2.3 * len(drawers))
        panels = figure.subplots(len(drawers), 1, sharex=True, squeeze=False)[:, 0]
        for axes, draw in zip(panels, drawers, strict=True):
            draw(axes, report, points)
            axes.margins(x=0.06)
        _sqrt_axis(panels[-1], high=max(LEAST_KL, *(axes.dataLim.x1 for axes in panels)) * 1.12)
    return to_svg(figure, salt="kl", label="Reward and judge against KL divergence from the SFT policy, 95 % intervals")


def _reward_panel(axes: Axes, report: RunReport, points: Sequence[CurvePoint]) -> None:
    _draw_points(axes, [(each, each.heldout_reward, each.heldout_reward_ci95) for each in points])
    axes.set_title("reward (raw), selection prompts", pad=6)
    show_whole_scale(axes, signed=True)


def _guard_panel(axes: Axes, report: RunReport, points: Sequence[CurvePoint]) -> None:
    _draw_points(axes, [(each, each.heldout_guard, each.heldout_guard_ci95) for each in points])
    axes.set_title("guard (raw), selection prompts", pad=6)
    show_whole_scale(axes, signed=True)


def _gold_panel(axes: Axes, report: RunReport, points: Sequence[CurvePoint]) -> None:
    _draw_points(axes, [(each, each.gold_helpfulness, each.gold_helpfulness_ci95) for each in points])
    # The finished policies on the held-out prompts, named at their dots.
    for name in POLICIES[1:]:
        block = report.policies.get(name)
        if block and block.helpfulness and block.kl_to_sft_nats:
            kl, figure = max(block.kl_to_sft_nats.value, 0.0), block.helpfulness
            draw_interval(axes, figure.value, kl, figure.ci95, name, marker="D")
            beside = (8, -11) if name == "sft" else (-3, -22)
            axes.annotate(POLICY_LABELS[name], (kl, figure.value), beside, textcoords="offset points", fontsize=9)
    axes.set_title("gold helpfulness, selection prompts", pad=6)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _draw_points(axes: Axes, drawn: Sequence[tuple[CurvePoint, float | None, Ends | None]]) -> None:
    """A line through the snapshots, with the interval of each where the report has it."""
    found = [(max(point.heldout_kl_nats or 0.0, 0.0), value, ends) for point, value, ends in drawn if value is not None]
    axes.plot(
        [kl for kl, _, _ in found],
        [value for _, value, _ in found],
        color=COLOURS["ppo"],
        marker="o",
        markersize=4,
        alpha=0.75,
        clip_on=False,
    )
    for kl, value, ends in found:
        if ends:
            draw_interval(axes, value, kl, ends, "ppo")


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
    axes.set_xlabel("KL from the SFT policy (nats an answer, square-root axis)")
