"""Improve the policy: rejection sampling, then PPO from its result (section 3.2.3).

``ppo.method`` chooses: ``rejection``, ``ppo`` (from the SFT model or an existing rejection stage) or ``both``.

    python -m stages.ppo
    python -m stages.ppo ppo.method=ppo ppo.updates=100 ppo.kl_beta=0.05
"""

from __future__ import annotations

from typing import Any

from alignment.config import Recipe
from alignment.data.loading import heldout_prompts, training_prompts
from alignment.models.backbone import Backbone
from alignment.models.policies import load_backbone
from alignment.models.reward_model import RewardModel
from alignment.rl.finetune_winners import finetune_on_winners, sample_winners
from alignment.rl.ppo import PPO, prompt_batches, rollout_metrics
from alignment.rl.snapshots import Snapshots
from alignment.run import RunFolder
from stages.runner import progress, run


def main(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/rejection/`` and ``round-N/ppo/``; returns the last stage's result."""
    folder = RunFolder(recipe.run_dir)
    rewards = folder.require("reward", round_number, command="python -m stages.reward")
    backbone = load_backbone(folder, recipe.model)
    models = {name: RewardModel.load(backbone, name, rewards / name) for name in ("helpfulness", "safety")}
    result: dict[str, Any] = {}
    if recipe.ppo.method in ("rejection", "both"):
        result = rejection(recipe, folder, backbone, models, round_number)
    if recipe.ppo.method in ("ppo", "both"):
        result = ppo(recipe, folder, backbone, models, round_number)
    return result


def rejection(
    recipe: Recipe, folder: RunFolder, backbone: Backbone, models: dict[str, RewardModel], round_number: int
) -> dict[str, Any]:
    """Draw K answers per prompt, keep the best, fine-tune a fresh adapter on the winners of all rounds."""
    prompts = training_prompts(recipe)
    with folder.lock():
        stage = folder.begin("rejection", recipe, round_number)
        with progress("rejection: sampling") as on_step:
            winners = sample_winners(recipe, folder, backbone, models, prompts, round_number, on_step=on_step)
        with progress("rejection: fine-tuning") as on_step:
            result = finetune_on_winners(recipe, backbone, winners, stage, on_step=on_step)
        folder.finish(stage, result, inputs=[models["helpfulness"].folder, models["safety"].folder])
        folder.set_policy("rejection", round_number)
    return folder.result("rejection", round_number)


def ppo(
    recipe: Recipe, folder: RunFolder, backbone: Backbone, models: dict[str, RewardModel], round_number: int
) -> dict[str, Any]:
    """PPO, from the rejection-sampling checkpoint of this round where there is one, else from the SFT model."""
    prompts = training_prompts(recipe)
    with folder.lock():
        stage = folder.begin("ppo", recipe, round_number)
        if folder.finished("rejection", round_number):
            backbone.load_adapter(PPO.policy_role, folder.stage("rejection", round_number), trainable=True)
        else:
            backbone.add_adapter(PPO.policy_role, recipe.model.lora)
        trainer = PPO(backbone, models, recipe.ppo, seed=recipe.seed)
        snapshots = Snapshots(recipe, stage.folder, trainer, heldout_prompts(recipe))
        batches = prompt_batches(prompts, recipe.ppo.batch_size_episodes, seed=recipe.seed)
        snapshots.take(0)
        with progress("ppo") as on_step:
            for update in range(1, recipe.ppo.updates + 1):
                episodes = trainer.sample(next(batches))
                rollout = trainer.score(episodes)
                gated = trainer.gate(rollout)
                rewards = trainer.token_rewards(gated)
                advantages = trainer.advantages(rollout, rewards)
                losses = trainer.update(rollout, advantages, train_policy=update > recipe.ppo.warmup_value_updates)
                metrics = {**rollout_metrics(gated, advantages), **losses}
                stage.log({"update": update, "objective/beta": recipe.ppo.kl_beta, **metrics})
                on_step(update, recipe.ppo.updates, metrics)
                snapshots.take(update)
        backbone.save_adapter(PPO.policy_role, stage.folder)
        folder.finish(stage, {"updates": recipe.ppo.updates, **metrics}, inputs=[m.folder for m in models.values()])
        folder.set_policy("ppo", round_number)
    return folder.result("ppo", round_number)


if __name__ == "__main__":
    run(main, __doc__, "stages.ppo")
