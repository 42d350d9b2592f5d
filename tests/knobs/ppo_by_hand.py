"""What PPO is to do by hand: slow loops over what a run was given and has left."""

from __future__ import annotations

import hashlib
import math
import statistics
from pathlib import Path
from typing import Any

import torch
from knob_bench import Turned, rows_of
from knob_data import GATE

STAGE = "round-1/ppo"
SHARE_SEED = 2
"""Of the split of the prompts that select, whatever the run's own."""


def ppo_metrics(turned: Turned) -> list[dict[str, Any]]:
    return turned.rows(f"{STAGE}/metrics.jsonl")


def minibatch_count(turned: Turned, epochs: int) -> int:
    """Optimiser steps of all updates."""
    batch, minibatch = (turned.given(f"ppo.{name}_size_episodes") for name in ("batch", "minibatch"))
    return int(turned.given("ppo.updates") * epochs * batch / minibatch)


def rates_of_updates(turned: Turned, schedule: str) -> list[float]:
    """Of each update: constant, or linear to 0 after the last."""
    rate, n = turned.given("ppo.learning_rate"), turned.given("ppo.updates")
    return [rate if schedule == "constant" else rate * (1 - done / n) for done in range(n)]


def slow_policy_loss(turned: Turned, epsilon: float) -> list[float]:
    found = []
    for call in turned.kept["clipped_policy_loss"]:
        total = 0.0
        for new, old, gain in call["tokens"]:
            ratio = math.exp(new - old)
            kept = min(max(ratio, 1 - epsilon), 1 + epsilon)
            total -= min(ratio * gain, kept * gain)
        found.append(total / call["n"])
    return found


def slow_value_loss(turned: Turned, epsilon: float) -> list[float]:
    found = []
    for call in turned.kept["clipped_value_loss"]:
        total = 0.0
        for new, old, wanted in call["tokens"]:
            kept = old + min(max(new - old, -epsilon), epsilon)
            total += 0.5 * max((new - wanted) ** 2, (kept - wanted) ** 2)
        found.append(total / call["n"])
    return found


def value_gradient_norms(turned: Turned, weight: float) -> list[float]:
    """Norm of the value function's gradient at each step: the weight times that of its loss, micro-batches added."""
    found, pieces_left = [], iter(turned.kept["_losses"])
    for step in turned.kept["_minibatch_step"]:
        rows, total = 0, torch.zeros(())
        while rows < step["rows"]:
            piece = next(pieces_left)
            rows, total = rows + piece["rows"], total + piece["gradient"]
        found.append(weight * float(total.norm()))
    return found


def slow_returns(turned: Turned, *, gamma: float, lam: float) -> list[list[list[float]]]:
    """G_t = V_t + sum over k of (gamma lambda)^k delta_(t+k)."""
    found = []
    for update in turned.kept["advantages"]:
        rows = []
        for rewards, values in zip(update["rewards"], update["values"], strict=True):
            after = [*values[1:], 0.0]
            deltas = [r + gamma * v_next - v for r, v_next, v in zip(rewards, after, values, strict=True)]
            rows.append(
                [
                    values[t] + sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:]))
                    for t in range(len(deltas))
                ]
            )
        found.append(rows)
    return found


def betas(turned: Turned, **changed: Any) -> list[float]:
    """The controller's price at each update, from the KL before it (Ziegler et al. 2019, section 2.2)."""
    names = ("kl_beta", "kl_control", "kl_target_nats", "kl_horizon_episodes")
    beta, control, target, horizon = (changed.get(n, turned.given(f"ppo.{n}")) for n in names)
    found = []
    for row in ppo_metrics(turned):
        found.append(beta)
        if control == "adaptive":
            error = min(max(row["objective/kl"] / target - 1, -0.2), 0.2)
            beta *= 1 + error * turned.given("ppo.batch_size_episodes") / horizon
    return found


def updates_within(turned: Turned, budget: float | None) -> int:
    """Updates up to the first whose KL reaches the budget."""
    kls = [row["objective/kl"] for row in ppo_metrics(turned)]
    reached = [place for place, kl in enumerate(kls, start=1) if budget is not None and kl >= budget]
    return reached[0] if reached else int(turned.given("ppo.updates"))


