"""PPO: batches, rates, losses, the price of the KL, advantages, snapshots, checkpoints and reward models."""

from __future__ import annotations

import hashlib
import math
import statistics
from pathlib import Path
from typing import Any

import torch
from knob_bench import Bench, Knob, Stand, Turned, Watch, rows_of
from knob_data import GATE, OWN_PAIRS
from knobs_of_rejection import DECODED, LONGEST, TOGETHER, most

from alignment.models.scorers.load_reward_models import Ensemble
from alignment.rl import ppo as ppo_module
from alignment.rl.ppo import PPO
from stages.ppo import keeper, training_watch
from stages.ppo.__main__ import main

BENCH = "ppo"
STAGE = "round-1/ppo"
ONLY_PPO = (*OWN_PAIRS, "ppo.method=ppo")
SINGLE = 1e-4
"""By how much sums and differences in single precision may be off."""
SHARE_SEED = 2
"""Of the split of the prompts that select, whatever the run's own."""


# -- what is kept -----------------------------------------------------------------------------------------------------


def sampled(given: tuple[Any, ...], _: Any, found: Any) -> dict[str, Any]:
    """The batch of an update."""
    _, prompts, _ = given
    return {
        "prompts": len(prompts),
        "safety": sum(item.dimension == "safety" for item in prompts),
        "longest": int(found.response_lengths.max()),
    }


@torch.no_grad()
def scored(given: tuple[Any, ...], _: Any, found: Any) -> dict[str, Any]:
    """The first answer's log-probability and its logits, one unpadded sequence; and where the scores are from."""
    trainer, episodes = given
    prompt, length = int(episodes.prompt_lengths[0]), int(episodes.lengths[0])
    ids = episodes.token_ids[:1, :length]
    role = trainer.policy
    with role.backbone.role(role.adapter):
        logits = role.backbone.base(input_ids=ids).logits[0, prompt - 1 : length - 1].double()
    return {
        "logprob": found.old_logprobs[0].sum().item(),
        "logits": logits,
        "tokens": ids[0, prompt:],
        "folders": {name: [str(path) for path in model.folders] for name, model in trainer.reward_models.items()},
        "safety": found.safety,
    }


def gated(given: tuple[Any, ...], _: Any, found: Any) -> dict[str, Any]:
    """Both scores, which prompts are about safety, who stopped, and what became of the scores."""
    rollout = given[1]
    return {
        "helpfulness": rollout.helpfulness.tolist(),
        "safety": None if rollout.safety is None else rollout.safety.tolist(),
        "is_safety": rollout.episodes.is_safety.tolist(),
        "stopped": rollout.episodes.stopped.tolist(),
        "raw": found.raw_scores.tolist(),
        "scores": found.scores.tolist(),
    }


def paid(given: tuple[Any, ...], _: Any, found: Any) -> float:
    """The price of a nat: of the token, not the last of its answer, where policy and reference differ most."""
    rollout = given[1].rollout
    differences = rollout.old_logprobs - rollout.ref_logprobs
    places = torch.arange(differences.shape[1]) < rollout.episodes.response_lengths[:, None] - 1
    differences = differences * places
    place = differences.abs().argmax()
    return -(found.flatten()[place] / differences.flatten()[place]).item()


def returned(given: tuple[Any, ...], _: Any, found: Any) -> dict[str, Any]:
    """Rewards and values by answer, without padding, and the returns."""
    _, rollout, rewards = given
    lengths = rollout.episodes.response_lengths.tolist()

    def rows(tensor: Any) -> list[list[float]]:
        return [row[:length] for row, length in zip(tensor.tolist(), lengths, strict=True)]

    return {"rewards": rows(rewards), "values": rows(rollout.old_values), "returns": rows(found.returns)}


def updated(given: tuple[Any, ...], _: Any, __: Any) -> dict[str, Any]:
    """The optimiser's groups, what the value function is, and whether the policy is as it began."""
    trainer = given[0]
    value = "head" if trainer.value is None else "model" if trainer.value.adapter is None else "adapter"
    ups = [parameter for parameter in trainer.policy_parameters[1::2]]
    return {
        "rates": [group["initial_lr"] for group in trainer.optimizer.param_groups],
        "decays": [group["weight_decay"] for group in trainer.optimizer.param_groups],
        "value": value,
        "value_weights": sum(parameter.numel() for parameter in trainer.value_parameters),
        "at rest": all(not parameter.any() for parameter in ups),
    }


