"""What rejection sampling and PPO of a round start from. Not a stage itself."""

from __future__ import annotations

from dataclasses import dataclass

from alignment.data.loading import training_prompts
from alignment.data.records import Prompt
from alignment.models.backbone import Backbone
from alignment.models.policies import load_backbone, with_room
from alignment.models.reward_model import RewardModel
from alignment.recipe import Recipe
from alignment.run import RunFolder
from stages.progress import say_left_out


@dataclass(frozen=True)
class Round:
    """What both methods start from."""

    recipe: Recipe
    number: int
    folder: RunFolder
    backbone: Backbone
    models: dict[str, RewardModel]
    prompts: list[Prompt]
    left_out: dict[str, int]


def load_round(recipe: Recipe, folder: RunFolder, round_number: int) -> Round:
    """The SFT model as base, the round's reward models, and the prompts that leave room for an answer."""
    rewards = folder.require("reward", round_number, command="python -m stages.reward")
    prompts, report = training_prompts(recipe)
    backbone = load_backbone(folder, recipe.model)
    models = {name: RewardModel.load(backbone, name, rewards / name) for name in ("helpfulness", "safety")}
    longest = max(recipe.rejection.sampling.max_new_tokens, recipe.ppo.sampling.max_new_tokens)
    prompts, too_long = with_room(recipe, backbone, prompts, max_new_tokens=longest)
    say_left_out(report, too_long)
    left_out = {**report.skipped, "prompts too long": too_long}
    return Round(recipe, round_number, folder, backbone, models, prompts, left_out)
