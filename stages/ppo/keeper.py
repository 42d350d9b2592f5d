"""What keeps a PPO run while the loop trains: its place on disk, snapshots, reasons to stop, progress and Ctrl-C.

Each of these has a file of its own beside this one; here they are joined, so that the loop sees one object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from alignment.data.records import Prompt
from alignment.rl.ppo import PPO
from stages.door.progress import OnStep, progress, say
from stages.door.stop_request import StopRequest, deferred_stop
from stages.ppo.resume import ResumablePPO
from stages.ppo.round_inputs import Round
from stages.ppo.snapshots import Snapshots
from stages.ppo.training_watch import TrainingWatch


@dataclass
class Keeper:
    """Hands out the updates that are left to do, and keeps the run after each."""

    place: ResumablePPO
    watch: TrainingWatch
    stop: StopRequest
    on_step: OnStep
    result: dict[str, Any] = field(default_factory=dict)
    """Of the stage, once it is finished."""

    def updates(self, batches: Iterator[list[Prompt]]) -> Iterator[tuple[int, list[Prompt]]]:
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
def keeping(inputs: Round, trainer: PPO, heldout: Sequence[Prompt]) -> Iterator[Keeper]:
    """Keep the run while the block trains: from the last checkpoint where there is one; the stage is finished after it.

    Args:
        inputs: what the round starts from, and its folder.
        trainer: the roles as they are before the first update.
        heldout: prompts for the snapshots.

    Raises:
        FloatingPointError: a loss or gradient is not finite; says which answers did it.
    """
    recipe, processes = inputs.recipe, inputs.processes
    with inputs.lock():
        # Find the folder, and go on from what lies there.
        stage = inputs.begin_or_resume("ppo")
        snapshots = Snapshots(recipe, stage.folder, trainer, heldout, guard=inputs.guard)
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
        keeper.result = inputs.finish(stage, "ppo", lambda: {**place.result(), **watch.save_policy()})
        place.remove_checkpoints()
