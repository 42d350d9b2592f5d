"""What keeps a PPO run while the loop trains: its place on disk, snapshots, reasons to stop, progress and Ctrl-C.

PPO can be stopped at any instant. What a run needs to go on lies in its stage folder: ``inputs.json`` (what it is made
from, written first), ``checkpoints/`` and ``metrics.jsonl``. Started again, the same command goes on from the
newest checkpoint; lines that were written after it are cut off, since these updates are done again. On one and the same
processor every number that follows is that of a run without a stop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.files import flush, write_json
from alignment.machine.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from alignment.progress import OnStep
from alignment.rl.ppo import PPO, NonFiniteError
from alignment.run.stage_records import CHECKPOINTS, StageRun
from alignment.settings.ppo_sections import PPOSection
from stages.door.progress_and_exit import StopRequest, deferred_stop, progress, say
from stages.ppo.round_inputs import Round
from stages.ppo.training_watch import Snapshots, TrainingWatch


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


@dataclass
class Keeper:
    """Hands out the updates that are left to do, and keeps the run after each."""

    place: ResumablePPO
    watch: TrainingWatch
    stop: StopRequest
    on_step: OnStep
    result: dict[str, Any] = field(default_factory=dict)
    """Of the stage, once it is finished."""

    def updates(self, batches: Iterator[list[EncodedPrompt]]) -> Iterator[tuple[int, list[EncodedPrompt]]]:
        """The updates from where the run stands to its last, each with its prompts; ends early for a reason to stop."""
        for update, prompts in islice(enumerate(batches, start=1), self.place.done, self.place.settings.updates):
            if self.watch.reasons:
                return
            yield update, prompts

    def after(self, update: int, metrics: dict[str, float]) -> None:
        """Log an update, look at the policy, save a checkpoint where one is due, and stop if somebody asked to."""
        self.place.log(update, metrics)
        self.on_step(update, self.place.settings.updates, metrics)
        self.watch.look(update, metrics)
        stopping = self.stop.requested(self.place.trainer.processes)
        if stopping or self.place.due:
            self.place.checkpoint()
            self.watch.forget_others()
        if stopping:
            self.stop.obey()


@contextmanager
def keeping(inputs: Round, trainer: PPO, selection: Sequence[EncodedPrompt]) -> Iterator[Keeper]:
    """Keep the run while the block trains: from the last checkpoint where there is one; the stage is finished after it.

    Args:
        inputs: what the round starts from, and its folder.
        trainer: the roles as they are before the first update.
        selection: prompts for the snapshots.

    Raises:
        FloatingPointError: a loss or gradient is not finite; says which answers did it.
    """
    recipe, processes = inputs.recipe, inputs.processes
    with inputs.lock():
        # Find the folder, and go on from what lies there.
        stage = inputs.begin_or_resume("ppo")
        snapshots = Snapshots(recipe, stage.folder, trainer, selection, guard=inputs.guard)
        watch = TrainingWatch(recipe, stage.folder, trainer, snapshots, say=say)
        place = ResumablePPO(stage, recipe.ppo, trainer, {"snapshots": snapshots, "watch": watch})
        watch.go_on_after(place.history)
        if place.done == 0:
            watch.look(0, {})
        # Train: a signal waits for the end of an update.
        with deferred_stop() as stop, progress("ppo", show=processes.is_main) as on_step, place.explained_failure():
            keeper = Keeper(place, watch, stop, on_step)
            yield keeper
        # Save the policy to keep, then say that the stage is finished.
        keeper.result = inputs.finish(
            stage, "ppo", lambda: {**place.result(), **watch.save_policy()}, also=inputs.selection_files
        )
        place.remove_checkpoints()
