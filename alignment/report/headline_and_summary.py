"""What a run's report says first: its headline, tiles, and the tables that the terminal shows too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from alignment.report.blocks_and_reward_schema import Measured
from alignment.report.number_formats import (
    NONE,
    NumberFormat,
    count,
    decimal,
    interval,
    number,
    percent,
    signed,
    tokens,
    with_interval,
)
from alignment.report.run_report_schema import (
    POLICIES,
    POLICY_LABELS,
    PolicyBlock,
    PolicyName,
    RunReport,
    WinRateBlock,
    validate_report,
)


class Column(NamedTuple):
    """A figure of the policies in a table."""

    key: str
    """Its name in the report."""
    heading: str
    form: NumberFormat


JUDGED = (
    Column("helpfulness", "Helpfulness", decimal),
    Column("violation_rate", "Violations", percent),
    Column("false_refusal_rate", "False refusals", percent),
)
REWARDS = (
    Column("reward_helpfulness", "Helpfulness reward", decimal),
    Column("reward_safety", "Safety reward", decimal),
)
KL = Column("kl_to_sft_nats", "KL from SFT (nats an answer)", decimal)
LENGTH = Column("mean_length_tokens", "Length (tokens)", tokens)
STOPS = Column("stop_rate", "Stop rate", percent)
FIGURES = (*JUDGED, KL, LENGTH, STOPS, *REWARDS)
LESS_SFT = (*JUDGED, *REWARDS, LENGTH)
"""The figures that are compared with SFT's answer by answer."""

SUMMARY = {
    "helpfulness": "helpfulness",
    "violation_rate": "violations",
    "false_refusal_rate": "false refusals",
    "win_rate": "win rate vs SFT",
    "kl_to_sft_nats": "KL to SFT (nats)",
    "mean_length_tokens": "length (tokens)",
    "stop_rate": "stop rate",
}
"""Figure -> its column in the terminal."""
SCORE_COLUMNS = ("policy", "reward model", "mean score", "less SFT's")


def final_policy(report: RunReport) -> PolicyName:
    """The last policy that the run made."""
    made = [name for name in POLICIES if name in report.policies]
    if not made:
        raise ValueError("a report needs at least one policy")
    return made[-1]


def measured_columns(report: RunReport, columns: tuple[Column, ...] = FIGURES) -> list[Column]:
    """Those that were measured of any policy."""
    return [each for each in columns if any(getattr(block, each.key) for block in report.policies.values())]


def win_rate_against_sft(report: RunReport, policy: str) -> WinRateBlock | None:
    """The entry for ``policy`` against SFT on all prompts, by the report's own judge if there is one."""
    found = [rate for rate in report.win_rates if (rate.policy, rate.against, rate.prompts) == (policy, "sft", "all")]
    return min(found, key=lambda rate: rate.judge != report.judge, default=None)


def by_whom(report: RunReport, rate: WinRateBlock) -> str:
    """Who decided, where it is not the report's judge."""
    return "" if rate.judge == report.judge else f" by the {rate.judge}"


def sample_size(report: RunReport) -> str:
    """How many prompts each policy answered, and how many answers that are."""
    block = report.policies[final_policy(report)]
    answers = f", {count(block.mean_length_tokens.n, 'answer')} a policy" if block.mean_length_tokens else ""
    return count(block.n_prompts, "held-out prompt") + answers


def headline(report: RunReport) -> str:
    """The result in one sentence."""
    name = final_policy(report)
    label, block = POLICY_LABELS[name], report.policies[name]
    rate, before = win_rate_against_sft(report, name), report.policies.get("sft")
    if report.judge is None and before and before is not block and (changed := _changed_rewards(report, name)):
        return f"{label} against SFT: {'; '.join(changed)}"
    parts: list[str] = []
    if rate:
        parts.append(f"{label} has a win rate of {percent(rate.win_rate)} against SFT{by_whom(report, rate)}")
    if before and before is not block:
        parts += _changes(before, block)
    if parts:
        text = "; ".join(parts)
        return text if rate else f"SFT to {label}: {text}"
    measured = _unjudged(block)
    return f"{label}: {', '.join(measured)}" if measured else f"{label}: nothing was measured"


