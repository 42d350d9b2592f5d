"""Tandem's side of the reward model benchmark: one measurement in a process of its own.

    python benchmarks/reward_ours.py --folder FOLDER

Trains by ``train_reward_model``, as the stage does. The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ppo_workload import print_json
from reward_workload import MODEL, ROLE, Pairs, RewardWork, TokenPair, Watch, watched
from safetensors.torch import load_file

from alignment.machine.device_and_processes import keep_freed_memory, peak_memory_gib
from alignment.models.pretrained import load_base
from alignment.models.scorers.reward_model import RewardModel
from alignment.reward.encoded_pairs import EncodedPair
from alignment.reward.reward_training import train_reward_model
from alignment.settings.reward_sections import RewardModelSection
from alignment.settings.sections import ModelSection


def load(work: RewardWork) -> RewardModel:
    """The model with its adapter and head, ready to train."""
    folder = Path(work.folder)
    settings: dict[str, Any] = {"name_or_path": MODEL, "dtype": work.dtype}
    backbone = load_base(folder / MODEL, ModelSection(**settings))
    backbone.load_adapter(ROLE, folder / ROLE, trainable=True)
    model = RewardModel(backbone, ROLE, head_name="linear", head_arguments={})
    model.head.load_state_dict(load_file(str(folder / ROLE / "head.safetensors")))
    return model


def train(work: RewardWork, pairs: Sequence[TokenPair]) -> Watch:
    """One pass over some pairs, from the weights in the folder."""
    model = load(work)
    settings: dict[str, Any] = {
        "epochs": 1,
        "learning_rate": work.learning_rate,
        "batch_size_pairs": work.batch,
        "micro_batch_size_pairs": work.batch,
    }
    with watched(model.backbone.base.get_input_embeddings()) as watch:
        train_reward_model(
            model,
            model.backbone.tokenizer,
            [EncodedPair(pair.prompt, pair.chosen, pair.rejected, 0.0, True, True, labelled=False) for pair in pairs],
            RewardModelSection(**settings),
            seed=0,
            trainer={},
            on_step=lambda *unused: None,
        )
    return watch


def measure(work: RewardWork) -> dict[str, Any]:
    """Warm up, then train on the timed pairs."""
    pairs = Pairs.read(Path(work.folder))
    train(work, pairs.warm_up)
    return train(work, pairs.timed).figures(work, pairs.timed, side="tandem", peak_rss_gib=round(peak_memory_gib(), 3))


def main(argv: Sequence[str] | None = None) -> None:
    """One measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    RewardWork.add_arguments(parser)
    work = RewardWork.from_arguments(parser.parse_args(argv))
    torch.set_num_threads(work.threads)
    print_json(measure(work))


if __name__ == "__main__":
    keep_freed_memory()  # as every stage does
    main()