def pieces(given: tuple[Any, ...], _: Any, found: Any) -> dict[str, Any]:
    """Rows of a micro-batch, and the gradient that its value loss gives the value function."""
    trainer, _, _, rows = given
    gradients = torch.autograd.grad(found[0]["value"], trainer.value_parameters, retain_graph=True, allow_unused=True)
    flat = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, trainer.value_parameters, strict=True)]
    return {"rows": len(rows), "gradient": torch.cat([part.flatten() for part in flat])}


def clipped(given: tuple[Any, ...], options: dict[str, Any], found: Any) -> dict[str, Any]:
    """What a clipped loss was made of, token by token, and what it was."""
    *tensors, mask = given
    return {
        "tokens": list(zip(*(tensor[mask].tolist() for tensor in tensors), strict=True)),
        "n": options["n_tokens"],
        "loss": found.loss.item(),
    }


def norms(given: tuple[Any, ...], _: Any, found: Any) -> tuple[float, float]:
    """Norm of the gradients before and after they were clipped."""
    parts = [parameter.grad.norm() for parameter in given[0] if parameter.grad is not None]
    return float(found), float(torch.stack(parts).norm()) if parts else 0.0


def combined(given: tuple[Any, ...], options: dict[str, Any], found: Any) -> dict[str, Any]:
    """What each of several models says, and what is made of it."""
    ensemble, dialogues = given
    scores = [model.score(dialogues, batch_size=options["batch_size"]).tolist() for model in ensemble.models]
    return {"scores": scores, "found": found.scores.tolist()}


def saved(given: tuple[Any, ...], _: Any, __: Any) -> dict[str, Any]:
    """The step of a checkpoint, and the steps of those that are there then."""
    folder, step, _ = given
    return {"step": step, "there": sorted(int(path.name.partition("-")[2]) for path in folder.glob("step-*"))}


def gone_astray(scores: Any) -> str | None:
    """Stands in for what the guard finds: at the second snapshot, the policy has gone astray."""
    return "planted" if len(scores) > 1 else None


LOOKS = (
    Watch(PPO, "sample", sampled),
    Watch(PPO, "score", scored),
    Watch(PPO, "gate", gated),
    Watch(PPO, "token_rewards", paid),
    Watch(PPO, "advantages", returned),
    Watch(PPO, "_losses", pieces),
    Watch(PPO, "_minibatch_step", lambda given, _, found: {"rows": len(given[3]), **found}),
    Watch(PPO, "update", updated),
    Watch(ppo_module, "clipped_policy_loss", clipped),
    Watch(ppo_module, "clipped_value_loss", clipped),
    Watch(torch.nn.utils, "clip_grad_norm_", norms),
    Watch(keeper, "save_checkpoint", saved),
    DECODED,
)
ENSEMBLE = "ppo.reward_models.helpfulness=[{scored}/round-1/reward/helpfulness,{scored}/round-1/reward/safety]"
OPINIONS = Watch(Ensemble, "judge", combined)
BENCHES = {
    BENCH: Bench(main, "scored", ONLY_PPO, watches=LOOKS),
    "ppo method": Bench(main, "scored", (*OWN_PAIRS, "ppo.updates=1")),
    "ppo other": Bench(
        main,
        "scored",
        (*ONLY_PPO, "plugins=[{plugin}]", "ppo.updates=1"),
        watches=(Watch(PPO, "update", updated), Watch(PPO, "score", scored), Watch(PPO, "gate", gated)),
    ),
    "ppo steered": Bench(
        main,
        "scored",
        (
            *ONLY_PPO,
            ENSEMBLE,
            "ppo.reward_models.combine=cautious",
            "ppo.kl_control=adaptive",
            "ppo.updates=4",
            "ppo.learning_rate=0.02",
            "ppo.snapshot_every_updates=1",
            "ppo.snapshot_prompts=500",
            "data.selection_prompts=null",
        ),
        watches=(OPINIONS,),
    ),
    "ppo astray": Bench(
        main,
        "guarded",
        (*ONLY_PPO, ENSEMBLE, "reward.guard_share=0.5", "ppo.updates=3", "ppo.snapshot_every_updates=1"),
        watches=(OPINIONS,),
        stands=(Stand(training_watch, "overoptimized", gone_astray),),
    ),
}


# -- what the runs are to show, by hand -------------------------------------------------------------------------------


def ppo_metrics(turned: Turned) -> list[dict[str, Any]]:
    return turned.rows(f"{STAGE}/metrics.jsonl")