def _changed_rewards(report: RunReport, name: PolicyName) -> list[str]:
    """What the reward models say of a policy beside SFT, each with its interval."""
    rate, found = win_rate_against_sft(report, name), []
    if rate:
        spread = interval(rate.ci95, percent)
        found.append(f"win rate {percent(rate.win_rate)} ({spread}){by_whom(report, rate)}")
    for key, heading, form in REWARDS:
        if change := getattr(report.policies[name].less_sft, key):
            found.append(f"{heading.lower()} {with_interval(change, signed(form))}")
    return found


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
        ("helpfulness reward {}", block.reward_helpfulness, decimal),
        ("safety reward {}", block.reward_safety, decimal),
        ("KL to SFT {} nats an answer", block.kl_to_sft_nats, decimal),
        ("{} tokens an answer", block.mean_length_tokens, tokens),
        ("stop rate {}", block.stop_rate, percent),
    ]
    return [words.format(form(figure.value)) for words, figure, form in named if figure]


def summary_columns(report: RunReport) -> list[str]:
    """Headings of ``summary_rows``: what was measured of any policy."""
    rates = [rate for name in report.policies if (rate := win_rate_against_sft(report, name))]
    by = by_whom(report, rates[0]) if rates else ""
    headings = {key: heading + (by if key == "win_rate" else "") for key, heading in SUMMARY.items()}
    return ["policy", *(headings[key] for key in _summary_keys(report))]


def summary_rows(report: dict[str, Any] | RunReport) -> list[list[str]]:
    """One row of ``summary_columns`` for each policy of the run."""
    checked = report if isinstance(report, RunReport) else validate_report(report)
    keys = _summary_keys(checked)
    names = [name for name in POLICIES if name in checked.policies]
    return [[POLICY_LABELS[name], *(_summary_cell(checked, name, key) for key in keys)] for name in names]


def _summary_keys(report: RunReport) -> list[str]:
    measured = {column.key for column in measured_columns(report)}
    if any(win_rate_against_sft(report, name) for name in report.policies):
        measured.add("win_rate")
    return [key for key in SUMMARY if key in measured]


def _summary_cell(report: RunReport, name: PolicyName, key: str) -> str:
    if key == "win_rate":
        rate = win_rate_against_sft(report, name)
        if rate is None:
            return NONE
        spread = f" ({interval(rate.ci95, percent)})" if report.judge is None else ""
        return percent(rate.win_rate) + spread
    form = next(column.form for column in FIGURES if column.key == key)
    return number(getattr(report.policies[name], key), form)


def score_rows(report: RunReport) -> list[list[str]]:
    """One row of ``SCORE_COLUMNS`` for each policy and each reward model that scored its answers."""
    return [list(row) for row in _score_rows(report)]


def _score_rows(report: RunReport) -> Iterator[tuple[str, str, str, str]]:
    for name in POLICIES:
        for key, heading, form in REWARDS if name in report.policies else ():
            block = report.policies[name]
            if score := getattr(block, key):
                change = getattr(block.less_sft, key)
                less = with_interval(change, signed(form)) if change else NONE
                yield POLICY_LABELS[name], heading.split()[0].lower(), with_interval(score, form), less


class Tile(NamedTuple):
    """One of the numbers at the top."""

    label: str
    before: str
    """SFT's figure; empty where there is none to compare with."""
    after: str
    """The last policy's."""
    interval: str
    difference: str
    """The last policy's less SFT's, with its interval; empty where that was not measured."""


def tiles(report: RunReport) -> list[Tile]:
    """Up to four numbers: the win rate, what the judge found, else what the reward models did, else KL and length."""
    name = final_policy(report)
    before, after = report.policies.get("sft"), report.policies[name]
    found = []
    if rate := win_rate_against_sft(report, name):
        label = f"Win rate against SFT{by_whom(report, rate)}"
        found.append(Tile(label, "", percent(rate.win_rate), interval(rate.ci95, percent), ""))
    for key, label, form in (*JUDGED, *REWARDS, KL, LENGTH, STOPS):
        if new := getattr(after, key):
            old = getattr(before, key) if before is not None and name != "sft" and key != KL.key else None
            change = getattr(after.less_sft, key, None)
            difference = with_interval(change, signed(form)) if change else ""
            earlier = form(old.value) if old is not None else ""
            found.append(Tile(label, earlier, form(new.value), interval(new.ci95, form), difference))
    return found[:4]
