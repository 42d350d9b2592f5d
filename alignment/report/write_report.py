"""Write ``report.json`` and ``report.html``: the one way in to this package.

The JSON is validated against ``alignment.report.report_schema`` first, so a report on disk is always as documented.
The page is one file: style and plots inline, no script, no font, no address; every text that a model or a
person wrote is escaped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alignment.report import number_formats, report_plots, reward_plots
from alignment.report.page_files import render, write_both
from alignment.report.report_schema import POLICIES, PolicyFigures, Report, validate_report

PPO_CURVES = (
    ("reward", "Reward (raw)", False),
    ("kl_nats", "KL to the reference (nats)", False),
    ("length_tokens", "Length (tokens)", False),
    ("stop_rate", "Stop rate", True),
    ("disagreement", "Disagreement within the helpfulness model", False),
)
"""Key of a point of ``curves.ppo``, caption, whether it is a share."""
FIGURES = (
    ("helpfulness", "Helpfulness", number_formats.decimal),
    ("violation_rate", "Violations", number_formats.percent),
    ("false_refusal_rate", "False refusals", number_formats.percent),
    ("kl_to_sft_nats", "KL to SFT (nats)", number_formats.decimal),
    ("mean_length_tokens", "Length (tokens)", number_formats.tokens),
    ("stop_rate", "Stop rate", number_formats.percent),
)
"""Column of the policy tables: key in the report, heading, format."""


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


def render_page(report: Report) -> str:
    """The page as one HTML document; equal reports give equal bytes."""
    return render(
        "page.html.j2",
        report=report,
        labels=number_formats.LABELS,
        figures=FIGURES,
        curves=[(key, title) for key, title, _ in PPO_CURVES],
        headline=number_formats.headline(report),
        subline=number_formats.subline(report),
        tiles=tiles(report),
        policies={name: report.policies[name] for name in POLICIES if name in report.policies},
        summary={row[0]: row[4] for row in number_formats.summary_rows(report)},
        plots={name: Markup(svg) for name, svg in draw_plots(report).items()},
        breakdowns=breakdowns(report),
        stages=_stages(report),
    )


def draw_plots(report: Report) -> dict[str, str]:
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
    for key, title, percent in PPO_CURVES:
        drawn[f"curve_{key}"] = report_plots.ppo_curve(report.curves.ppo, key, title=title, percent=percent)
    for model, histograms in report.score_histograms.items():
        ordered = {str(name): histograms[name] for name in POLICIES if name in histograms}
        drawn[f"histogram_{model}"] = report_plots.score_histogram(ordered, model=model)
    return {name: svg for name, svg in drawn.items() if svg is not None}


def tiles(report: Report) -> list[dict[str, str]]:
    """The four numbers at the top: before (SFT), after (the last policy) and the interval of the latter."""
    name = number_formats.final_policy(report)
    before, after = report.policies.get("sft"), report.policies[name]
    found = []
    rate = number_formats.win_rate_against_sft(report, name)
    if rate:
        value, spread = (
            number_formats.percent(rate.win_rate),
            number_formats.interval(rate.ci95, number_formats.percent),
        )
        found.append({"label": "Win rate against SFT", "before": "", "after": value, "interval": spread})
    for key, label, form in FIGURES[:3]:
        new = getattr(after, key)
        if new is not None:
            old = getattr(before, key) if before is not None and name != "sft" else None
            earlier = form(old.value) if old is not None else ""
            spread = number_formats.interval(new.ci95, form)
            found.append({"label": label, "before": earlier, "after": form(new.value), "interval": spread})
    return found


def breakdowns(report: Report) -> list[tuple[str, list[tuple[str, str, PolicyFigures]]]]:
    """Title and rows (part, policy label, figures) of each breakdown, the parts of one name together."""
    result = []
    for title, key in (("By wording", "by_group"), ("By kind of prompt", "by_kind")):
        parts = sorted({part for block in report.policies.values() for part in getattr(block, key)})
        rows = [
            (part.replace("_", " "), number_formats.LABELS[name], getattr(report.policies[name], key)[part])
            for part in parts
            for name in POLICIES
            if name in report.policies and part in getattr(report.policies[name], key)
        ]
        if rows:
            result.append((title, rows))
    return result


def _stages(report: Report) -> list[tuple[str, float, float]]:
    """Name, seconds and share of the longest, for each stage that was run."""
    seconds = {name: value for name, value in report.timings_s.model_dump().items() if value is not None}
    longest = max((value for name, value in seconds.items() if name != "total"), default=0.0) or 1.0
    return [(name, value, value / longest) for name, value in seconds.items() if name != "total"]
