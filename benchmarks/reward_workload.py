"""What the sides of the reward model benchmark are asked to do, how they are timed, and how they say what it took."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

from ppo_workload import CommandLine
from torch import nn
from transformers import TrainerCallback, trainer

ROLE = "reward"
MODEL, PAIRS = "model", "pairs.json"
"""In the folder that ``reward_pairs.py`` writes, beside a folder ``reward`` with adapter and head."""


@dataclass(frozen=True)
class RewardWork(CommandLine):
    """One pass over some preference pairs, from a folder that ``reward_pairs.py`` wrote."""

    folder: str = ""
    batch: int = 16
    """Pairs per optimiser step, all of them in one batch of the device."""
    learning_rate: float = 1e-3
    """So large that a wrong gradient shows in the losses of the next steps."""
    dtype: str = "float32"
    threads: int = 2


@dataclass(frozen=True)
class TokenPair:
    """A prompt and the two answers to it, as token ids."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True)
class Pairs:
    """What is trained on."""

    timed: list[TokenPair]
    grouped: list[int]
    """The same pairs in batches of similar length: indices of ``timed``."""
    warm_up: list[TokenPair]

    @classmethod
    def read(cls, folder: Path) -> Pairs:
        """From the folder of a benchmark."""
        found = json.loads((folder / PAIRS).read_text(encoding="utf-8"))
        timed, warm_up = ([TokenPair(*pair) for pair in found[name]] for name in ("timed", "warm_up"))
        return cls(timed, found["grouped"], warm_up)

    @property
    def in_groups(self) -> list[TokenPair]:
        """The timed pairs in batches of similar length."""
        return [self.timed[index] for index in self.grouped]


@dataclass
class Watch(TrainerCallback):
    """Sees a training from outside: when it began, when each step ended, its losses and what passed the model."""

    stamps: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    passes: int = 0

    def on_train_begin(self, *unused: Any, **unused_by_name: Any) -> None:
        """The clock starts."""
        self.stamps.append(time.perf_counter())

    def on_step_end(self, *unused: Any, **unused_by_name: Any) -> None:
        """The end of an optimiser step."""
        self.stamps.append(time.perf_counter())

    def on_log(self, *unused: Any, logs: dict[str, Any] | None = None, **unused_by_name: Any) -> None:
        """Losses, one per step."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def count(self, unused: nn.Module, inputs: Sequence[Any]) -> None:
        """Tokens that are embedded, padding and all."""
        self.tokens += inputs[0].numel()
        self.passes += 1

    def figures(self, work: RewardWork, pairs: Sequence[TokenPair], **rest: Any) -> dict[str, Any]:
        """What a measurement reports."""
        steps = len(self.stamps) - 1
        assert steps * work.batch == len(pairs), (steps, work.batch, len(pairs))
        dialogues = [len(pair.prompt) + len(answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
        return {
            **rest,
            "dtype": work.dtype,
            "pairs_per_s": round(len(pairs) / (self.stamps[-1] - self.stamps[0]), 4),
            "pairs": len(pairs),
            "steps": steps,
            "tokens_per_pair": round(self.tokens / len(pairs), 1),
            "passes_per_step": round(self.passes / steps, 2),
            "dialogue_tokens_per_pair": round(2 * mean(dialogues), 1),
            "losses": self.losses,
        }


@contextmanager
def watched(embedding: nn.Module) -> Iterator[Watch]:
    """Watch the trainings that begin inside, by the same means on both sides."""
    watch = Watch()
    hook = embedding.register_forward_pre_hook(watch.count)
    with patch.object(trainer, "DEFAULT_CALLBACKS", [*trainer.DEFAULT_CALLBACKS, watch]):
        try:
            yield watch
        finally:
            hook.remove()
