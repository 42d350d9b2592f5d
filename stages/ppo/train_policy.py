"""Improve the policy: rejection sampling, then PPO from its result (section 3.2.3).

``ppo.method`` chooses: ``rejection``, ``ppo`` (from the SFT model or an existing rejection stage) or ``both``.

    python -m stages.ppo
    python -m stages.ppo ppo.method=ppo ppo.updates=100 ppo.kl_beta=0.05
"""

from __future__ import annotations

from typing import Any

from alignment.rl.ppo import PPO
from alignment.rl.ppo_metrics import marked_answers, rollout_metrics
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.workflow.plugins import load_plugins
from alignment.workflow.prompts_and_policies import prompt_batches
from alignment.workflow.training_prompts import other_prompt_files
from stages.door.preconditions import check_ppo, unfinished_methods
from stages.ppo.keeper import keeping
from stages.ppo.rejection_sampling import rejection
from stages.ppo.round_inputs import Round, load_round


def run(recipe: Recipe, round_number: int = 1, *, method: str | None = None) -> dict[str, Any]:
    """Make ``round-N/rejection/`` and ``round-N/ppo/``, or the one that ``method`` names; returns the last result."""
    folder = RunFolder(recipe.run_dir)
    check_ppo(recipe, round_number, method=method)
    methods = unfinished_methods(recipe, folder, round_number, method=method)
    for name in methods:
        folder.look(name, recipe, also=other_prompt_files(recipe))
    load_plugins(recipe.plugins)  # after the look, so that what was run is what was looked at
    inputs = load_round(recipe, folder, round_number)
    result: dict[str, Any] = {}
    for method in methods:
        result = rejection(inputs) if method == "rejection" else ppo(inputs)
    return result


def ppo(inputs: Round) -> dict[str, Any]:
    """PPO, from the rejection-sampling checkpoint of this round where there is one, else from the SFT model.

    Stopped at any instant, it goes on from its last checkpoint when it is started again.
    """
    settings = inputs.recipe.ppo
    batches = prompt_batches(
        inputs.prompts, settings.batch_size_episodes, seed=inputs.seed, safety_share=settings.safety_share
    )
    selection = inputs.selection()
    inputs.add_policy(PPO.policy_adapter)
    trainer = PPO(inputs.backbone, inputs.models, settings, seed=inputs.seed, processes=inputs.processes)
    with keeping(inputs, trainer, selection) as keeper:
        for update, prompts in keeper.updates(batches):
            episodes = trainer.sample(prompts, update)
            rollout = trainer.score(episodes)
            gated = trainer.gate(rollout)
            rewards = trainer.token_rewards(gated)
            advantages = trainer.advantages(rollout, rewards)
            losses = trainer.update(rollout, advantages, train_policy=update > settings.warmup_value_updates)
            said = rollout_metrics(gated, advantages) | marked_answers(episodes, inputs.backbone.encoder)
            keeper.after(update, {**said, **losses})
    return keeper.result
