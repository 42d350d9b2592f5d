"""Tandem's side of the PPO benchmark: one measurement in a process of its own.

    python benchmarks/ppo_ours.py --model runs/toy/sft --prompts data/toy/prompts.jsonl

Five roles on one base: policy, reference, value, and two reward models. The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from ppo_workload import LEARNING_RATE, LORA_ALPHA, LORA_RANK, Workload, figures, print_json

from alignment.data.encoded_dialogues import EncodedPrompt, encode_prompts
from alignment.data.readers import load_prompts
from alignment.data.records import Prompt
from alignment.machine.device_and_processes import keep_freed_memory, peak_memory_gib
from alignment.models.backbone import Backbone
from alignment.models.pretrained import load_base
from alignment.models.scorers.reward_model import RewardModel
from alignment.rl.ppo import PPO
from alignment.rl.ppo_metrics import rollout_metrics
from alignment.rl.rollout import Rollout
from alignment.settings.ppo_sections import PPOSection
from alignment.settings.sections import LoraSection, ModelSection, SamplingSection
from alignment.workflow.prompts_and_policies import prompt_batches

DIMENSIONS = ("helpfulness", "safety")


@dataclass(frozen=True)
class Side:
    """How Tandem does the work."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    value: Literal["adapter", "head"] = "head"
    sampling_copy: bool = False
    rank: int = LORA_RANK
    rewards: Path | None = None
    """Folder of trained reward models; else both have random adapters and heads."""


@dataclass
class Clock:
    """Seconds spent in each step of the updates."""

    seconds: dict[str, float]

    def time(self, step: str, work: Callable[[], Any]) -> Any:
        """The result of some work, its time added to the step's."""
        start = time.perf_counter()
        result = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start
        return result


def load(work: Workload, side: Side) -> Backbone:
    """The model as the frozen base."""
    settings: dict[str, Any] = {"name_or_path": work.model, "dtype": side.dtype, "sampling_copy": side.sampling_copy}
    backbone = load_base(work.model, ModelSection(**settings))
    if work.fixed_length:
        # The tokenizer's padding is past the vocabulary; any token will do, since masks come from lengths.
        backbone.encoder.pad_id = 0
    return backbone


def trainer_on(backbone: Backbone, work: Workload, side: Side) -> PPO:
    """PPO with all its roles."""
    adapter: dict[str, Any] = {"r": side.rank, "alpha": side.rank * LORA_ALPHA / LORA_RANK}
    lora = LoraSection(**adapter)
    models = {name: reward_model(backbone, name, lora, side.rewards) for name in DIMENSIONS}
    backbone.add_adapter(PPO.policy_adapter, lora)
    settings: dict[str, Any] = {
        "updates": work.warm_up + work.updates,
        "batch_size_episodes": work.episodes,
        "minibatch_size_episodes": work.minibatch,
        "micro_batch_size_episodes": work.micro_batch,
        "learning_rate": LEARNING_RATE,
        "value": side.value,
        "sampling": SamplingSection(
            temperature=1.0, max_new_tokens=work.new_tokens, batch_size_prompts=work.rollout_batch
        ),
    }
    return PPO(backbone, models, PPOSection(**settings), seed=0)


def reward_model(backbone: Backbone, name: str, lora: LoraSection, rewards: Path | None) -> RewardModel:
    """A trained reward model, or one with random weights."""
    if rewards is not None:
        return RewardModel.load(backbone, name, rewards / name)
    backbone.add_adapter(name, lora, trainable=False)
    with torch.no_grad():
        for parameter in backbone.adapter_parameters(name):
            parameter.normal_(std=0.02)
    model = RewardModel(backbone, name, head_name="linear", head_arguments={})
    model.head.requires_grad_(False)
    return model.eval()


def one_update(trainer: PPO, prompts: Sequence[EncodedPrompt], number: int, clock: Clock) -> Rollout:
    """The six steps of an update, as ``stages.ppo`` goes through them."""
    episodes = clock.time("sample", lambda: trainer.sample(prompts, number))
    rollout: Rollout = clock.time("score", lambda: trainer.score(episodes))
    gated = trainer.gate(rollout)
    rewards = trainer.token_rewards(gated)
    advantages = trainer.advantages(rollout, rewards)
    clock.time("update", lambda: trainer.update(rollout, advantages))
    rollout_metrics(gated, advantages)
    return rollout


def timed_updates(trainer: PPO, prompts: Sequence[Prompt], work: Workload) -> dict[str, Any]:
    """Warm-up and timed updates; returns the figures. Prompts are encoded before, as a stage does."""
    encoded, _ = encode_prompts(
        prompts,
        trainer.backbone.encoder,
        max_new_tokens=work.new_tokens,
        context_tokens=trainer.backbone.context_tokens,
        skip_too_long=False,
    )
    torch.manual_seed(0)
    clock = Clock({})
    lengths: list[int] = []
    stamps = [time.perf_counter()]
    batches = prompt_batches(encoded, work.episodes, seed=0)
    for number, batch in enumerate(islice(batches, work.warm_up + work.updates)):
        if number == work.warm_up:
            clock.seconds.clear()
        rollout = one_update(trainer, batch, number + 1, clock)
        lengths += rollout.episodes.response_lengths.tolist()
        stamps.append(time.perf_counter())
    steps = {step: round(seconds / work.updates, 3) for step, seconds in clock.seconds.items()}
    on_gpu = torch.cuda.is_available()
    return figures(
        work,
        stamps,
        lengths,
        side="tandem",
        dtype=str(trainer.backbone.dtype).removeprefix("torch."),
        seconds_per_step=steps,
        peak_rss_gib=round(peak_memory_gib(), 3),
        peak_gpu_gib=round(torch.cuda.max_memory_allocated() / 2**30, 3) if on_gpu else None,
    )


def measure(work: Workload, side: Side) -> dict[str, Any]:
    """Load everything, run the updates."""
    prompts, _ = load_prompts(work.prompts, on_error="raise")
    trainer = trainer_on(load(work, side), work, side)
    return {**timed_updates(trainer, prompts, work), "value": side.value}


def main(argv: Sequence[str] | None = None) -> None:
    """One measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Workload.add_arguments(parser)
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--value", choices=["adapter", "head"], default="head")
    parser.add_argument("--sampling-copy", action="store_true")
    parser.add_argument("--rewards", type=Path, help="folder of trained reward models")
    arguments = parser.parse_args(argv)
    work = Workload.from_arguments(arguments)
    torch.set_num_threads(work.threads)
    side = Side(
        dtype=arguments.dtype,
        value=arguments.value,
        sampling_copy=arguments.sampling_copy,
        rewards=arguments.rewards,
    )
    print_json(measure(work, side))


if __name__ == "__main__":
    keep_freed_memory()  # as every stage does
    main()
