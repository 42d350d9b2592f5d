"""Improve the policy: rejection sampling, then PPO from its result (section 3.2.3).

``ppo.method`` chooses: ``rejection``, ``ppo`` (from the SFT model or an existing rejection stage) or ``both``.

    python -m stages.ppo
    python -m stages.ppo ppo.method=ppo ppo.updates=100 ppo.kl_beta=0.05
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from alignment.rl.ppo import PPO
from alignment.rl.ppo_metrics import rollout_metrics
from alignment.rl.prompt_batches import prompt_batches
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from stages.door.preconditions import check_ppo, unfinished_methods
from stages.door.progress import progress, say
from stages.door.stop_request import deferred_stop
from stages.ppo.rejection_sampling import rejection
from stages.ppo.resume import ResumablePPO
from stages.ppo.round_inputs import Round, load_round
from stages.ppo.snapshots import Snapshots
from stages.ppo.training_watch import Watch


def main(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/rejection/`` and ``round-N/ppo/``; returns the last stage's result."""
    folder = RunFolder(recipe.run_dir)
    check_ppo(recipe, round_number)
    methods = unfinished_methods(recipe, folder, round_number)
    inputs = load_round(recipe, folder, round_number)
    result: dict[str, Any] = {}
    for method in methods:
        result = rejection(inputs) if method == "rejection" else ppo(inputs)
    return result


def ppo(inputs: Round) -> dict[str, Any]:
    """PPO, from the rejection-sampling checkpoint of this round where there is one, else from the SFT model.

    Stopped at any instant, it goes on from its last checkpoint when it is started again.
    """
    recipe, settings = inputs.recipe, inputs.recipe.ppo
    batches = prompt_batches(
        inputs.prompts, settings.batch_size_episodes, seed=inputs.seed, safety_share=settings.safety_share
    )
    heldout = inputs.heldout()
    inputs.add_policy(PPO.policy_adapter)
    trainer = PPO(inputs.backbone, inputs.models, settings, seed=inputs.seed, processes=inputs.processes)
    with inputs.lock():
        stage = inputs.begin_or_resume("ppo")
        snapshots = Snapshots(recipe, stage.folder, trainer, heldout, guard=inputs.guard)
        watch = Watch(recipe, stage.folder, trainer, snapshots, say=say)
        run = ResumablePPO(stage, recipe, trainer, {"snapshots": snapshots, "watch": watch})
        watch.go_on_after(run.history)
        if run.done == 0:
            watch.look(0, {})
        with deferred_stop() as stop, progress("ppo", show=inputs.processes.is_main) as on_step:
            for update, prompts in islice(enumerate(batches, start=1), run.done, settings.updates):
                if watch.reasons:
                    break
                episodes = trainer.sample(prompts, update)
                rollout = trainer.score(episodes)
                gated = trainer.gate(rollout)
                rewards = trainer.token_rewards(gated)
                advantages = trainer.advantages(rollout, rewards)
                with run.explained_failure():
                    losses = trainer.update(rollout, advantages, train_policy=update > settings.warmup_value_updates)
                metrics = {**rollout_metrics(gated, advantages, beta=trainer.kl_controller.beta), **losses}
                trainer.kl_controller.observe(metrics["objective/kl"], len(prompts))
                run.log(update, metrics)
                on_step(update, settings.updates, metrics)
                watch.look(update, metrics)
                stopping = stop.requested(inputs.processes)
                if stopping or run.due:
                    run.checkpoint()
                    watch.forget_others()
                if stopping:
                    stop.obey()
        result = inputs.finish(stage, "ppo", lambda: {**run.result(), **watch.save_policy()})
        run.remove_checkpoints()
    return result