def through_the_gate(turned: Turned, *, threshold: float | None = None, gate: str | None = None) -> list[list[float]]:
    """Of each answer the score that counts."""
    threshold = turned.given("ppo.safety_threshold") if threshold is None else threshold
    gate = turned.given("ppo.gate") if gate is None else gate
    found = []
    for update in turned.kept["gate"]:
        rows = zip(update["helpfulness"], update["safety"], update["is_safety"], strict=True)
        found.append(
            [s if gate == GATE or tagged or 1 / (1 + math.exp(-s)) < threshold else h for h, s, tagged in rows]
        )
    return found


def shaped(turned: Turned, *, whitens: bool | None = None, penalty: float | None = None) -> list[list[float]]:
    """Scores with mean 0 and deviation 1 where asked for, then less the penalty where an answer did not stop."""
    whitens = turned.given("ppo.whiten_scores") if whitens is None else whitens
    penalty = turned.given("ppo.missing_stop_penalty") if penalty is None else penalty
    found = []
    for update in turned.kept["gate"]:
        raw = update["raw"]
        mean, deviation = (statistics.fmean(raw), statistics.pstdev(raw)) if whitens else (0.0, 1.0)
        found.append(
            [
                (score - mean) / deviation - (0.0 if stopped else penalty)
                for score, stopped in zip(raw, update["stopped"], strict=True)
            ]
        )
    return found


def logprob_at(turned: Turned, temperature: float) -> list[float]:
    """Log-probability of each update's first answer, from the logits of one unpadded sequence."""
    found = []
    for item in turned.kept["score"]:
        logprobs = (item["logits"] / temperature).log_softmax(-1)
        found.append(sum(logprobs[place, token].item() for place, token in enumerate(item["tokens"].tolist())))
    return found


def snapshots(turned: Turned) -> dict[int, list[dict[str, Any]]]:
    """Update -> what was written down at it."""
    taken: dict[int, list[dict[str, Any]]] = {}
    for row in turned.rows(f"{STAGE}/heldout_samples.jsonl"):
        taken.setdefault(row["update"], []).append(row)
    return taken


def snapshot_prompts_from(turned: Turned, names: tuple[str, ...]) -> set[str]:
    """The files that hold all prompts of the snapshots."""
    asked = {row["prompt"]["id"] for rows in snapshots(turned).values() for row in rows}
    return {name for name in names if asked <= {row["id"] for row in rows_of(turned.files[name])}}


def n_selecting(turned: Turned, share: float) -> int:
    """Training prompts whose first user turn falls into the share, by a hash of what it says."""
    count = 0
    for row in rows_of(turned.given("data.prompts")):
        first = next(message for message in row["messages"] if message["role"] == "user")
        key = hashlib.sha256(f"user: {' '.join(first['content'].lower().split())}".encode()).hexdigest()[:16]
        digest = hashlib.sha256(f"{SHARE_SEED}:{key}".encode()).digest()
        count += int.from_bytes(digest[:7], "big") / 2**56 < share
    return count


def kept_policy(turned: Turned, keep: str) -> str:
    """In words: the last update's, or that of the snapshot whose answers scored best, the earliest of equal ones."""
    if keep == "last":
        return "the last update"
    merits = {update: statistics.fmean(row["score"] for row in rows) for update, rows in snapshots(turned).items()}
    return f"the best snapshot, update {max(merits, key=lambda update: (merits[update], -update))}"


def folders_of(turned: Turned, dimension: str) -> list[str]:
    """The folders of the models that paid, none where there is no such model."""
    return [str(Path(path).resolve()) for path in turned.kept["score"][0]["folders"].get(dimension, [])]


def expected_folders(turned: Turned, dimension: str, value: list[str] | None) -> list[str]:
    own = [str((turned.run / "round-1" / "reward" / dimension).resolve())]
    return own if value is None else [str(Path(path).resolve()) for path in value]


def as_one(turned: Turned, *, rule: str, caution: float) -> list[list[float]]:
    """One score of several: their mean, the least, or the mean less so many deviations."""
    found = []
    for call in turned.kept["judge"]:
        row = []
        for scores in zip(*call["scores"], strict=True):
            mean = statistics.fmean(scores)
            row.append({"mean": mean, "min": min(scores)}.get(rule, mean - caution * statistics.pstdev(scores)))
        found.append(row)
    return found
