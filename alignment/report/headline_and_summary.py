"""What a run's report says first: its headline, tiles, and the summary table that the terminal shows too."""

from __future__ import annotations

from typing import Any

from alignment.report.blocks_and_reward_schema import Measured
from alignment.report.number_formats import NONE, SPACE, NumberFormat, decimal, interval, number, percent, tokens
from alignment.report.run_report_schema import (
    POLICIES,
    POLICY_LABELS,
    PolicyBlock,
    PolicyName,
    RunReport,
    WinRateBlock,
    validate_report,
)

FIGURES = (
    ("helpfulness", "Helpfulness", decimal),
    ("violation_rate", "Violations", percent),
    ("false_refusal_rate", "False refusals", percent),
    ("kl_to_sft_nats", "KL to SFT (nats)", decimal),
    ("mean_length_tokens", "Length (tokens)", tokens),
    ("stop_rate", "Stop rate", percent),
)
"""Column of the policy tables: key in the report, heading, format."""

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
