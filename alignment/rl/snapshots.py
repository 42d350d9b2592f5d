"""Answers to held-out prompts, written down every few updates of PPO.

Training only writes them; ``stages.evaluate`` reads them and asks the judge, so that the judge stays out of training.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch

from alignment.data.records import Prompt, Record, read_jsonl, write_jsonl
from alignment.masking import masked_sum
from alignment.recipe import Recipe
from alignment.rl.ppo import PPO
from alignment.rl.rollout import score_responses


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
        count = min(recipe.ppo.snapshot_prompts, len(prompts))
        self.prompts = random.Random(recipe.seed).sample(list(prompts), count)
        self.taken: list[Snapshot] = []

    def take(self, update: int) -> None:
        """Sample, score and write, if this update is one of those; training goes on as if nothing had been drawn."""
        if not self.prompts or not self.every or update % self.every:
            return
        with torch.random.fork_rng():
            episodes = self.trainer.sample(self.prompts)
        rollout = self.trainer.score(episodes)
        scores = self.trainer.gate(rollout).raw_scores.tolist()
        settings = self.trainer.settings
        sft = score_responses(
            self.trainer.backbone,
            None,
            episodes,
            temperature=settings.sampling.temperature,
            micro_batch_size=settings.micro_batch_size_episodes,
        )
        kl = masked_sum(rollout.old_logprobs - sft.logprobs, episodes.response_mask, dim=1).tolist()
        decode = self.trainer.backbone.encoder.decode
        for row, prompt in enumerate(episodes.prompts):
            answer = decode(episodes.response_ids(row))
            self.taken.append(Snapshot(update=update, prompt=prompt, answer=answer, kl_nats=kl[row], score=scores[row]))
        write_jsonl(self.file, self.taken)
