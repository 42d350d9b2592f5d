"""Answers to held-out prompts, written down every few updates of PPO, with what the reward models and the guard say.

Training only writes them; ``stages.evaluate`` reads them and asks the judge, so that the judge stays out of training.
They are drawn at the temperature of the evaluation, so that both show the same policy.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alignment.data.jsonl import write_jsonl
from alignment.data.records import JudgedAnswer, Prompt, Snapshot
from alignment.models.scorers.reward_scorer import RewardScorer
from alignment.reward.gate import gate_named
from alignment.rl.overoptimization import HeldoutScores, best_of
from alignment.rl.policy_measurement import measure_policy
from alignment.rl.ppo import PPO
from alignment.run.stage_run import read_snapshots
from alignment.settings.recipe import Recipe


class Snapshots:
    """Samples the policy on a fixed set of held-out prompts every ``ppo.snapshot_every_updates`` updates."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        trainer: PPO,
        prompts: Sequence[Prompt],
        *,
        guard: RewardScorer | None = None,
    ) -> None:
        self.every = recipe.ppo.snapshot_every_updates
        self.file = folder / "heldout_samples.jsonl"
        self.trainer = trainer
        self.models = {**trainer.reward_models, **({"guard": guard} if guard is not None else {})}
        self.sampling = recipe.ppo.sampling.model_copy(update={"temperature": recipe.evaluate.sampling.temperature})
        count = min(recipe.ppo.snapshot_prompts, len(prompts))
        self.prompts = random.Random(recipe.seed).sample(list(prompts), count)
        self.taken: list[Snapshot] = []

    def take(self, update: int) -> bool:
        """Sample, score and write, if this update is one of those; training goes on as if nothing had been drawn.

        Returns:
            Whether a snapshot was taken and is the best so far.
        """
        # Most updates take no snapshot.
        if not self.prompts or not self.every or update % self.every:
            return False
        # Sample and score with random numbers apart from those of the training.
        with torch.random.fork_rng():
            torch.manual_seed(self.trainer.seed * 2**20 + update)
            rows = measure_policy(
                self.trainer.policy.backbone,
                self.trainer.policy.adapter,
                self.prompts,
                self.sampling,
                sft_backbone=self.trainer.backbone,
                reward_models=self.models,
            )
        # Write the answers down beside those taken before.
        scores = self._gated(rows)
        for prompt, row, score in zip(self.prompts, rows, scores, strict=True):
            assert row.kl_nats is not None
            item = Snapshot(
                update=update,
                prompt=prompt,
                answer=row.answer,
                kl_nats=row.kl_nats,
                score=score,
                guard=row.reward_guard,
            )
            self.taken.append(item)
        write_jsonl(self.file, self.taken)
        # See whether this snapshot is the best so far.
        best = best_of(self.scores())
        return best is not None and best.update == update

    def _gated(self, rows: Sequence[JudgedAnswer]) -> list[float]:
        safety = [row.reward_safety for row in rows]
        gated = gate_named(self.trainer.settings.gate)(
            torch.tensor([row.reward_helpfulness for row in rows]),
            None if None in safety else torch.tensor(safety),
            torch.tensor([row.dimension == "safety" for row in rows]),
            threshold_probability=self.trainer.settings.safety_threshold,
        )
        scores: list[float] = gated.scores.tolist()
        return scores

    def scores(self) -> list[HeldoutScores]:
        """What the reward models and the guard said, snapshot by snapshot."""
        updates: dict[int, list[Snapshot]] = {}
        for item in self.taken:
            updates.setdefault(item.update, []).append(item)
        found = []
        for update, rows in updates.items():
            guards = tuple(row.guard for row in rows if row.guard is not None)
            found.append(HeldoutScores(update, tuple(row.score for row in rows), guards or None))
        return found

    def state_dict(self) -> dict[str, Any]:
        """How far they have got; the answers themselves are in the file."""
        return {"last_update": max((item.update for item in self.taken), default=-1)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Forget what was taken after a checkpoint: it will be taken again."""
        if not self.trainer.processes.is_main:
            return  # only the main process takes any
        taken = read_snapshots(self.file)
        self.taken = [item for update, rows in taken.items() if update <= state["last_update"] for item in rows]
        if taken:
            write_jsonl(self.file, self.taken)
