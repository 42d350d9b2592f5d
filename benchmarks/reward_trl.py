"""The peer's side of the reward model benchmark: TRL's ``RewardTrainer``, in a process of its own.

    python benchmarks/reward_trl.py --folder FOLDER [--grouped]

``--grouped`` takes the pairs in the batches of similar length that ``reward_pairs.py`` made with the sampler of
``train_sampling_strategy="group_by_length"``. (The trainer drops the column with the lengths that this sampler asks
for, so that the setting alone fails.) The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from ppo_workload import LORA_ALPHA, LORA_RANK, print_json
from reward_workload import MODEL, ROLE, Pairs, RewardWork, TokenPair, Watch, watched
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from alignment.machine.device_and_processes import peak_memory_gib
from alignment.reward.reward_training import MIN_WARMUP_STEPS


def load(work: RewardWork) -> PeftModel:
    """The same model, adapter and head."""
    folder = Path(work.folder)
    dtype = getattr(torch, work.dtype)
    base = AutoModelForSequenceClassification.from_pretrained(str(folder / MODEL), num_labels=1, dtype=dtype)
    state = load_file(str(folder / ROLE / "adapter_model.safetensors"))
    lora = LoraConfig(
        r=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        target_modules=sorted({key.split(".lora_")[0].rpartition(".")[2] for key in state}),
        task_type="SEQ_CLS",
        modules_to_save=["score"],
    )
    model = get_peft_model(base, lora, autocast_adapter_dtype=False)
    state = {key.replace(".weight", ".default.weight"): value for key, value in state.items()}
    head = load_file(str(folder / ROLE / "head.safetensors"))["score.weight"]
    state["base_model.model.score.modules_to_save.default.weight"] = head
    found = model.load_state_dict(state, strict=False)
    assert not found.unexpected_keys, found.unexpected_keys
    assert not [key for key in found.missing_keys if ".lora_" in key], found.missing_keys
    return model


def settings(work: RewardWork, output: str, *, grouped: bool, steps: int) -> RewardConfig:
    """TRL's settings for the same work: the same optimiser, schedule and batches."""
    return RewardConfig(
        output_dir=output,
        seed=0,
        max_steps=steps,
        per_device_train_batch_size=work.batch,
        max_length=None,
        learning_rate=work.learning_rate,
        adam_beta2=0.95,
        adam_epsilon=1e-5,
        weight_decay=0.1,
        lr_scheduler_type="cosine_warmup_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=min(MIN_WARMUP_STEPS, steps),
        train_sampling_strategy="sequential" if grouped else "random",
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


def train(work: RewardWork, pairs: Sequence[TokenPair], *, grouped: bool) -> Watch:
    """One pass over some pairs, from the weights in the folder."""
    model = load(work)
    data = Dataset.from_dict(
        {
            "chosen_ids": [pair.prompt + pair.chosen for pair in pairs],
            "rejected_ids": [pair.prompt + pair.rejected for pair in pairs],
        }
    )
    with tempfile.TemporaryDirectory() as output, watched(model.get_input_embeddings()) as watch:
        RewardTrainer(
            model=model,
            args=settings(work, output, grouped=grouped, steps=len(pairs) // work.batch),
            processing_class=AutoTokenizer.from_pretrained(str(Path(work.folder) / MODEL)),
            train_dataset=data,
        ).train()
    return watch


def measure(work: RewardWork, *, grouped: bool) -> dict[str, Any]:
    """Warm up, then train on the timed pairs."""
    pairs = Pairs.read(Path(work.folder))
    train(work, pairs.warm_up, grouped=False)
    timed = pairs.in_groups if grouped else pairs.timed
    return train(work, timed, grouped=grouped).figures(
        work, timed, side="trl", peak_rss_gib=round(peak_memory_gib(), 3)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """One measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    RewardWork.add_arguments(parser)
    parser.add_argument("--grouped", action="store_true")
    arguments = parser.parse_args(argv)
    work = RewardWork.from_arguments(arguments)
    torch.set_num_threads(work.threads)
    print_json(measure(work, grouped=arguments.grouped))


if __name__ == "__main__":
    main()
