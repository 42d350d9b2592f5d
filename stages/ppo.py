"""Improve the policy: rejection sampling, then PPO from its result (section 3.2.3).

``ppo.method`` chooses: ``rejection``, ``ppo`` (from the SFT model or an existing rejection stage) or ``both``.

    python -m stages.ppo
    python -m stages.ppo ppo.method=ppo ppo.updates=100 ppo.kl_beta=0.05
"""

from __future__ import annotations

from typing import Any

from alignment.config import Recipe
from alignment.data.loading import fitting_prompts, heldout_prompts, training_prompts
from alignment.data.records import Prompt
from alignment.models.backbone import Backbone
from alignment.models.policies import load_backbone
from alignment.models.reward_model import RewardModel
from alignment.rl.finetune_winners import finetune_on_winners, sample_winners
from alignment.rl.ppo import PPO, prompt_batches, rollout_metrics
from alignment.rl.snapshots import Snapshots
from alignment.run import RunFolder
from stages.runner import progress, run, say_left_out


def main(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/rejection/`` and ``round-N/ppo/``; returns the last stage's result."""
    folder = RunFolder(recipe.run_dir)
    rewards = folder.require("reward", round_number, command="python -m stages.reward")
    names = ["rejection", "ppo"] if recipe.ppo.method == "both" else [recipe.ppo.method]
    if recipe.ppo.method == "both" and not folder.finished("ppo", round_number):
        names = [name for name in names if not folder.kept(name, round_number, recipe)]  # stopped between the two
    for name in names:
        folder.check_not_finished(name, recipe, round_number)
    prompts, report = training_prompts(recipe)
    backbone = load_backbone(folder, recipe.model)
    models = {name: RewardModel.load(backbone, name, rewards / name) for name in ("helpfulness", "safety")}
    prompts, too_long = fitting_prompts(
        prompts,
        backbone.encoder,
        max_new_tokens=max(recipe.rejection.sampling.max_new_tokens, recipe.ppo.sampling.max_new_tokens),
        context_tokens=backbone.context_tokens,
        skip_too_long=recipe.data.too_long == "skip",
    )
    say_left_out(report, too_long)
    left_out = {**report.skipped, "prompts too long": too_long}
    result: dict[str, Any] = {}
    for name in names:
        work = rejection if name == "rejection" else ppo
        result = work(recipe, folder, backbone, models, prompts, left_out, round_number)
    return result


def rejection(
    recipe: Recipe,
    folder: RunFolder,
    backbone: Backbone,
    models: dict[str, RewardModel],
    prompts: list[Prompt],
    left_out: dict[str, int],
    round_number: int,
) -> dict[str, Any]:
    """Draw K answers per prompt, keep the best, fine-tune a fresh adapter on the winners of all rounds."""
    with folder.lock():
        stage = folder.begin("rejection", recipe, round_number)
        with progress("rejection: sampling") as on_step:
            winners = sample_winners(recipe, folder, backbone, models, prompts, round_number, on_step=on_step)
        with progress("rejection: fine-tuning") as on_step:
            result = finetune_on_winners(recipe, backbone, winners, stage, on_step=on_step)
        result["left_out"] = {**left_out, **result["left_out"]}
        folder.finish(stage, result, inputs=[models["helpfulness"].folder, models["safety"].folder])
        folder.set_policy("rejection", round_number)
    return folder.result("rejection", round_number)


def ppo(
    recipe: Recipe,
    folder: RunFolder,
    backbone: Backbone,
    models: dict[str, RewardModel],
    prompts: list[Prompt],
    left_out: dict[str, int],
    round_number: int,
) -> dict[str, Any]:
    """PPO, from the rejection-sampling checkpoint of this round where there is one, else from the SFT model."""
    heldout, _ = heldout_prompts(recipe)
    with folder.lock():
        stage = folder.begin("ppo", recipe, round_number)
        if folder.finished("rejection", round_number):
            backbone.load_adapter(PPO.policy_role, folder.stage("rejection", round_number), trainable=True)
        else:
            backbone.add_adapter(PPO.policy_role, recipe.model.lora)
        trainer = PPO(backbone, models, recipe.ppo, seed=recipe.seed)
        snapshots = Snapshots(recipe, stage.folder, trainer, heldout)
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
        result = {"updates": recipe.ppo.updates, **metrics, "left_out": left_out}
        folder.finish(stage, result, inputs=[m.folder for m in models.values()])
        folder.set_policy("ppo", round_number)
    return folder.result("ppo", round_number)


if __name__ == "__main__":
    run(main, __doc__, "stages.ppo")
