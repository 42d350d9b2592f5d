"""What was compared with what, who judged, and what the result means: the first paragraph of a run's report."""

from __future__ import annotations

from alignment.report.blocks_and_reward_schema import FigureBlock
from alignment.report.headline_and_summary import REWARDS, final_policy, sample_size, win_rate_against_sft
from alignment.report.number_formats import SPACE, count, decimal, interval, percent, signed, with_interval
from alignment.report.run_report_schema import POLICIES, POLICY_LABELS, RunReport, WinRateBlock

MADE_BY = {
    "base": "the model before fine-tuning",
    "sft": "fine-tuned on demonstrations",
    "rejection": "fine-tuned on the answers that the reward models scored best",
    "ppo": "trained to raise the reward models' scores",
}
WORDS_95 = f"95{SPACE}% interval"


def first_paragraph(report: RunReport) -> str:
    """A few plain sentences."""
    return " ".join([_who_answered(report), _who_judged(report), *_what_it_means(report)])


def judges(report: RunReport) -> dict[str, list[WinRateBlock]]:
    """Judge -> the comparisons that it decided, the report's own judge first."""
    names = sorted(dict.fromkeys(rate.judge for rate in report.win_rates), key=lambda name: name != report.judge)
    return {name: [rate for rate in report.win_rates if rate.judge == name] for name in names}


def what_parted(report: RunReport) -> str:
    """Whether reward and judge part, with the changes behind it; empty where no judge or guard saw the snapshots."""
    found = report.curves.parting
    if found is None:
        return ""
    changes = (
        f"from update {found.best_update}, the best snapshot to the {found.judge}, to {found.last_update}, the reward "
        f"changes by {_change(found.reward_change)}, and what the {found.judge} says by {_change(found.judge_change)}"
    )
    if found.is_overoptimization:
        return f"Over-optimisation: {changes}. The one rises and the other falls, both by more than chance."
    return f"The two do not part by more than chance: {changes}."


def _change(figure: FigureBlock) -> str:
    return with_interval(figure, signed(decimal))


def _who_answered(report: RunReport) -> str:
    """Which policies, how many prompts, and how often each was answered."""
    policies = [f"{POLICY_LABELS[name]} ({MADE_BY[name]})" for name in POLICIES if name in report.policies]
    who = f"{', '.join(policies[:-1])} and {policies[-1]} each answered" if policies[1:] else f"{policies[0]} answered"
    rounds = f"{count(report.rounds, 'round')} of training, seed {report.seed}"
    return f"{who} the same {sample_size(report)} ({rounds})."


def _who_judged(report: RunReport) -> str:
    """Who judged the answers; without a judge, what the reward models' scores are worth."""
    if report.judge is not None:
        return f"The {report.judge}, which takes no part in training, judged the answers."
    nobody = "Nobody judged these answers: there is no gold judge for this data."
    scored = [key for key, _, _ in REWARDS if any(getattr(block, key) for block in report.policies.values())]
    if not scored:
        return f"{nobody} No reward model scored them either."
    models = "reward models" if len(scored) > 1 else "reward model"
    scores = f"{nobody} What stands here is how the {models} of this run scored them."
    if others_paid(report):
        return f"{scores} Only people can say whether the answers are better."
    return (
        f"{scores} Training raises such scores: where they rise, it worked, but only people can say whether "
        "the answers are better."
    )


def others_paid(report: RunReport) -> bool:
    """Whether every policy was paid by other reward models than the run's own alone."""
    blocks = (report.paid_by or {}).values()
    names = [name for block in blocks for name in (*block.helpfulness, *block.safety)]
    own = f"round-{report.rounds}/reward/"
    return bool(names) and not any(name.startswith(own) for name in names)


def _what_it_means(report: RunReport) -> list[str]:
    """The last policy against SFT, with intervals."""
    name = final_policy(report)
    label, found = POLICY_LABELS[name], []
    # How often its answers are the better ones.
    if rate := win_rate_against_sft(report, name):
        low, high = rate.ci95
        share = f"{percent(rate.win_rate)} of {count(rate.n, 'pair')}"
        told_apart = "more than chance explains" if low > 0.5 or high < 0.5 else "no more than chance explains"
        found.append(
            f"By the {rate.judge}, {label}'s answer is the better one in {share} with SFT's ({WORDS_95} "
            f"{interval(rate.ci95, percent)}; a tie counts one half, 50{SPACE}% is no difference): {told_apart}."
        )
    # Without a judge, by how much its scores differ.
    scores = [(heading.lower(), getattr(report.policies[name].less_sft, key)) for key, heading, _ in REWARDS]
    changes = [f"{heading} {with_interval(change, signed(decimal))}" for heading, change in scores if change]
    if report.judge is None and changes:
        found.append(f"Answer by answer, {label} less SFT: {', '.join(changes)}.")
    return found
