"""What looks on while PPO trains: snapshots, the guard, the KL budget. Nothing here trains.

Snapshots are answers to prompts that are not trained on and that no report is made on (selection prompts), written
down every few updates, with what the reward models and the guard say. Training only writes them; ``stages.evaluate``
reads them and asks the judge, so that the judge stays out of training. They are drawn at the temperature of the
evaluation, so that both show the same policy.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.data.jsonl_and_raw_rows import write_jsonl
from alignment.data.records import JudgedAnswer
from alignment.errors import UserError
from alignment.models.backbone import Role
from alignment.models.scorers.scorer_protocol import RewardScorer
from alignment.reward.gate import gate_named
from alignment.rl.health.health_history import HealthSettings, MetricsRow
from alignment.rl.health.health_watch import HealthWatch
from alignment.rl.heldout_answers import HeldoutScores, Snapshot, best_of, measure_policy, overoptimized, read_snapshots
from alignment.rl.ppo import PPO
from alignment.run.stage_records import CHECKPOINTS
from alignment.settings.ppo_sections import PPOSection
from alignment.settings.recipe import Recipe
from alignment.workflow.training_prompts import selected_by


class Snapshots:
    """Samples the policy on a fixed set of selection prompts every ``ppo.snapshot_every_updates`` updates."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        trainer: PPO,
        prompts: Sequence[EncodedPrompt],
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
        self.selected_by = selected_by(recipe)
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
                self.trainer.policy,
                self.prompts,
                self.sampling,
                sft=Role(self.trainer.backbone, None),
                reward_models=self.models,
            )
        # Write the answers down beside those taken before.
        scores = self._gated(rows)
        for asked, row, score in zip(self.prompts, rows, scores, strict=True):
            assert row.kl_nats is not None
            item = Snapshot(
                update=update,
                prompt=asked.prompt,
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


def check_can_watch(settings: PPOSection, *, n_prompts: int, guarded: bool) -> None:
    """Refuse settings that would do nothing.

    Args:
        settings: of PPO.
        n_prompts: selection prompts that there are.
        guarded: whether there is a guard.

    Raises:
        UserError: the best snapshot is to be kept, or a guard to stop PPO, and there is none.
    """
    snapshots = n_prompts > 0 and settings.snapshot_every_updates > 0 and settings.snapshot_prompts > 0
    if settings.keep == "best" and not snapshots:
        raise UserError("ppo.keep=best needs snapshots: ppo.snapshot_every_updates and data.selection_prompts")
    if settings.on_overoptimization == "stop" and not (snapshots and guarded):
        raise UserError(
            "ppo.on_overoptimization=stop needs a guard (reward.guard_share, when the reward models are trained) "
            "and snapshots (ppo.snapshot_every_updates, data.selection_prompts)"
        )


class TrainingWatch:
    """Takes the snapshots, keeps the best policy, and says when to stop."""

    def __init__(
        self, recipe: Recipe, folder: Path, trainer: PPO, snapshots: Snapshots, *, say: Callable[[str], None]
    ) -> None:
        self.settings = recipe.ppo
        self.folder = folder
        self.trainer = trainer
        self.snapshots = snapshots
        self.say = say
        self.health = HealthWatch(HealthSettings.from_sections(recipe.ppo, recipe.model.lora))
        self.said: list[str] = []
        self.reasons: list[str] = []
        """Why training is to stop before its last update; empty: it is not."""
        self.rolls_back = False
        """Whether the best snapshot replaces the last update's policy, as this one is over-optimised."""

    def best_folder(self, update: int) -> Path:
        """Where the policy of a snapshot that was the best lies until the stage is finished."""
        return self.folder / CHECKPOINTS / f"best-{update:06d}"

    def forget_others(self) -> None:
        """Remove what was the best once, after a checkpoint that knows the present one: nothing goes back behind it."""
        if not self.trainer.processes.is_main:
            return
        best = best_of(self.snapshots.scores())
        for folder in (self.folder / CHECKPOINTS).glob("best-*"):
            if best is None or folder != self.best_folder(best.update):
                shutil.rmtree(folder)

    @property
    def keeps_best(self) -> bool:
        """Whether the policy of the best snapshot may be wanted in the end."""
        return self.settings.keep == "best" or self.settings.on_overoptimization == "stop"

    def look(self, update: int, metrics: dict[str, float]) -> None:
        """Look at the policy after an update (0: before the first).

        All processes come to the same ``reasons``; only the main one samples and writes.
        """
        reason = self._look(update, metrics) if self.trainer.processes.is_main else None
        shared = self.trainer.processes.from_main(reason)
        self.reasons += [shared] if shared else []

    def _look(self, update: int, metrics: dict[str, float]) -> str | None:
        for finding in self.health.observe({"update": update, **metrics}) if metrics else []:
            self._tell(str(finding))
        taken = len(self.snapshots.taken)
        if self.snapshots.take(update) and self.keeps_best:
            self.trainer.save_policy(self.best_folder(update))
        if len(self.snapshots.taken) > taken and (warning := overoptimized(self.snapshots.scores())):
            self._tell(f"update {update}: {warning}")
            if self.settings.on_overoptimization == "stop":
                self.rolls_back = True
                return warning
        budget = self.settings.kl_budget_nats
        if budget is not None and metrics.get("objective/kl", 0.0) >= budget:
            reason = f"KL of {metrics['objective/kl']:.2f} nats has reached ppo.kl_budget_nats={budget:g}"
            self._tell(f"update {update}: {reason}")
            return reason
        return None

    def _tell(self, message: str) -> None:
        self.said.append(message)
        self.say(message)

    def go_on_after(self, rows: Sequence[MetricsRow]) -> None:
        """Know the updates before a stop, so that what was said about them is not said again."""
        for row in rows:
            self.health.observe(row)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"reasons": self.reasons, "said": self.said, "rolls_back": self.rolls_back}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.reasons, self.said = list(state["reasons"]), list(state["said"])
        self.rolls_back = state["rolls_back"]

    def save_policy(self) -> dict[str, Any]:
        """Write the policy to keep into the stage's folder; returns which it is and why."""
        best = best_of(self.snapshots.scores())
        if best is not None and (self.rolls_back or self.settings.keep == "best"):
            for file in self.best_folder(best.update).iterdir():
                shutil.copy2(file, self.folder / file.name)
            kept = f"the best snapshot, update {best.update}"
        else:
            self.trainer.save_policy(self.folder)
            kept = "the last update"
        selection = {"prompts": len(self.snapshots.prompts), "from": self.snapshots.selected_by}
        return {"policy": kept, "stopped_early": self.reasons or None, "said": self.said, "selection": selection}
