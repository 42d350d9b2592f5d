"""What the knob tests of PPO keep of a run: of each call of its steps and its losses what a slow loop needs."""

from __future__ import annotations

from typing import Any

import torch


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


def stepped(given: tuple[Any, ...], _: Any, found: dict[str, float]) -> dict[str, Any]:
    """Episodes of an optimiser step, and its figures."""
    return {"rows": len(given[3]), **found}


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
