"""PPO on a tiny model with two reward models, and one batch of it, for tests."""

from __future__ import annotations

from typing import Any

import torch
from tiny import LORA, add_reward_model, add_role, encoded_prompts
from torch import Tensor, nn

from alignment.models.backbone import Backbone
from alignment.rl.ppo import PPO
from alignment.rl.ppo_math import Advantages
from alignment.rl.rollout import Rollout
from alignment.settings.ppo_sections import PPOSection
from alignment.settings.sections import SamplingSection

TEMPERATURE = 0.8
EPISODES = 12


def settings(**changes: Any) -> PPOSection:
    defaults: dict[str, Any] = {
        "batch_size_episodes": EPISODES,
        "minibatch_size_episodes": EPISODES,
        "micro_batch_size_episodes": 4,
        "learning_rate": 1e-2,
        "kl_beta": 0.05,
        "sampling": SamplingSection(temperature=TEMPERATURE, max_new_tokens=6, batch_size_prompts=5),
    }
    return PPOSection(**{**defaults, **changes})


def trainer_on(backbone: Backbone, *, policy_seed: int | None = 0, **changes: Any) -> PPO:
    """PPO with two reward models; ``policy_seed=None`` starts from a fresh adapter."""
    models = {name: add_reward_model(backbone, name, seed=seed) for seed, name in enumerate(("helpfulness", "safety"))}
    if policy_seed is None:
        backbone.add_adapter("policy", LORA)
    else:
        add_role(backbone, "policy", seed=policy_seed)
    return PPO(backbone, models, settings(**changes), seed=0)


def one_batch(trainer: PPO) -> tuple[Rollout, Advantages]:
    torch.manual_seed(0)
    rollout = trainer.score(trainer.sample(encoded_prompts(trainer.backbone, EPISODES), 1))
    return rollout, trainer.advantages(rollout, trainer.token_rewards(trainer.gate(rollout)))


def gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