def minibatch_count(turned: Turned, *, epochs: int | None = None, size: int | None = None) -> int:
    """Optimiser steps of all updates."""
    passes = turned.given("ppo.epochs") if epochs is None else epochs
    rows = turned.given("ppo.minibatch_size_episodes") if size is None else size
    return int(turned.given("ppo.updates") * passes * turned.given("ppo.batch_size_episodes") / rows)


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


KNOBS = [
    Knob(
        "data.selection_prompts",
        BENCH,
        ("{selection_prompts}", "{selection_prompts_b}"),
        see=lambda turned: snapshot_prompts_from(turned, ("selection_prompts", "selection_prompts_b")),
        law=lambda value, _: {Path(value).stem},
        says="the file of the snapshots' prompts",
    ),
    Knob(
        "data.selection_share",
        "ppo steered",
        (0.2, 0.5),
        see=lambda turned: turned.result(STAGE)["selection"]["prompts"],
        law=lambda value, turned: n_selecting(turned, value),
        says="prompts that the hash of their conversation selects",
    ),
    Knob(
        "ppo.method",
        "ppo method",
        ("rejection", "ppo"),
        see=lambda turned: [
            name for name in ("rejection", "ppo") if (turned.run / "round-1" / name / "result.json").is_file()
        ],
        law=lambda value, _: [value],
        says="what is made",
    ),
    Knob(
        "ppo.train",
        "ppo other",
        ("lora", "full"),
        see=lambda turned: sorted(path.name for path in (turned.run / STAGE).glob("*.safetensors")),
        law=lambda value, _: ["adapter_model.safetensors" if value == "lora" else "model.safetensors"],
        says="an adapter, or a whole model",
    ),
    *(
        Knob(
            f"ppo.reward_models.{dimension}",
            "ppo other",
            values,
            see=lambda turned, dimension=dimension: folders_of(turned, dimension),
            law=lambda value, turned, dimension=dimension: expected_folders(turned, dimension, value),
            says="folders of the models that pay",
        )
        for dimension, values in {
            "helpfulness": (None, ["{scored}/round-1/reward/safety"]),
            "safety": (None, ["{scored}/round-1/reward/helpfulness"]),
        }.items()
    ),
    Knob(
        "ppo.reward_models.combine",
        "ppo astray",
        ("mean", "min"),
        see=lambda turned: [call["found"] for call in turned.kept["judge"]],
        law=lambda value, turned: as_one(turned, rule=value, caution=1.0),
        says="one score of two",
        within=SINGLE,
    ),
    Knob(
        "ppo.reward_models.caution",
        "ppo steered",
        (0.5, 2.0),
        see=lambda turned: [call["found"] for call in turned.kept["judge"]],
        law=lambda value, turned: as_one(turned, rule="cautious", caution=value),
        says="the mean less so many deviations",
        within=SINGLE,
    ),
    Knob(
        "ppo.updates",
        BENCH,
        (3, 4),
        see=lambda turned: [row["update"] for row in ppo_metrics(turned)],
        law=lambda value, _: list(range(1, value + 1)),
        says="a line of metrics for each update",
    ),
    Knob(
        "ppo.batch_size_episodes",
        BENCH,
        (8, 12),
        see=lambda turned: {item["prompts"] for item in turned.kept["sample"]},
        law=lambda value, _: {value},
        says="prompts of every update",
    ),
    Knob(
        "ppo.minibatch_size_episodes",
        BENCH,
        (4, 6),
        see=lambda turned: {item["rows"] for item in turned.kept["_minibatch_step"]},
        law=lambda value, _: {value},
        says="episodes of every optimiser step",
    ),
    Knob(
        "ppo.micro_batch_size_episodes",
        BENCH,
        (2, 3),
        see=lambda turned: {item["rows"] for item in turned.kept["_losses"]},
        law=lambda value, _: {value},
        says="episodes of every forward pass with gradient",
    ),
    Knob(
        "ppo.epochs",
        BENCH,
        (2, 3),
        see=lambda turned: len(turned.kept["_minibatch_step"]),
        law=lambda value, turned: minibatch_count(turned, epochs=value),
        says="so many times the steps of one pass",
    ),
    Knob(
        "ppo.learning_rate",
        BENCH,
        (1e-3, 2e-3),
        see=lambda turned: ppo_metrics(turned)[0]["policy/learning_rate"],
        law=lambda value, _: value,
        says="rate of the first update",
    ),
    Knob(
        "ppo.schedule",
        BENCH,
        ("constant", "linear"),
        see=lambda turned: [row["policy/learning_rate"] for row in ppo_metrics(turned)],
        law=lambda value, turned: rates_of_updates(turned, value),
        says="rate of each update",
    ),
    Knob(
        "ppo.value_learning_rate",
        BENCH,
        (None, 5e-3),
        see=lambda turned: turned.kept["update"][0]["rates"],
        law=lambda value, turned: [turned.given("ppo.learning_rate"), value or turned.given("ppo.learning_rate")],
        says="rates of policy and value function",
    ),
    Knob(
        "ppo.weight_decay",
        BENCH,
        (0.0, 0.37),
        see=lambda turned: turned.kept["update"][0]["decays"],
        law=lambda value, _: [value, value],
        says="decays of policy and value function",
    ),
    Knob(
        "ppo.max_grad_norm",
        BENCH,
        (0.05, 0.02),
        see=lambda turned: [after for _, after in turned.kept["clip_grad_norm_"]],
        law=lambda value, turned: [min(before, value) for before, _ in turned.kept["clip_grad_norm_"]],
        says="no gradient is longer than that",
        within=SINGLE,
    ),
    Knob(
        "ppo.clip_range",
        BENCH,
        (1e-4, 1e-5),
        see=lambda turned: [call["loss"] for call in turned.kept["clipped_policy_loss"]],
        law=lambda value, turned: slow_policy_loss(turned, value),
        says="the loss as the slow loop has it",
        within=1e-6,
    ),
    Knob(
        "ppo.value_clip_range",
        BENCH,
        (1e-3, 1e-4),
        see=lambda turned: [call["loss"] for call in turned.kept["clipped_value_loss"]],
        law=lambda value, turned: slow_value_loss(turned, value),
        says="the loss as the slow loop has it",
    ),
    Knob(
        "ppo.value_weight",
        BENCH,
        (0.5, 2.0),
        see=lambda turned: [step["value/grad_norm"] for step in turned.kept["_minibatch_step"]],
        law=lambda value, turned: value_gradient_norms(turned, value),
        says="so many times the gradient of the value loss",
        within=SINGLE,
    ),
    Knob(
        "ppo.kl_beta",
        BENCH,
        (0.05, 0.2),
        see=lambda turned: turned.kept["token_rewards"][-1],
        law=lambda value, turned: betas(turned, kl_beta=value)[-1],
        says="what a nat costs at the last update",
        within=SINGLE,
    ),
    Knob(
        "ppo.kl_control",
        BENCH,
        ("fixed", "adaptive"),
        see=lambda turned: [row["objective/beta"] for row in ppo_metrics(turned)],
        law=lambda value, turned: betas(turned, kl_control=value),
        says="the price at each update, by the controller's rule",
    ),
    Knob(
        "ppo.kl_target_nats",
        "ppo steered",
        (1e-9, 0.5),
        see=lambda turned: [row["objective/beta"] for row in ppo_metrics(turned)],
        law=lambda value, turned: betas(turned, kl_target_nats=value),
        says="the price at each update, by the controller's rule",
    ),
    Knob(
        "ppo.kl_horizon_episodes",
        "ppo steered",
        (8, 16),
        see=lambda turned: [row["objective/beta"] for row in ppo_metrics(turned)],
        law=lambda value, turned: betas(turned, kl_horizon_episodes=value),
        says="the price at each update, by the controller's rule",
    ),
    Knob(
        "ppo.kl_budget_nats",
        "ppo steered",
        (None, 1e-6),
        see=lambda turned: turned.result(STAGE)["updates"],
        law=lambda value, turned: updates_within(turned, value),
        says="updates until the KL has reached it",
    ),
    Knob(
        "ppo.gamma",
        BENCH,
        (1.0, 0.8),
        see=lambda turned: [update["returns"] for update in turned.kept["advantages"]],
        law=lambda value, turned: slow_returns(turned, gamma=value, lam=turned.given("ppo.gae_lambda")),
        says="returns as the sum over later errors has them",
        within=SINGLE,
    ),
    Knob(
        "ppo.gae_lambda",
        BENCH,
        (0.9, 0.5),
        see=lambda turned: [update["returns"] for update in turned.kept["advantages"]],
        law=lambda value, turned: slow_returns(turned, gamma=turned.given("ppo.gamma"), lam=value),
        says="returns as the sum over later errors has them",
        within=SINGLE,
    ),
    Knob(
        "ppo.value",
        "ppo other",
        ("head", "model"),
        see=lambda turned: turned.kept["update"][0]["value"],
        law=lambda value, _: value,
        says="what the value function reads",
    ),
    Knob(
        "ppo.safety_share",
        BENCH,
        (0.25, 0.75),
        see=lambda turned: {item["safety"] for item in turned.kept["sample"]},
        law=lambda value, turned: {round(value * turned.given("ppo.batch_size_episodes"))},
        says="safety prompts of every update",
    ),
    Knob(
        "ppo.gate",
        "ppo other",
        ("threshold", GATE),
        see=lambda turned: [update["raw"] for update in turned.kept["gate"]],
        law=lambda value, turned: through_the_gate(turned, gate=value),
        says="which of two scores counts",
    ),
    Knob(
        "ppo.safety_threshold",
        BENCH,
        (0.001, 0.999),
        see=lambda turned: [update["raw"] for update in turned.kept["gate"]],
        law=lambda value, turned: through_the_gate(turned, threshold=value),
        says="which of two scores counts",
    ),
    Knob(
        "ppo.missing_stop_penalty",
        BENCH,
        (0.5, 2.0),
        see=lambda turned: [update["scores"] for update in turned.kept["gate"]],
        law=lambda value, turned: shaped(turned, penalty=value),
        says="taken off whitened scores of answers that did not stop",
        within=SINGLE,
    ),
    Knob(
        "ppo.whiten_scores",
        "ppo other",
        (True, False),
        see=lambda turned: [update["scores"] for update in turned.kept["gate"]],
        law=lambda value, turned: shaped(turned, whitens=value),
        says="mean 0 and deviation 1, or as they are",
        within=SINGLE,
    ),
    Knob(
        "ppo.snapshot_every_updates",
        BENCH,
        (2, 1),
        see=lambda turned: list(snapshots(turned)),
        law=lambda value, turned: list(range(0, turned.given("ppo.updates") + 1, value)),
        says="updates with a snapshot",
    ),
    Knob(
        "ppo.snapshot_prompts",
        BENCH,
        (4, 3),
        see=lambda turned: {len(rows) for rows in snapshots(turned).values()},
        law=lambda value, _: {value},
        says="answers of every snapshot",
    ),
    Knob(
        "ppo.warmup_value_updates",
        BENCH,
        (1, 2),
        see=lambda turned: sum(update["at rest"] for update in turned.kept["update"]),
        law=lambda value, _: value,
        says="updates after which the policy is as it began",
    ),
    Knob(
        "ppo.keep",
        "ppo steered",
        ("last", "best"),
        see=lambda turned: turned.result(STAGE)["policy"],
        law=lambda value, turned: kept_policy(turned, value),
        says="the policy that is saved",
    ),
    Knob(
        "ppo.on_overoptimization",
        "ppo astray",
        ("warn", "stop"),
        see=lambda turned: [turned.result(STAGE)["updates"], turned.result(STAGE)["stopped_early"]],
        law=lambda value, _: [3, None] if value == "warn" else [1, ["planted"]],
        says="all updates, or none after the finding",
    ),
    Knob(
        "ppo.save_steps",
        BENCH,
        (1, 2),
        see=lambda turned: [item["step"] for item in turned.kept["save_checkpoint"]],
        law=lambda value, turned: list(range(value, turned.given("ppo.updates") + 1, value)),
        says="updates with a checkpoint",
    ),
    Knob(
        "ppo.save_total_limit",
        BENCH,
        (3, 1),
        see=lambda turned: max(len(item["there"]) for item in turned.kept["save_checkpoint"]),
        law=lambda value, _: value,
        says="most checkpoints at one time",
    ),
    Knob(
        "ppo.sampling.temperature",
        BENCH,
        (0.8, 1.3),
        see=lambda turned: [item["logprob"] for item in turned.kept["score"]],
        law=lambda value, turned: logprob_at(turned, value),
        says="log-probabilities as the slow loop has them at that temperature",
        within=SINGLE,
    ),
    Knob(
        "ppo.sampling.max_new_tokens",
        BENCH,
        (6, 5),
        see=most(LONGEST),
        law=lambda value, _: value,
        says="tokens of the longest answer",
    ),
    Knob(
        "ppo.sampling.batch_size_prompts",
        BENCH,
        (4, 5),
        see=most(TOGETHER),
        law=lambda value, _: value,
        says="most prompts decoded together",
    ),
]
