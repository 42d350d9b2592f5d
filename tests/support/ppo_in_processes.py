"""Three updates of PPO on a tiny model, in as many processes as launched; each writes down what it saw.

torchrun --nproc_per_node 2 tests/support/ppo_in_processes.py MODEL_FOLDER OUTPUT_FOLDER [stopped]

With ``stopped``, everything is made anew after the first update and goes on from a checkpoint.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tiny import add_reward_model, add_role, encoded_prompts, load_tiny

from alignment.machine.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from alignment.machine.device_and_processes import Processes
from alignment.rl.ppo import PPO
from alignment.rl.ppo_metrics import rollout_metrics
from alignment.settings.ppo_sections import PPOSection
from alignment.settings.sections import SamplingSection

EPISODES = 128
UPDATES = 3


def new_trainer(model: Path, processes: Processes) -> PPO:
    """All roles, as they are before the first update."""
    backbone = load_tiny(model)
    names = ("helpfulness", "safety")
    models = {name: add_reward_model(backbone, name, seed=seed) for seed, name in enumerate(names)}
    add_role(backbone, "policy", seed=0)
    settings = PPOSection(  # type: ignore[call-arg]
        batch_size_episodes=EPISODES,
        minibatch_size_episodes=32,
        micro_batch_size_episodes=8,
        learning_rate=1e-2,
        epochs=2,
        sampling=SamplingSection(temperature=0.8, max_new_tokens=6, batch_size_prompts=64),
    )
    return PPO(backbone, models, settings, seed=0, processes=processes)


def made_anew(trainer: PPO, model: Path, folder: Path) -> PPO:
    """Another trainer that goes on where this one stands, from the main process's checkpoint."""
    if trainer.processes.is_main:
        save_checkpoint(folder, 1, {"trainer": trainer.state_dict()}, keep=1)
    trainer.processes.wait()
    other = new_trainer(model, trainer.processes)
    other.load_state_dict(load_checkpoint(checkpoints(folder)[-1])[1]["trainer"])
    return other


def main(model: Path, output: Path, *, stopped: bool) -> None:
    """Run and write ``OUTPUT_FOLDER/rank-N.json``."""
    torch.set_num_threads(1)
    processes = Processes()
    trainer = new_trainer(model, processes)
    updates = []
    for update in range(1, UPDATES + 1):
        episodes = trainer.sample(encoded_prompts(trainer.backbone, EPISODES), update)
        rollout = trainer.score(episodes)
        gated = trainer.gate(rollout)
        advantages = trainer.advantages(rollout, trainer.token_rewards(gated))
        losses = trainer.update(rollout, advantages)
        updates.append(
            {
                "texts": [episodes.response_ids(row) for row in range(EPISODES)],
                "metrics": {**rollout_metrics(gated, advantages), **losses},
                "advantages": advantages.advantages.tolist(),
                "kl": (rollout.old_logprobs - rollout.ref_logprobs).tolist(),
            }
        )
        if stopped and update == 1:
            trainer = made_anew(trainer, model, output / "checkpoints")
    found = {"processes": processes.count, "own_episodes": len(processes.share(EPISODES)), "updates": updates}
    (output / f"rank-{processes.rank}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), stopped="stopped" in sys.argv[3:])
