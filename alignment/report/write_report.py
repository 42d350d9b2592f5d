"""``report.json`` and ``report.html``: the tables and plots of a run's report, and writing both."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alignment.report import report_plots, reward_plots
from alignment.report.blocks_and_reward_schema import Measured
from alignment.report.first_paragraph import first_paragraph, judges, others_paid, what_parted
from alignment.report.headline_and_summary import (
    LESS_SFT,
    REWARDS,
    Column,
    headline,
    measured_columns,
    tiles,
    win_rate_against_sft,
)
from alignment.report.number_formats import NumberFormat, count, decimal, percent, signed, thousandths
from alignment.report.page_files import render, write_both
from alignment.report.run_report_schema import POLICIES, POLICY_LABELS, RewardModelBlock, RunReport, validate_report
from alignment.report.snapshot_plot import reward_against_kl

PAID = ("rejection", "ppo")
"""Policies that reward models pay."""
PPO_CURVES = (
    ("reward", "Reward (raw)", False),
    ("kl_nats", "KL from the policy that PPO started from (nats an answer)", False),
    ("length_tokens", "Length (tokens)", False),
    ("stop_rate", "Stop rate", True),
    ("disagreement", "Disagreement within the helpfulness model", False),
)
"""Key of a point of ``curves.ppo``, caption, whether it is a share."""


def write_report(report: dict[str, Any], folder: str | os.PathLike[str]) -> Path:
    """Validate a report and write ``report.json`` and ``report.html``, each whole or not at all.

    Args:
        report: as in ``docs/report.md``.
        folder: where to; made if missing.

    Returns:
        The path of ``report.html``.

    Raises:
        ValueError: the report is not as documented; names every wrong key. Nothing is written then.
    """
    checked = validate_report(report)
    page = render_page(checked)
    return write_both(Path(folder), "report", checked, page)


def render_page(report: RunReport) -> str:
    """The page as one HTML document; equal reports give equal bytes."""
    policies = {name: report.policies[name] for name in POLICIES if name in report.policies}
    return render(
        "page.html.j2",
        report=report,
        labels=POLICY_LABELS,
        figures=measured_columns(report),
        less_sft=_differences(report),
        signed=signed,
        curves=[(key, title) for key, title, _ in PPO_CURVES],
        headline=headline(report),
        lead=first_paragraph(report),
        parted=what_parted(report),
        others_paid=others_paid(report),
        paid=[name for name in policies if name in PAID],
        tiles=tiles(report),
        policies=policies,
        win_rates={name: win_rate_against_sft(report, name) for name in policies},
        judges=list(judges(report)),
        plots={name: Markup(svg) for name, svg in draw_plots(report).items()},
        breakdowns=breakdowns(report),
        reward_models=list(report.reward_models.values()),
        model_rows=_model_rows(list(report.reward_models.values())),
        stages=_stages(report),
    )


def draw_plots(report: RunReport) -> dict[str, str]:
    """Every plot that the report has data for, by name."""
    policies = {str(name): report.policies[name] for name in POLICIES if name in report.policies}
    drawn = {
        "kl": reward_against_kl(report),
        "grades": reward_plots.accuracy_by_grade(
            {f"{name} model": model.accuracy for name, model in report.reward_models.items()},
            colours=list(report.reward_models),
            ceilings=[model.ceiling for model in report.reward_models.values()],
        ),
        "safety": report_plots.safety_rates(policies),
    }
    for place, rates in enumerate(judges(report).values()):
        drawn[f"wins_{place}"] = report_plots.win_rates(rates, salt=f"wins-{place}")
    for key, title, is_share in PPO_CURVES:
        drawn[f"curve_{key}"] = report_plots.ppo_curve(report.curves.ppo, key, title=title, percent=is_share)
    for model, histograms in report.score_histograms.items():
        ordered = {str(name): histograms[name] for name in POLICIES if name in histograms}
        drawn[f"histogram_{model}"] = report_plots.score_histogram(ordered, model=model)
    return {name: svg for name, svg in drawn.items() if svg is not None}


Row = tuple[str, NumberFormat, list[Measured]]
"""A figure's heading and format, and what it is for each policy."""


def breakdowns(report: RunReport) -> list[tuple[str, list[tuple[str, str, list[Row]]]]]:
    """Title and parts of each breakdown: name, number of prompts, and a row for each figure that was measured."""
    blocks = [report.policies[name] for name in POLICIES if name in report.policies]
    columns = [each for each in measured_columns(report) if report.judge is None or each not in REWARDS]
    found = []
    for title, key in (("By wording", "by_group"), ("By kind of prompt", "by_kind")):
        parts = []
        for part in sorted({part for block in blocks for part in getattr(block, key)}):
            own = [getattr(block, key).get(part) for block in blocks]
            rows = [(c.heading, c.form, [figures and getattr(figures, c.key) for figures in own]) for c in columns]
            n_prompts = count(max(figures.n_prompts for figures in own if figures), "prompt")
            parts.append((part.replace("_", " "), n_prompts, [row for row in rows if any(row[2])]))
        if parts:
            found.append((title, parts))
    return found


def _differences(report: RunReport) -> list[Column]:
    """The figures of which some policy has more or less than SFT."""
    blocks = report.policies.values()
    return [each for each in LESS_SFT if any(getattr(block.less_sft, each.key) for block in blocks)]


def _model_rows(models: Sequence[RewardModelBlock]) -> list[Row]:
    """The figures of reward models that were measured of any; in their order."""
    ceilings = [model.ceiling.all if model.ceiling else None for model in models]
    rows: list[Row] = [
        ("Accuracy, all", percent, [model.accuracy.all for model in models]),
        ("Ceiling, all", percent, ceilings),
        ("Correlation with length", decimal, [model.length_correlation for model in models]),
        ("Length-balanced accuracy", percent, [model.length.balanced if model.length else None for model in models]),
        ("Calibration error", thousandths, [model.reliability.ece if model.reliability else None for model in models]),
    ]
    return [row for row in rows if any(row[2])]


def _stages(report: RunReport) -> list[tuple[str, float, float, float | None, float | None]]:
    """Name, seconds, share of the longest, memory and memory of the GPU in GiB, for each stage that was run."""
    seconds = {name: value for name, value in report.timings_s.model_dump().items() if value is not None}
    longest = max((value for name, value in seconds.items() if name != "total"), default=0.0) or 1.0
    return [
        (name, value, value / longest, getattr(report.memory_gib, name), getattr(report.gpu_memory_gib, name))
        for name, value in seconds.items()
        if name != "total"
    ]
