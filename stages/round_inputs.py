"""What rejection sampling and PPO of a round start from, and where they leave what they make. Not a stage itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.loading import heldout_prompts, training_prompts
from alignment.data.records import Prompt
from alignment.distributed import Processes
from alignment.models.backbone import Backbone
from alignment.models.policies import load_backbone, with_room
from alignment.models.reward_model import RewardModel, RewardScorer
from alignment.models.separate_reward import load_reward_models
from alignment.recipe import Recipe
from alignment.resources import resolve
from alignment.run import RunFolder, StageRun
from stages.progress import say_left_out


@dataclass(frozen=True)
class Round:
    """What both methods start from."""

    recipe: Recipe
    number: int
    folder: RunFolder
    backbone: Backbone
    models: dict[str, RewardScorer]
    guard: RewardModel | None
    prompts: list[Prompt]
    left_out: dict[str, int]
    processes: Processes

    @property
    def reward_folders(self) -> list[Path]:
        """Where the reward models lie."""
        guard = self.guard.folders if self.guard else []
        return [folder for model in self.models.values() for folder in model.folders] + guard

    def heldout(self, *, max_new_tokens: int) -> list[Prompt]:
        """Held-out prompts that leave room for an answer."""
        prompts, _ = heldout_prompts(self.recipe)
        return with_room(self.recipe, self.backbone, prompts, max_new_tokens=max_new_tokens)[0]

    def add_policy(self, adapter: str) -> None:
        """Give the backbone the policy to train: the rejection-sampling checkpoint, else a fresh adapter."""
        if self.folder.finished("rejection", self.number):
            command = "python -m stages.ppo ppo.method=rejection"
            start = self.folder.require("rejection", self.number, command=command)
            self.backbone.load_adapter(adapter, start, trainable=True)
        else:
            self.folder.seed("ppo", self.recipe, self.number)  # its weights are drawn before the stage begins
            self.backbone.add_adapter(adapter, self.recipe.model.lora)

    # -- one process of several writes ---------------------------------------------------------------------------

    def lock(self) -> AbstractContextManager[None]:
        """Hold the run for writing."""
        return self.folder.lock() if self.processes.is_main else nullcontext()

    def begin_or_resume(self, name: str) -> StageRun:
        """The stage's folder, made or found again by the main process before any other looks into it."""
        inputs = [resolve(self.recipe.data.prompts), *self.reward_folders]
        stage = None
        if self.processes.is_main:
            stage = self.folder.begin_or_resume(name, self.recipe, self.number, inputs=inputs)
        self.processes.wait()
        return stage or self.folder.stage_run(name, self.recipe, self.number)

    def finish(self, stage: StageRun, name: str, make_result: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Let the main process save what was made; returns the stage's result."""
        if self.processes.is_main:
            result = {**make_result(), "left_out": self.left_out}
            inputs = [resolve(self.recipe.data.prompts), *self.reward_folders]
            self.folder.finish(stage, result, inputs=inputs)
            self.folder.set_policy(name, self.number)
        self.processes.wait()
        return self.folder.result(name, self.number)


def load_round(recipe: Recipe, folder: RunFolder, round_number: int) -> Round:
    """The SFT model as base, the round's reward models, and the prompts that leave room for an answer."""
    processes = Processes()
    rewards = folder.require("reward", round_number, command="python -m stages.reward")
    prompts, report = training_prompts(recipe)
    backbone = load_backbone(folder, recipe.model)
    models = load_reward_models(backbone, rewards, recipe.ppo.reward_models, recipe.model)
    guarded = recipe.reward.guard_share > 0 and (rewards / "guard").is_dir()
    guard = RewardModel.load(backbone, "guard", rewards / "guard") if guarded else None
    longest = max(recipe.rejection.sampling.max_new_tokens, recipe.ppo.sampling.max_new_tokens)
    prompts, too_long = with_room(recipe, backbone, prompts, max_new_tokens=longest)
    say_left_out(report, too_long)
    left_out = {**report.skipped, "prompts too long": too_long}
    return Round(recipe, round_number, folder, backbone, models, guard, prompts, left_out, processes)
