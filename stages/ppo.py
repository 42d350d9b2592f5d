"""Improve the policy: rejection sampling, then PPO from its result (section 3.2.3).

``ppo.method`` chooses: ``rejection``, ``ppo`` (from the SFT model or an existing rejection stage) or ``both``.

    python -m stages.ppo
    python -m stages.ppo ppo.method=ppo ppo.updates=100 ppo.kl_beta=0.05
"""

from __future__ import annotations

from typing import Any

from trl import SFTConfig

from alignment.data.loading import heldout_prompts
from alignment.models.heads import TokenValueHead
from alignment.models.policies import with_room
from alignment.models.sft import check_trainer_settings
from alignment.recipe import Recipe
from alignment.resources import resolve
from alignment.rl.finetune_winners import encode_demonstrations, finetune_on_winners, sample_winners
from alignment.rl.ppo import PPO, prompt_batches, rollout_metrics
from alignment.rl.snapshots import Snapshots
from alignment.run import RunFolder
from stages.progress import progress
from stages.round_inputs import Round, load_round
from stages.runner import run


def main(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/rejection/`` and ``round-N/ppo/``; returns the last stage's result."""
    folder = RunFolder(recipe.run_dir)
    methods = unfinished_methods(recipe, folder, round_number)
    inputs = load_round(recipe, folder, round_number)
    result: dict[str, Any] = {}
    for method in methods:
        result = rejection(inputs) if method == "rejection" else ppo(inputs)
    return result


def unfinished_methods(recipe: Recipe, folder: RunFolder, round_number: int) -> list[str]:
    """What is to be run; a rejection stage that is finished is kept where ``both`` was stopped between the two."""
    names: list[str] = ["rejection", "ppo"] if recipe.ppo.method == "both" else [recipe.ppo.method]
    if recipe.ppo.method == "both" and not folder.finished("ppo", round_number):
        names = [name for name in names if not folder.kept(name, round_number, recipe)]
    for name in names:
        folder.check_not_finished(name, recipe, round_number)
    return names


def rejection(inputs: Round) -> dict[str, Any]:
    """Draw K answers per prompt, keep the best, fine-tune a fresh adapter on the winners of all rounds."""
    recipe, folder, backbone, models = inputs.recipe, inputs.folder, inputs.backbone, inputs.models
    check_trainer_settings(recipe.sft.trainer, SFTConfig, section="sft.trainer")
    demonstrations, too_long = encode_demonstrations(recipe, backbone)
    with folder.lock():
        stage = folder.begin("rejection", recipe, inputs.number)
        with progress("rejection: sampling") as on_step:
            winners = sample_winners(recipe, folder, backbone, models, inputs.prompts, inputs.number, on_step=on_step)
        with progress("rejection: fine-tuning") as on_step:
            result = finetune_on_winners(recipe, backbone, winners, demonstrations, stage, on_step=on_step)
        result["left_out"] = {**inputs.left_out, **result["left_out"], "demonstrations too long": too_long}
        files = [resolve(recipe.data.prompts), resolve(recipe.sft.data)]
        folder.finish(stage, result, inputs=[*files, *(model.folder for model in models.values())])
        folder.set_policy("rejection", inputs.number)
    return folder.result("rejection", inputs.number)


def ppo(inputs: Round) -> dict[str, Any]:
    """PPO, from the rejection-sampling checkpoint of this round where there is one, else from the SFT model."""
    recipe, folder, backbone = inputs.recipe, inputs.folder, inputs.backbone
    longest = recipe.ppo.sampling.max_new_tokens
    heldout, _ = with_room(recipe, backbone, heldout_prompts(recipe)[0], max_new_tokens=longest)
    size, share = recipe.ppo.batch_size_episodes, recipe.ppo.safety_share
    batches = prompt_batches(inputs.prompts, size, seed=recipe.seed, safety_share=share)
    start = None
    if folder.finished("rejection", inputs.number):
        start = folder.require("rejection", inputs.number, command="python -m stages.ppo ppo.method=rejection")
    if recipe.ppo.value == "adapter":
        TokenValueHead.from_reward_head(inputs.models["helpfulness"].head)  # refuses a head that it cannot start from
    with folder.lock():
        stage = folder.begin("ppo", recipe, inputs.number)
        if start is not None:
            backbone.load_adapter(PPO.policy_role, start, trainable=True)
        else:
            backbone.add_adapter(PPO.policy_role, recipe.model.lora)
        trainer = PPO(backbone, inputs.models, recipe.ppo, seed=recipe.seed)
        snapshots = Snapshots(recipe, stage.folder, trainer, heldout)
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
        result = {"updates": recipe.ppo.updates, **metrics, "left_out": inputs.left_out}
        files = [resolve(recipe.data.prompts)]
        folder.finish(stage, result, inputs=[*files, *(model.folder for model in inputs.models.values())])
        folder.set_policy("ppo", inputs.number)
    return folder.result("ppo", inputs.number)


if __name__ == "__main__":
    run(main, __doc__, "stages.ppo")
