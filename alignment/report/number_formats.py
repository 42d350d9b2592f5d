"""Numbers as people read them: figures with intervals, the headline, and the table that ends a run.

Every word is built from the numbers of the report; nothing is said that they do not say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from alignment.report.blocks import Measured
from alignment.report.report_schema import POLICIES, PolicyBlock, PolicyName, Report, WinRateBlock, validate_report

LABELS = {"base": "Base", "sft": "SFT", "rejection": "Rejection", "ppo": "PPO"}
NONE = "\N{EN DASH}"
SPACE = "\N{NO-BREAK SPACE}"
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
Formatter = Callable[[float], str]


def percent(value: float) -> str:
    """A share in per cent: one decimal near 0 % and 100 %, none between."""
    decimals = 0 if 0.1 <= value <= 0.9 or value in (0.0, 1.0) else 1
    return f"{100 * value:.{decimals}f}{SPACE}%"


def decimal(value: float) -> str:
    """A number with two decimals, and no minus before a zero."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "\N{MINUS SIGN}")


def thousandths(value: float) -> str:
    """A number with three decimals."""
    return f"{value:.3f}"


def probability(value: float) -> str:
    """A probability with as many digits as tell it from 0 and 1."""
    return f"{value:.3g}" if value < 0.5 else f"{1 - float(f'{1 - value:.2g}'):.12g}"


def p_value(value: float | None) -> str:
    """``p = 0.012``; a dash where there is none."""
    return NONE if value is None else f"p = {value:.1e}" if value < 0.001 else f"p = {value:.3f}"


def tokens(value: float) -> str:
    """A length with one decimal."""
    return f"{value:.1f}"


def duration(seconds: float) -> str:
    """Seconds as ``45 s`` or ``7 min 11 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{SPACE}min {rest}{SPACE}s" if minutes else f"{rest}{SPACE}s"


def number(figure: Measured, form: Formatter) -> str:
    """The value alone; a dash where it was not measured."""
    return NONE if figure is None else form(figure.value)


def interval(ci95: Sequence[float], form: Formatter) -> str:
    """``low to high``."""
    return f"{form(ci95[0])} to {form(ci95[1])}"


def final_policy(report: Report) -> PolicyName:
    """The last policy that the run made."""
    made = [name for name in POLICIES if name in report.policies]
    if not made:
        raise ValueError("a report needs at least one policy")
    return made[-1]


def win_rate_against_sft(report: Report, policy: str) -> WinRateBlock | None:
    """The entry for ``policy`` against SFT on all prompts, by the report's own judge if there is one."""
    found = [rate for rate in report.win_rates if (rate.policy, rate.against, rate.prompts) == (policy, "sft", "all")]
    return min(found, key=lambda rate: rate.judge != report.judge, default=None)


def headline(report: Report) -> str:
    """The result in one sentence."""
    name = final_policy(report)
    label, block = LABELS[name], report.policies[name]
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


def subline(report: Report) -> str:
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


def summary_rows(report: dict[str, Any] | Report) -> list[list[str]]:
    """One row of ``SUMMARY_COLUMNS`` for each policy of the run."""
    checked = report if isinstance(report, Report) else validate_report(report)
    return [_summary_row(checked, name) for name in POLICIES if name in checked.policies]


def summary_table(report: dict[str, Any] | Report) -> str:
    """The summary as plain aligned text, for a terminal or a log."""
    rows = [list(SUMMARY_COLUMNS), *summary_rows(report)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(SUMMARY_COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join([lines[0].rstrip(), "  ".join("-" * width for width in widths), *map(str.rstrip, lines[1:])])


def _summary_row(report: Report, name: PolicyName) -> list[str]:
    block, rate = report.policies[name], win_rate_against_sft(report, name)
    return [
        LABELS[name],
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
    named: list[tuple[str, Measured, Measured, Formatter]] = [
        ("violations go", before.violation_rate, after.violation_rate, percent),
        ("gold helpfulness goes", before.helpfulness, after.helpfulness, decimal),
    ]
    return [f"{what} from {form(old.value)} to {form(new.value)}" for what, old, new, form in named if old and new]


def _unjudged(block: PolicyBlock) -> list[str]:
    """What can be said of a policy on its own."""
    named: list[tuple[str, Measured, Formatter]] = [
        ("gold helpfulness {}", block.helpfulness, decimal),
        ("violations {}", block.violation_rate, percent),
        ("KL to SFT {} nats", block.kl_to_sft_nats, decimal),
        ("{} tokens an answer", block.mean_length_tokens, tokens),
        ("stop rate {}", block.stop_rate, percent),
    ]
    return [words.format(form(figure.value)) for words, figure, form in named if figure]
