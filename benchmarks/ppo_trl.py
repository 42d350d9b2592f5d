"""The peer's side of the PPO benchmark: TRL 1.12.0, its last release with a PPO trainer, in a process of its own.

    pip install --no-deps --target .venv/bench-trl trl==1.12.0
    PYTHONPATH=.venv/bench-trl python benchmarks/ppo_trl.py --model runs/toy/sft --prompts data/toy/prompts.jsonl

A LoRA policy, the reference (the policy without its adapter), one reward model and a value model of its own, which is
trained in full: TRL has neither two reward models nor a LoRA value model. ``--precision`` is one of

    float32    everything in float32
    autocast   float32 weights, ``bf16=True`` (the default of TRL's configuration)
    bfloat16   all weights in bfloat16, adapters and what is trained included

The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from ppo_workload import LEARNING_RATE, LORA_ALPHA, LORA_RANK, Workload, figures, print_json
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer  # type: ignore[import-not-found,unused-ignore]

from alignment.data.dialogue_encoder import DialogueEncoder
from alignment.data.readers import load_prompts
from alignment.machine.device_and_processes import peak_memory_gib


class Stamps(TrainerCallback):
    """When the training began, and when each update ended."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def on_train_begin(self, *unused: Any, **unused_by_name: Any) -> None:
        """The first stamp."""
        self.stamps.append(time.perf_counter())

    def on_step_end(self, *unused: Any, **unused_by_name: Any) -> None:
        """The end of an update."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.stamps.append(time.perf_counter())


@dataclass
class Watch:
    """Keeps what was generated, to count its tokens afterwards."""

    generated: list[Tensor] = field(default_factory=list)

    def install(self) -> None:
        """Put itself between the trainer and its function that generates."""
        generate = ppo_trainer.batch_generation

        def watched(model: Any, queries: Tensor, *rest: Any) -> Any:
            rows, logits = generate(model, queries, *rest)
            self.generated.append(rows[:, queries.shape[1] :].cpu())
            return rows, logits

        ppo_trainer.batch_generation = watched

    def answer_tokens(self, stop_id: int | None) -> list[int]:
        """Length of every answer, its stop token included."""
        lengths: list[int] = []
        for answers in self.generated:
            seen_stop = answers.eq(-1 if stop_id is None else stop_id).cumsum(1)
            lengths += (seen_stop.eq(0).sum(1) + 1).clamp_max(answers.shape[1]).tolist()
        return lengths


def settings(work: Workload, precision: str, output: str) -> PPOConfig:
    """TRL's settings for the same work."""
    return PPOConfig(
        output_dir=output,
        per_device_train_batch_size=work.micro_batch,
        gradient_accumulation_steps=work.episodes // work.micro_batch,
        num_mini_batches=work.episodes // work.minibatch,
        total_episodes=work.episodes * (work.warm_up + work.updates),
        num_ppo_epochs=1,
        response_length=work.new_tokens,
        local_rollout_forward_batch_size=work.rollout_batch,
        stop_token=None if work.fixed_length else "eos",
        temperature=1.0,
        learning_rate=LEARNING_RATE,
        bf16=precision == "autocast",
        gradient_checkpointing=False,
        num_sample_generations=0,
        report_to=[],
        save_strategy="no",
        use_cpu=not torch.cuda.is_available(),
    )


def encoded(work: Workload, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """The prompts as token ids; TRL waits for ever for a batch that too few prompts never fill."""
    prompts, _ = load_prompts(work.prompts, on_error="raise")
    if len(prompts) < work.episodes:
        raise SystemExit(f"{work.prompts}: {len(prompts)} prompts do not fill an update of {work.episodes} episodes")
    encoder = DialogueEncoder(tokenizer)
    return Dataset.from_dict({"input_ids": [encoder.encode_prompt(prompt.messages) for prompt in prompts]})


def measure(work: Workload, precision: str) -> dict[str, Any]:
    """Load everything, run the updates."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(work.model, padding_side="left")
    base = AutoModelForCausalLM.from_pretrained(work.model, dtype=dtype)
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(work.model, num_labels=1, dtype=dtype) for _ in range(2)
    )
    for model in (base, reward, value):
        model.config.use_cache = False  # generating has a cache all the same; passes over whole rows need none
    lora = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    policy = get_peft_model(base, lora, autocast_adapter_dtype=False)
    data = encoded(work, tokenizer)
    stamps, watch = Stamps(), Watch()
    watch.install()
    with tempfile.TemporaryDirectory() as output:
        config = settings(work, precision, output)
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=policy,
            ref_model=None,
            reward_model=reward,
            value_model=value,
            train_dataset=data,
            eval_dataset=data.select(range(1)),
            callbacks=[stamps],
        )
        trainer.train()
    assert (config.batch_size, config.local_mini_batch_size) == (work.episodes, work.minibatch)
    on_gpu = torch.cuda.is_available()
    return figures(
        work,
        stamps.stamps,
        watch.answer_tokens(tokenizer.eos_token_id),
        side="trl",
        dtype=precision,
        peak_rss_gib=round(peak_memory_gib(), 3),
        peak_gpu_gib=round(torch.cuda.max_memory_allocated() / 2**30, 3) if on_gpu else None,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """One measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Workload.add_arguments(parser)
    parser.add_argument("--precision", choices=["float32", "autocast", "bfloat16"], default="float32")
    arguments = parser.parse_args(argv)
    work = Workload.from_arguments(arguments)
    torch.set_num_threads(work.threads)
    print_json(measure(work, arguments.precision))


if __name__ == "__main__":
    main()
