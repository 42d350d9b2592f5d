"""``report.json`` and ``report.html``: the tables and plots of a run's report, and writing both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alignment.report import report_plots, reward_plots
from alignment.report.headline_and_summary import FIGURES, headline, subline, summary_rows, tiles
from alignment.report.page_files import render, write_both
from alignment.report.run_report_schema import POLICIES, POLICY_LABELS, PolicyFigures, RunReport, validate_report

PPO_CURVES = (
    ("reward", "Reward (raw)", False),
    ("kl_nats", "KL to the reference (nats)", False),
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
    return render(
        "page.html.j2",
        report=report,
        labels=POLICY_LABELS,
        figures=FIGURES,
        curves=[(key, title) for key, title, _ in PPO_CURVES],
        headline=headline(report),
        subline=subline(report),
        tiles=tiles(report),
        policies={name: report.policies[name] for name in POLICIES if name in report.policies},
        summary={row[0]: row[4] for row in summary_rows(report)},
        plots={name: Markup(svg) for name, svg in draw_plots(report).items()},
        breakdowns=breakdowns(report),
        stages=_stages(report),
    )


def draw_plots(report: RunReport) -> dict[str, str]:
    """Every plot that the report has data for, by name."""
    policies = {str(name): report.policies[name] for name in POLICIES if name in report.policies}
    drawn = {
        "kl": report_plots.reward_against_kl(report),
        "grades": reward_plots.accuracy_by_grade(
            {f"{name} model": model.accuracy for name, model in report.reward_models.items()},
            colours=list(report.reward_models),
            ceilings=[model.ceiling for model in report.reward_models.values()],
        ),
        "wins": report_plots.win_rates(report.win_rates),
        "safety": report_plots.safety_rates(policies),
    }
    for key, title, is_share in PPO_CURVES:
        drawn[f"curve_{key}"] = report_plots.ppo_curve(report.curves.ppo, key, title=title, percent=is_share)
    for model, histograms in report.score_histograms.items():
        ordered = {str(name): histograms[name] for name in POLICIES if name in histograms}
        drawn[f"histogram_{model}"] = report_plots.score_histogram(ordered, model=model)
    return {name: svg for name, svg in drawn.items() if svg is not None}


def breakdowns(report: RunReport) -> list[tuple[str, list[tuple[str, str, PolicyFigures]]]]:
    """Title and rows (part, policy label, figures) of each breakdown, the parts of one name together."""
    result = []
    for title, key in (("By wording", "by_group"), ("By kind of prompt", "by_kind")):
        parts = sorted({part for block in report.policies.values() for part in getattr(block, key)})
        rows = [
            (part.replace("_", " "), POLICY_LABELS[name], getattr(report.policies[name], key)[part])
            for part in parts
            for name in POLICIES
            if name in report.policies and part in getattr(report.policies[name], key)
        ]
        if rows:
            result.append((title, rows))
    return result


def _stages(report: RunReport) -> list[tuple[str, float, float, str]]:
    """Name, seconds, share of the longest, and memory in words, for each stage that was run."""
    seconds = {name: value for name, value in report.timings_s.model_dump().items() if value is not None}
    longest = max((value for name, value in seconds.items() if name != "total"), default=0.0) or 1.0
    return [(name, value, value / longest, _memory(report, name)) for name, value in seconds.items() if name != "total"]


def _memory(report: RunReport, stage: str) -> str:
    """The memory that a stage took: the processor's, and the GPU's where there was one."""
    own, gpu = (getattr(kind, stage) for kind in (report.memory_gib, report.gpu_memory_gib))
    parts = [f"{own:.1f} GiB"] if own is not None else []
    return ", ".join([*parts, *([f"GPU {gpu:.1f} GiB"] if gpu is not None else [])])
