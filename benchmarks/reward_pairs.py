"""Makes what the sides of the reward model benchmark train: pairs as token ids, a random Llama, adapter and head.

    python benchmarks/reward_pairs.py FOLDER --data hh.jsonl.gz

The tokenizer is the toy's kind of BPE, trained on the transcripts themselves, so that they have the lengths that they
would have with a real model. The timed pairs are whole batches, at even distances from the shortest to the longest, of
those that the length-grouping sampler of ``transformers`` makes out of all pairs: TRL grouped by length has the batches
of an epoch over everything, and all sides have the same pairs. The last line of the output is a JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import random_llama
import torch
from ppo_workload import LORA_ALPHA, LORA_RANK, print_json
from reward_workload import MODEL, PAIRS, ROLE
from transformers.trainer_pt_utils import get_length_grouped_indices

from alignment.data.dialogue_encoder import DialogueEncoder
from alignment.data.readers import load_comparisons
from alignment.data.records import Comparison
from alignment.models.pretrained import load_base
from alignment.models.scorers.reward_model import RewardModel
from alignment.reward.encoded_pairs import EncodedPair, encode_pairs
from alignment.settings.sections import LoraSection, ModelSection
from alignment.toy.toy_tokenizer import train_tokenizer


def texts_of(comparisons: Sequence[Comparison]) -> list[str]:
    """Everything that is said in some comparisons."""
    return [message.content for item in comparisons for message in (*item.prompt, *item.chosen, *item.rejected)]


def longest(pair: EncodedPair) -> int:
    """Tokens of the longer dialogue of a pair: what the pair is padded to at least."""
    return len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))


def grouped_batches(pairs: Sequence[EncodedPair], batch: int) -> list[list[int]]:
    """Indices of all pairs in full batches of similar length, as ``transformers`` groups them."""
    order = get_length_grouped_indices(
        [longest(pair) for pair in pairs], batch, generator=torch.Generator().manual_seed(0)
    )
    return [order[start : start + batch] for start in range(0, len(order) - batch + 1, batch)]


def chosen_pairs(pairs: Sequence[EncodedPair], *, batch: int, steps: int, warm_up: int) -> dict[str, object]:
    """The timed pairs in random order, the same in groups, and others to warm up with."""
    batches = grouped_batches(pairs, batch)
    if len(batches) < steps + warm_up:
        raise SystemExit(f"{len(pairs)} pairs are too few for {steps} + {warm_up} steps of {batch}")
    batches.sort(key=lambda found: sum(longest(pairs[index]) for index in found))
    places = [(2 * step + 1) * len(batches) // (2 * steps) for step in range(steps)]
    grouped = [index for place in places for index in batches[place]]
    rest = [index for place, found in enumerate(batches) if place not in places for index in found]
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(len(grouped), generator=generator).tolist()
    others = torch.randperm(len(rest), generator=generator)[: warm_up * batch].tolist()
    tokens = [[pair.prompt_ids, pair.chosen_ids, pair.rejected_ids] for pair in pairs]
    return {
        "timed": [tokens[grouped[place]] for place in order],
        "grouped": torch.tensor(order).argsort().tolist(),
        "warm_up": [tokens[rest[place]] for place in others],
    }


def write(folder: Path, data: str, shape: random_llama.Shape, *, batch: int, steps: int, warm_up: int) -> int:
    """Write everything; returns the number of the base's parameters."""
    comparisons, _ = load_comparisons(data, dimension="safety", on_error="skip")
    tokenizer = train_tokenizer(texts_of(comparisons), vocabulary_size=shape.vocabulary, context_tokens=shape.context)
    parameters = random_llama.save_model(folder / MODEL, shape, tokenizer)
    pairs, _, _ = encode_pairs(
        comparisons, DialogueEncoder(tokenizer), margin="none", max_length_tokens=shape.context, skip_too_long=True
    )
    found = chosen_pairs(pairs, batch=batch, steps=steps, warm_up=warm_up)
    (folder / PAIRS).write_text(json.dumps(found), encoding="utf-8")
    backbone = load_base(folder / MODEL, ModelSection(name_or_path=MODEL, dtype="float32"))  # type: ignore[call-arg]
    backbone.add_adapter(ROLE, LoraSection(r=LORA_RANK, alpha=LORA_ALPHA))  # type: ignore[call-arg]
    RewardModel(backbone, ROLE, head_name="linear", head_arguments={}).save(folder / ROLE, calibration={})
    return parameters


def main(argv: Sequence[str] | None = None) -> None:
    """Write a folder."""
    parser = random_llama.parser()
    parser.description = __doc__
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warm-up", type=int, default=2)
    arguments = parser.parse_args(argv)
    parameters = write(
        arguments.folder,
        arguments.data,
        random_llama.shape_from(arguments),
        batch=arguments.batch,
        steps=arguments.steps,
        warm_up=arguments.warm_up,
    )
    print_json({"parameters": parameters})


if __name__ == "__main__":
    main()
