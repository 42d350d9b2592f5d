"""The health checks of PPO, one function each, and their thresholds: what is wrong, why it may be, and what helps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from alignment.rl.health.health_history import RECENT_UPDATES, START_UPDATES, History

Severity = Literal["warning", "error"]


@dataclass(frozen=True)
class Diagnosis:
    """What one check says about the latest update."""

    what: str
    likely_cause: str
    what_to_do: str
    severity: Severity = "warning"


MAX_RATIO_ERROR = 0.01
"""Of the mean ratio of one minibatch from 1; rounding in bfloat16 leaves 0.0001."""
MAX_FIRST_KL = 1e-3
"""Nats a token between two passes over the same tokens: rounding in bfloat16 leaves 1e-7 on the toy, a dropout of 0.05
leaves 0.04 in a model of random weights."""
MIN_KL = -0.05
"""Nats an answer; above it, rounding over a long answer may be the reason."""
KL_LOG_CHANCE, KL_UPDATES = 14.0, 5
"""A sound run is reported with a probability of exp(-14), one in a million; updates over which a little adds up."""
MAX_KL_PER_TOKEN = 0.5
"""Nats; the toy ends near 0.1. Beyond it, what is sampled is seldom what the reference would say."""
KL_JUMP, KL_JUMP_PER_TOKEN, KL_WINDOW = 4.0, 0.1, 10
"""A sudden rise: this many times the median of the last updates, and above what a run starts with, nats a token."""
MIN_ENTROPY_SHARE = 0.3
"""Of the entropy at the start; healthy runs keep more than half."""
VALUE_PATIENCE = 10
"""Updates in a row; a value function that has just started may be worse than a constant for a few."""
MIN_SCORE_STD_SHARE, MIN_SCORE_STD = 0.3, 1e-3
"""Of the spread at the start, healthy runs keep two thirds; and in units of the score, below which all are equal."""
MIN_STOP_RATE, MAX_STOP_DROP = 0.7, 0.2
"""Healthy runs stay above 0.95; with a penalty for not stopping, a falling rate is never wanted."""
LENGTH_RISE, LENGTH_CORRELATION, LENGTH_UPDATES = 1.5, 0.7, 15
"""Of the length at the start, where healthy runs reach 1.4; of length and score; updates that a correlation needs."""
MAX_REPETITION, MAX_REPETITION_RISE = 0.3, 0.15
"""Share of repeated 3-grams: prose has a few per cent, an answer caught in a loop nearly all."""
MIN_ADVANTAGE_STD, MIN_GRAD_NORM = 1e-6, 1e-8
"""Below these, nothing but rounding is left."""
MAX_CLIP_FRACTION = 0.3
"""Of the tokens; healthy runs clip a few per cent."""


def non_finite(history: History) -> Diagnosis | None:
    """A metric that is infinite or not a number."""
    keys = [key for key, value in history.rows[-1].items() if not math.isfinite(value)]
    if not keys:
        return None
    return Diagnosis(
        what=f"not finite: {', '.join(keys)}",
        likely_cause="the weights overflowed, so the learning rate is too high; or a reward model gives no number",
        what_to_do="lower ppo.learning_rate; where the scores are not finite, train the reward models again",
        severity="error",
    )


def first_ratio(history: History) -> Diagnosis | None:
    """A probability ratio that is not 1 before the first step of an update.

    Its mean over sampled tokens has expectation 1 whatever the second pass computes, so the KL between the two passes,
    where it is logged, shows more.
    """
    ratio, kl = history.now("policy/first_ratio_mean"), history.now_or("policy/first_approx_kl", 0.0)
    if abs(ratio - 1) <= MAX_RATIO_ERROR and kl <= MAX_FIRST_KL:
        return None
    settings = history.settings
    cause = (
        f"the pass of the update is not that of the rollout: another temperature than {settings.temperature:g} "
        "(ppo.sampling.temperature), other padding or positions, another adapter or number format"
    )
    remedy = "compute old and new log-probabilities by the same pass: same temperature, masks, adapter and dtype"
    if settings.lora_dropout > 0:
        cause = f"adapters in train mode, with dropout (model.lora.dropout={settings.lora_dropout:g}); or {cause}"
        remedy = f"keep the adapters in eval mode, or pass model.lora.dropout=0; {remedy}"
    apart = f"; the two passes are {kl:.2g} nats a token apart" if kl else ""
    return Diagnosis(
        what=f"the ratio is {ratio:.4f} in the first minibatch, before any step, instead of 1{apart}",
        likely_cause=cause,
        what_to_do=remedy,
        severity="error",
    )


def negative_kl(history: History) -> Diagnosis | None:
    """A KL to the reference clearly below 0, which no KL is: at the latest update, or less so over several.

    k1 is unbiased, so it may be negative by chance. But for answers drawn from the policy exp(-k1), the reference's
    probability over the policy's, has the mean 1: the mean k1 of n answers is below -x with a probability of at most
    exp(-n x), whatever the two distributions are (Chernoff's bound).
    """
    k1s, k3 = history.values("objective/kl"), history.now("objective/kl_k3")
    for n_updates in (1, KL_UPDATES):
        k1 = statistics.fmean(k1s[-n_updates:])
        n_answers = history.settings.batch_size_episodes * min(n_updates, len(k1s))
        if k1 < min(MIN_KL, -KL_LOG_CHANCE / n_answers):
            return Diagnosis(
                what=f"KL to the reference is {k1:.3g} nats an answer by k1, over {n_answers} answers, and {k3:.3g} by "
                f"k3; chance explains {-KL_LOG_CHANCE / n_answers:.2g} at most",
                likely_cause="answers are not drawn from the policy that the log-probabilities describe: top-k, top-p, "
                "a least length or another temperature while sampling, another adapter, or padding that is read",
                what_to_do="sample with the plain softmax at ppo.sampling.temperature, from the policy's own adapter; "
                "until then the policy is rewarded for what it does not do",
                severity="error",
            )
    return None


def kl_blowup(history: History) -> Diagnosis | None:
    """A KL to the reference that jumps, or that is high for every token."""
    kl = history.now("objective/kl")
    per_token = kl / max(history.now("rollout/length"), 1.0)
    before = history.before("objective/kl", KL_WINDOW)
    usual = statistics.median(before) if len(before) >= KL_WINDOW // 2 else math.inf
    jumped = kl > KL_JUMP * usual and per_token > KL_JUMP_PER_TOKEN
    if not jumped and per_token <= MAX_KL_PER_TOKEN:
        return None
    rise = f", after {usual:.2g} in the updates before" if jumped else ""
    beta = history.now_or("objective/beta", None)
    return Diagnosis(
        what=f"KL to the reference is {kl:.3g} nats an answer, {per_token:.2g} a token{rise}",
        likely_cause="the steps are too large, or the KL costs too little for what the reward models pay for text that "
        "they were never trained on",
        what_to_do="read the answers; lower ppo.learning_rate or ppo.epochs, or raise ppo.kl_beta"
        + ("" if beta is None else f" (now {beta:g})"),
    )


def entropy_collapse(history: History) -> Diagnosis | None:
    """An entropy far below where it started: nothing is left to explore."""
    start, recent = history.start_and_recent("objective/entropy")
    if recent >= MIN_ENTROPY_SHARE * start:
        return None
    return Diagnosis(
        what=f"entropy fell from {start:.3g} to {recent:.3g} nats a token",
        likely_cause="the policy has settled on a few answers that score well; too large a learning rate or too many "
        "epochs get it there before better ones were seen",
        what_to_do="lower ppo.learning_rate or ppo.epochs, raise ppo.kl_beta, or sample hotter "
        f"(ppo.sampling.temperature={history.settings.temperature:g})",
    )


def value_function(history: History) -> Diagnosis | None:
    """Values that are worse than a constant for long."""
    shares = history.values("value/explained_variance", at_least=VALUE_PATIENCE)[-VALUE_PATIENCE:]
    if max(shares) >= 0:
        return None
    return Diagnosis(
        what=f"explained variance was below 0 in {VALUE_PATIENCE} updates in a row, with a mean of "
        f"{statistics.fmean(shares):.2g}",
        likely_cause="the value function is on another scale than the returns, or learns too slowly or too fast",
        what_to_do="give it a start (ppo.warmup_value_updates=10) and another ppo.value_learning_rate; with ppo.value="
        "adapter it starts from raw scores, while whitened ones are paid: ppo.value=head starts from 0",
    )


def constant_scores(history: History) -> Diagnosis | None:
    """Scores that are all equal."""
    spread = history.now("objective/score_std")
    if spread >= MIN_SCORE_STD:
        return None
    return Diagnosis(
        what=f"all answers get the same score: their standard deviation is {spread:.2g}",
        likely_cause="a reward model gives the same score to everything, or all answers are the same",
        what_to_do="read the answers; look at the accuracy in the reward stage's result, and train the reward models "
        "again where it is near one half",
        severity="error",
    )


def score_saturation(history: History) -> Diagnosis | None:
    """Scores that differ much less than at the start, so that whitening amplifies their noise."""
    start, recent = history.start_and_recent("objective/score_std")
    if recent >= MIN_SCORE_STD_SHARE * start or history.now("objective/score_std") < MIN_SCORE_STD:
        return None
    return Diagnosis(
        what=f"the spread of the scores fell from {start:.3g} to {recent:.3g}, which whitening stretches to 1 again",
        likely_cause="the reward models can hardly tell the policy's answers apart any more: what is left is noise",
        what_to_do="stop here, or start a new round (rounds=N) with comparisons of the present policy's answers",
    )


def length_limit(history: History) -> Diagnosis | None:
    """Answers that are cut off instead of stopping."""
    rates = history.values("rollout/stop_rate")
    start, recent = statistics.fmean(rates[:START_UPDATES]), statistics.fmean(rates[-RECENT_UPDATES:])
    fell = recent < start - MAX_STOP_DROP
    if recent >= MIN_STOP_RATE and not fell:
        return None
    limit, length = history.settings.max_new_tokens, history.now("rollout/length")
    cause = "the model has not learned to stop, or its answers need more than fits"
    remedy = f"raise ppo.sampling.max_new_tokens={limit}, or train SFT for longer on answers with their stop token"
    if fell:
        cause = "longer answers score higher than the missing stop token costs"
        remedy = "raise ppo.missing_stop_penalty, and look at length_correlation in the reward stage's result"
    return Diagnosis(
        what=f"{recent:.0%} of the answers stop by themselves, {start:.0%} at the start; they have {length:.0f} tokens "
        f"of {limit} that fit",
        likely_cause=cause,
        what_to_do=remedy,
    )


def length_creep(history: History) -> Diagnosis | None:
    """Answers that grow longer in step with their score."""
    lengths = history.values("rollout/length", at_least=LENGTH_UPDATES)
    scores = history.values("objective/score", at_least=LENGTH_UPDATES)
    start, recent = history.start_and_recent("rollout/length")
    together = _correlation(lengths, scores)
    if recent < LENGTH_RISE * start or together < LENGTH_CORRELATION:
        return None
    return Diagnosis(
        what=f"answers grew from {start:.0f} to {recent:.0f} tokens, in step with their score (correlation "
        f"{together:.2f})",
        likely_cause="a reward model likes length, and the policy has found out",
        what_to_do="read the answers; where they only got longer, look at length_correlation in the reward stage's "
        "result, balance the comparisons for length, or raise ppo.kl_beta",
    )


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one of the two does not vary or a value is missing."""
    if len(first) != len(second) or len(set(first)) == 1 or len(set(second)) == 1:
        return 0.0
    return statistics.correlation(first, second)


def repetition(history: History) -> Diagnosis | None:
    """Answers that say the same again and again."""
    shares = history.values("rollout/repetition")
    start, now = statistics.fmean(shares[:START_UPDATES]), shares[-1]
    if now <= MAX_REPETITION and now <= start + MAX_REPETITION_RISE:
        return None
    return Diagnosis(
        what=f"{now:.0%} of an answer's 3-grams occurred before in it, {start:.0%} at the start",
        likely_cause="the policy is caught in loops; the reward models do not mind, having never seen such answers",
        what_to_do="read the answers; raise ppo.kl_beta or lower ppo.learning_rate; a new round (rounds=N) has such "
        "answers compared",
    )


def zero_advantages(history: History) -> Diagnosis | None:
    """Advantages that are all equal: there is nothing to learn from."""
    spread = history.now("advantages/std")
    if spread >= MIN_ADVANTAGE_STD:
        return None
    cause = "the rewards do not reach the advantages"
    remedy = "check that the score sits on the last token that counts, and that ppo.gamma is not 0"
    if history.now_or("objective/score_std", 1.0) < MIN_SCORE_STD:
        cause, remedy = "all answers get the same score", "see to the scores first"
    return Diagnosis(
        what=f"the advantages have a standard deviation of {spread:.2g} before whitening",
        likely_cause=cause,
        what_to_do=remedy,
        severity="error",
    )


def zero_policy_gradient(history: History) -> Diagnosis | None:
    """A policy without gradient, though there is something to learn from."""
    norm = history.now("policy/grad_norm")
    warming_up = history.now_or("update", math.inf) <= history.settings.warmup_value_updates
    nothing_to_learn = history.now_or("advantages/std", 1.0) < MIN_ADVANTAGE_STD
    if norm >= MIN_GRAD_NORM or warming_up or nothing_to_learn:
        return None
    return Diagnosis(
        what=f"the policy's gradient has a norm of {norm:.2g}",
        likely_cause="the policy's adapter is frozen, or another role is active in the pass of the update",
        what_to_do="check that the adapter's parameters require a gradient, and that the pass is under its role",
        severity="error",
    )


def clip_fraction(history: History) -> Diagnosis | None:
    """Steps so large that many of the tokens are clipped."""
    share = history.now("policy/clip_fraction")
    if share <= MAX_CLIP_FRACTION:
        return None
    kl = history.now_or("policy/approx_kl", None)
    moved = "" if kl is None else f"; one update moved the policy by {kl:.2g} nats a token"
    return Diagnosis(
        what=f"{share:.0%} of the tokens were clipped{moved}",
        likely_cause="the policy moves too far in one update: clipped tokens teach nothing, the others overshoot",
        what_to_do="lower ppo.learning_rate or ppo.epochs, or make minibatches larger",
    )


CHECKS: dict[str, Callable[[History], Diagnosis | None]] = {
    "non-finite": non_finite,
    "first ratio": first_ratio,
    "negative KL": negative_kl,
    "KL blow-up": kl_blowup,
    "entropy collapse": entropy_collapse,
    "value function": value_function,
    "constant scores": constant_scores,
    "score saturation": score_saturation,
    "length limit": length_limit,
    "length creep": length_creep,
    "repetition": repetition,
    "zero advantages": zero_advantages,
    "zero policy gradient": zero_policy_gradient,
    "clip fraction": clip_fraction,
}
"""Name of a check, as findings carry it, and its function."""
