"""``report.json`` and ``report.html``: the headline, tables and plots of a run's report, and writing both.

The JSON is validated against ``alignment.report.report_schema`` first, so a report on disk is always as documented.
The page is one file: style and plots inline, no script, no font, no address; every text that a model or a
person wrote is escaped. Every word of the headline is built from the numbers of the report.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alignment.report import report_plots, reward_plots
from alignment.report.number_formats import NONE, SPACE, NumberFormat, decimal, interval, number, percent, tokens
from alignment.report.page_files import render, write_both
from alignment.report.report_schema import (
    POLICIES,
    POLICY_LABELS,
    PolicyBlock,
    PolicyFigures,
    PolicyName,
    RunReport,
    WinRateBlock,
    validate_report,
)
from alignment.report.reward_schema import Measured

PPO_CURVES = (
    ("reward", "Reward (raw)", False),
    ("kl_nats", "KL to the reference (nats)", False),
    ("length_tokens", "Length (tokens)", False),
    ("stop_rate", "Stop rate", True),
    ("disagreement", "Disagreement within the helpfulness model", False),
)
"""Key of a point of ``curves.ppo``, caption, whether it is a share."""
FIGURES = (
    ("helpfulness", "Helpfulness", decimal),
    ("violation_rate", "Violations", percent),
    ("false_refusal_rate", "False refusals", percent),
    ("kl_to_sft_nats", "KL to SFT (nats)", decimal),
    ("mean_length_tokens", "Length (tokens)", tokens),
    ("stop_rate", "Stop rate", percent),
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


def tiles(report: RunReport) -> list[dict[str, str]]:
    """The four numbers at the top: before (SFT), after (the last policy) and the interval of the latter."""
    name = final_policy(report)
    before, after = report.policies.get("sft"), report.policies[name]
    found = []
    rate = win_rate_against_sft(report, name)
    if rate:
        value, spread = (
            percent(rate.win_rate),
            interval(rate.ci95, percent),
        )
        found.append({"label": "Win rate against SFT", "before": "", "after": value, "interval": spread})
    for key, label, form in FIGURES[:3]:
        new = getattr(after, key)
        if new is not None:
            old = getattr(before, key) if before is not None and name != "sft" else None
            earlier = form(old.value) if old is not None else ""
            spread = interval(new.ci95, form)
            found.append({"label": label, "before": earlier, "after": form(new.value), "interval": spread})
    return found


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


def _stages(report: RunReport) -> list[tuple[str, float, float]]:
    """Name, seconds and share of the longest, for each stage that was run."""
    seconds = {name: value for name, value in report.timings_s.model_dump().items() if value is not None}
    longest = max((value for name, value in seconds.items() if name != "total"), default=0.0) or 1.0
    return [(name, value, value / longest) for name, value in seconds.items() if name != "total"]


SUMMARY_COLUMNS = (
    "policy",
    "helpfulness",
    "violations",
    "false refusals",
    "win rate vs SFT",
    "KL to SFT (nats)",
    "length (tokens)",
    "stop rate",
)


def final_policy(report: RunReport) -> PolicyName:
    """The last policy that the run made."""
    made = [name for name in POLICIES if name in report.policies]
    if not made:
        raise ValueError("a report needs at least one policy")
    return made[-1]


def win_rate_against_sft(report: RunReport, policy: str) -> WinRateBlock | None:
    """The entry for ``policy`` against SFT on all prompts, by the report's own judge if there is one."""
    found = [rate for rate in report.win_rates if (rate.policy, rate.against, rate.prompts) == (policy, "sft", "all")]
    return min(found, key=lambda rate: rate.judge != report.judge, default=None)


def headline(report: RunReport) -> str:
    """The result in one sentence."""
    name = final_policy(report)
    label, block = POLICY_LABELS[name], report.policies[name]
    rate, before = win_rate_against_sft(report, name), report.policies.get("sft")
    parts: list[str] = []
    if rate:
        parts.append(f"{label} has a win rate of {percent(rate.win_rate)} against SFT")
    if before and before is not block:
        parts += _changes(before, block)
    if parts:
        text = "; ".join(parts)
        return text if rate else f"SFT to {label}: {text}"
    measured = _unjudged(block)
    return f"{label}: {', '.join(measured)}" if measured else f"{label}: nothing was measured"


def subline(report: RunReport) -> str:
    """Who judged, on how many prompts, and how sure the win rate is."""
    name = final_policy(report)
    block, rate = report.policies[name], win_rate_against_sft(report, name)
    rounds = f"{report.rounds} round{'s' if report.rounds > 1 else ''}"
    parts = [f"{block.n_prompts} held-out prompts, {rounds} of training, seed {report.seed}."]
    if rate:
        parts.append(
            f"Win rate judged by {rate.judge}; 95{SPACE}% interval {interval(rate.ci95, percent)}, "
            f"over {rate.n} pairs; a tie counts one half."
        )
    if report.judge is None:
        parts.append("There is no gold judge for this data: helpfulness and safety are not verified.")
    return " ".join(parts)


def summary_rows(report: dict[str, Any] | RunReport) -> list[list[str]]:
    """One row of ``SUMMARY_COLUMNS`` for each policy of the run."""
    checked = report if isinstance(report, RunReport) else validate_report(report)
    return [_summary_row(checked, name) for name in POLICIES if name in checked.policies]


def _summary_row(report: RunReport, name: PolicyName) -> list[str]:
    block, rate = report.policies[name], win_rate_against_sft(report, name)
    return [
        POLICY_LABELS[name],
        number(block.helpfulness, decimal),
        number(block.violation_rate, percent),
        number(block.false_refusal_rate, percent),
        percent(rate.win_rate) if rate else NONE,
        number(block.kl_to_sft_nats, decimal),
        number(block.mean_length_tokens, tokens),
        number(block.stop_rate, percent),
    ]


def _changes(before: PolicyBlock, after: PolicyBlock) -> list[str]:
    """What changed from one policy to another."""
    named: list[tuple[str, Measured, Measured, NumberFormat]] = [
        ("violations go", before.violation_rate, after.violation_rate, percent),
        ("gold helpfulness goes", before.helpfulness, after.helpfulness, decimal),
    ]
    return [f"{what} from {form(old.value)} to {form(new.value)}" for what, old, new, form in named if old and new]


def _unjudged(block: PolicyBlock) -> list[str]:
    """What can be said of a policy on its own."""
    named: list[tuple[str, Measured, NumberFormat]] = [
        ("gold helpfulness {}", block.helpfulness, decimal),
        ("violations {}", block.violation_rate, percent),
        ("KL to SFT {} nats", block.kl_to_sft_nats, decimal),
        ("{} tokens an answer", block.mean_length_tokens, tokens),
        ("stop rate {}", block.stop_rate, percent),
    ]
    return [words.format(form(figure.value)) for words, figure, form in named if figure]
