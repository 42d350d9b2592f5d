"""Answers to held-out prompts, written down every few updates of PPO.

Training only writes them; ``stages.evaluate`` reads them and asks the judge, so that the judge stays out of training.
They are drawn at the temperature of the evaluation, so that both show the same policy.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch

from alignment.data.records import Prompt, Record, read_jsonl, write_jsonl
from alignment.measuring import measure_policy
from alignment.recipe import Recipe
from alignment.reward.gate import gate
from alignment.rl.ppo import PPO


class Snapshot(Record):
    """One answer of the policy at one update, with its KL to the SFT model."""

    update: int
    prompt: Prompt
    answer: str
    kl_nats: float
    score: float


def read_snapshots(file: Path) -> dict[int, list[Snapshot]]:
    """Update -> what was written down at it; empty without a file."""
    taken: dict[int, list[Snapshot]] = {}
    for item in read_jsonl(file, Snapshot)[0] if file.is_file() else []:
        taken.setdefault(item.update, []).append(item)
    return taken


class Snapshots:
    """Samples the policy on a fixed set of held-out prompts every ``ppo.snapshot_every_updates`` updates."""

    def __init__(self, recipe: Recipe, folder: Path, trainer: PPO, prompts: Sequence[Prompt]) -> None:
        self.every = recipe.ppo.snapshot_every_updates
        self.file = folder / "heldout_samples.jsonl"
        self.trainer = trainer
        self.sampling = recipe.ppo.sampling.model_copy(update={"temperature": recipe.evaluate.sampling.temperature})
        count = min(recipe.ppo.snapshot_prompts, len(prompts))
        self.prompts = random.Random(recipe.seed).sample(list(prompts), count)
        self.taken: list[Snapshot] = []

    def take(self, update: int) -> None:
        """Sample, score and write, if this update is one of those; training goes on as if nothing had been drawn."""
        if not self.prompts or not self.every or update % self.every:
            return
        with torch.random.fork_rng():
            rows = measure_policy(
                self.trainer.backbone,
                self.trainer.policy_role,
                self.prompts,
                self.sampling,
                sft_backbone=self.trainer.backbone,
                reward_models=self.trainer.reward_models,
            )
        scores = gate(
            torch.tensor([row.reward_helpfulness for row in rows]),
            torch.tensor([row.reward_safety for row in rows]),
            torch.tensor([row.dimension == "safety" for row in rows]),
            threshold_probability=self.trainer.settings.safety_threshold,
        ).scores.tolist()
        for prompt, row, score in zip(self.prompts, rows, scores, strict=True):
            assert row.kl_nats is not None
            self.taken.append(
                Snapshot(update=update, prompt=prompt, answer=row.answer, kl_nats=row.kl_nats, score=score)
            )
        write_jsonl(self.file, self.taken)
