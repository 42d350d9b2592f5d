"""What rejection sampling and PPO of a round start from, and where they leave what they make. Not a stage itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.errors import UserError
from alignment.machine.device_and_processes import Processes
from alignment.models.backbone import Backbone
from alignment.models.scorers.load_reward_models import load_reward_models
from alignment.models.scorers.reward_model import RewardModel
from alignment.models.scorers.scorer_protocol import RewardScorer
from alignment.reward.gate import gate_named
from alignment.run.run_folder import RunFolder
from alignment.run.run_recipe import changes
from alignment.run.stage_records import StageRun, recipe_made_with
from alignment.settings.read_recipe import value_at
from alignment.settings.recipe import Recipe
from alignment.workflow.own_data import is_left_over
from alignment.workflow.plugins import plugin_files
from alignment.workflow.prompts_and_policies import load_backbone, with_room
from alignment.workflow.training_prompts import selection_prompts, training_prompts
from stages.door.progress_and_exit import say, say_left_out
from stages.ppo.training_watch import check_can_watch

ROUND_SEED = 2**16


@dataclass(frozen=True)
class Round:
    """What both methods start from."""

    recipe: Recipe
    number: int
    folder: RunFolder
    backbone: Backbone
    models: dict[str, RewardScorer]
    guard: RewardModel | None
    prompts: list[EncodedPrompt]
    prompt_files: list[Path]
    left_out: dict[str, int]
    processes: Processes

    @property
    def seed(self) -> int:
        """Of PPO's sampling noise and prompt order: another in each round."""
        return self.recipe.seed + ROUND_SEED * (self.number - 1)

    @property
    def reward_folders(self) -> list[Path]:
        """Where the reward models lie."""
        guard = self.guard.folders if self.guard else []
        return [folder for model in self.models.values() for folder in model.folders] + guard

    def selection(self) -> list[EncodedPrompt]:
        """Prompts that select a checkpoint and leave room for an answer, enough for what PPO is to watch."""
        settings = self.recipe.ppo
        found = selection_prompts(self.recipe, self.folder, self.number)
        longest = settings.sampling.max_new_tokens
        encoded, unusable = with_room(self.backbone, found.prompts, self.recipe.data, max_new_tokens=longest)
        if set(found.files) != set(self.prompt_files):  # what is left out of those has been said
            say_left_out(found.report, unusable)
        check_can_watch(settings, n_prompts=len(encoded), guarded=self.guard is not None)
        return encoded

    @property
    def selection_files(self) -> list[Path]:
        """What these prompts are read from."""
        return selection_prompts(self.recipe, self.folder, self.number).files

    @property
    def inputs(self) -> list[Path]:
        """Files and folders that PPO is made from."""
        files = dict.fromkeys([*self.prompt_files, *self.selection_files])
        return [*files, *self.reward_folders, *plugin_files(self.recipe)]

    def add_policy(self, adapter: str) -> None:
        """Give the backbone the policy to train: the rejection-sampling checkpoint, else a fresh adapter."""
        if self.folder.finished("rejection", self.number):
            start = self.folder.require("rejection", self.number)
            self._check_adapter(start)
            self.backbone.load_adapter(adapter, start, trainable=True)
        else:
            self.folder.seed("ppo", self.recipe, self.number)  # its weights are drawn before the stage begins
            self.backbone.add_adapter(adapter, self.recipe.model.lora)

    def _check_adapter(self, start: Path) -> None:
        """Raise ``UserError`` where the recipe wants another adapter than the one that rejection sampling trained."""
        made = recipe_made_with(start)
        wanted = self.recipe.model.lora.model_dump(mode="json")
        keys = ("r", "alpha", "target_modules")
        found = {f"model.lora.{key}": (value_at(made, f"model.lora.{key}"), wanted[key]) for key in keys}
        if changed := {key: values for key, values in found.items() if values[0] not in (None, values[1])}:
            again = self.folder.command_for("rejection", "overwrite=true", round_number=self.number)
            raise UserError(
                f"PPO goes on training the adapter in {start}, which was made with other settings: {changes(changed)}. "
                f"Put them back, or make that one with these: {again}"
            )

    # -- one process of several writes ---------------------------------------------------------------------------

    def lock(self) -> AbstractContextManager[None]:
        """Hold the run for writing."""
        return self.folder.lock() if self.processes.is_main else nullcontext()

    def begin_or_resume(self, name: str) -> StageRun:
        """The stage's folder, made or found again by the main process before any other looks into it."""
        stage = None
        if self.processes.is_main:
            stage = self.folder.begin_or_resume(name, self.recipe, self.number, inputs=self.inputs)
        self.processes.wait()
        return stage or self.folder.stage_run(name, self.recipe, self.number)

    def finish(
        self, stage: StageRun, name: str, make_result: Callable[[], dict[str, Any]], *, also: Sequence[Path] = ()
    ) -> dict[str, Any]:
        """Let the main process save what was made.

        Args:
            stage: the stage at work.
            name: of its folder: ``rejection`` or ``ppo``.
            make_result: gives the result; called in the main process only.
            also: files that it was made from, beside prompts, reward models and plugins.

        Returns:
            The stage's result, as it was saved.
        """
        if self.processes.is_main:
            result = {"prompts": len(self.prompts), **make_result()}
            result["left_out"] = {**self.left_out, **result.get("left_out", {})}
            inputs = [*self.prompt_files, *also, *self.reward_folders, *plugin_files(self.recipe)]
            self.folder.finish(stage, result, inputs=inputs)
            self.folder.set_policy(name, self.number)
        self.processes.wait()
        return self.folder.result(name, self.number)


def load_round(recipe: Recipe, folder: RunFolder, round_number: int) -> Round:
    """The SFT model as base, the round's reward models, and the prompts that leave room for an answer."""
    processes = Processes()
    gate_named(recipe.ppo.gate)  # a misspelt one is found before anything is sampled
    given = recipe.ppo.reward_models
    rewards = folder.stage("reward", round_number)
    if recipe.reward.guard_share > 0 or given.helpfulness is None or given.safety is None:
        folder.require("reward", round_number)
    prompts, report, files = training_prompts(recipe, folder, round_number)
    if is_left_over(recipe, "data.prompts"):
        say(
            f"data.prompts={recipe.data.prompts} is the toy's file; trained on instead: {len(prompts)} of {report.path}"
        )
    backbone = load_backbone(folder, recipe.model)
    models = load_reward_models(backbone, rewards, given, recipe.model)
    guard = RewardModel.load(backbone, "guard", rewards / "guard") if recipe.reward.guard_share > 0 else None
    longest = max(recipe.rejection.sampling.max_new_tokens, recipe.ppo.sampling.max_new_tokens)
    encoded, unusable = with_room(backbone, prompts, recipe.data, max_new_tokens=longest)
    say_left_out(report, unusable)
    left_out = report.skipped | {f"prompts {reason}": n for reason, n in unusable.items()}
    return Round(recipe, round_number, folder, backbone, models, guard, encoded, files, left_out, processes)
