"""PPO that can be stopped at any instant: where it stands on disk, and going on from there.

What a run needs to go on lies in its stage folder: ``inputs.json`` (what it is made from, written first),
``checkpoints/`` and ``metrics.jsonl``. Started again, the same command goes on from the newest checkpoint; lines that
were written after it are cut off, since these updates are done again. On one and the same processor every number that
follows is that of a run without a stop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment.files import write_json
from alignment.machine.checkpoint import checkpoints, flush, load_checkpoint, save_checkpoint
from alignment.rl.ppo import PPO
from alignment.rl.rollout import NonFiniteError
from alignment.run.stage_run import CHECKPOINTS, StageRun
from alignment.settings.ppo_sections import PPOSection


class ResumablePPO:
    """The stage's folder, and the trainer's place in it."""

    def __init__(self, stage: StageRun, settings: PPOSection, trainer: PPO, parts: dict[str, Any]) -> None:
        """Go on from the newest checkpoint in the stage's folder, if there is one.

        Args:
            stage: the folder, begun or found again.
            settings: how often to save, and how many checkpoints to keep.
            trainer: the roles as they are before the first update.
            parts: what else has a state: objects with ``state_dict`` and ``load_state_dict``, by name.
        """
        self.stage = stage
        self.settings = settings
        self.trainer = trainer
        self.parts = {"trainer": trainer, **parts}
        self.done = 0
        self.history: list[dict[str, Any]] = []
        self._load()

    def _load(self) -> None:
        found = checkpoints(self.stage.folder / CHECKPOINTS)
        if not found:
            return
        self.done, state = load_checkpoint(found[-1])
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.stage.started = time.monotonic() - state["seconds"]
        if self.trainer.processes.is_main:
            self.history = self.stage.cut_log(lambda row: row["update"] <= self.done)

    def log(self, update: int, metrics: dict[str, Any]) -> None:
        """Append one update's line."""
        self.done = update
        if self.trainer.processes.is_main:
            row = {"update": update, **metrics, "time/seconds": round(self.stage.seconds, 2)}
            self.history.append(row)
            self.stage.log(row)

    @property
    def due(self) -> bool:
        """Whether a checkpoint is due after the update just logged."""
        return self.done % self.settings.save_steps == 0

    def checkpoint(self) -> None:
        """Write down where the run stands."""
        if self.trainer.processes.is_main:
            state = {name: part.state_dict() for name, part in self.parts.items()}
            flush(self.stage.folder / "metrics.jsonl")
            save_checkpoint(
                self.stage.folder / CHECKPOINTS,
                self.done,
                {**state, "seconds": self.stage.seconds},
                keep=self.settings.save_total_limit,
            )

    @contextmanager
    def explained_failure(self) -> Iterator[None]:
        """Say which episodes gave numbers that are not finite, and where to find them."""
        try:
            yield
        except NonFiniteError as error:
            file = self.stage.folder / "nonfinite_batch.json"
            if self.trainer.processes.is_main:
                self._write_episodes(error, file)
            raise FloatingPointError(
                f"update {self.done + 1}: {error}. The answers that did it are in {file}; the checkpoints before stay"
            ) from error

    def _write_episodes(self, error: NonFiniteError, file: Path) -> None:
        decode = self.trainer.backbone.encoder.decode
        episodes = error.episodes
        rows = [
            {"prompt": prompt.model_dump(mode="json"), "answer": decode(episodes.response_ids(row))}
            for row, prompt in enumerate(episodes.prompts)
        ]
        write_json(file, rows)

    def remove_checkpoints(self) -> None:
        """Once the stage is finished, nothing goes on from them."""
        if self.trainer.processes.is_main:
            self.stage.remove_checkpoints()

    def result(self) -> dict[str, Any]:
        """The last update's metrics, without the time."""
        last = {key: value for key, value in self.history[-1].items() if key not in ("update", "time/seconds")}
        return {"updates": self.done, **last}
