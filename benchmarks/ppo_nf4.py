"""PPO with all five roles on a random Llama in 4 bits: peak memory and seconds per update, in a process of its own.

    python benchmarks/ppo_nf4.py --layers 2 --hidden 64 --intermediate 128 --heads 2 --key-value-heads 2

The model is made and quantised one block at a time, so that neither the machine nor its GPU ever holds it in 16 bits.
The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import bitsandbytes
import torch
from ppo_ours import Side, timed_updates, trainer_on
from ppo_workload import Workload, print_json
from random_llama import Shape, random_prompts, shape_from, word_tokenizer
from torch import nn
from transformers import GenerationConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from alignment.data.dialogue_encoder import DialogueEncoder
from alignment.machine.device_and_processes import pick_device
from alignment.models.backbone import Backbone
from alignment.models.pretrained import use_fast_attention

DEVIATION = 0.02
"""Of random weights."""


def random_nf4_llama(shape: Shape) -> LlamaForCausalLM:
    """A Llama whose blocks have 4-bit matrices; embeddings, norms and output layer are in bfloat16, as in QLoRA."""
    config = shape.config
    config.num_hidden_layers = 0
    with bfloat16_on(pick_device()):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
        for number in range(shape.layers):
            block = LlamaDecoderLayer(model.config, number)
            quantize_linear_layers(block)
            model.model.layers.append(block)
    model.config.num_hidden_layers = shape.layers
    model.config._name_or_path = "random"
    model.is_loaded_in_4bit = True  # what PEFT goes by
    use_fast_attention(model)
    model.generation_config = GenerationConfig()
    model.config.use_cache = False
    return model.eval()


@contextmanager
def bfloat16_on(device: torch.device) -> Iterator[None]:
    """New tensors are in bfloat16 and on a device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def quantize_linear_layers(block: nn.Module) -> None:
    """Replace each linear layer of a block by a random one in NF4 with double quantisation."""
    for parent in list(block.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=DEVIATION)
                setattr(parent, name, nf4(layer))


def nf4(layer: nn.Linear) -> bitsandbytes.nn.Linear4bit:
    """A 4-bit copy of a linear layer without bias."""
    made = bitsandbytes.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    made.weight = bitsandbytes.nn.Params4bit(
        layer.weight.detach(), requires_grad=False, compress_statistics=True, quant_type="nf4", module=made
    )
    made.support_avx512bf16_for_cpu = False  # that kernel has no backward pass
    return made.to(layer.weight.device)


def measure(work: Workload, shape: Shape, *, rank: int, prompt_tokens: int) -> dict[str, Any]:
    """Make the model and its roles, run the updates."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer(shape.vocabulary)
    backbone = Backbone(random_nf4_llama(shape), tokenizer, DialogueEncoder(tokenizer), sampling_copy=False)
    backbone.encoder.pad_id = 0  # the tokenizer's is past the vocabulary
    side = Side(value="adapter", rank=rank)
    trainer = trainer_on(backbone, work, side)
    prompts = random_prompts(work.episodes, tokens=prompt_tokens, vocabulary=shape.vocabulary)
    found = timed_updates(trainer, prompts, work)
    quantized = [layer for layer in backbone.base.modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    weights = sum(layer.in_features * layer.out_features for layer in quantized)
    return {**found, "value": side.value, "rank": rank, "prompt_tokens": prompt_tokens, "nf4_weights": weights}


def main(argv: Sequence[str] | None = None) -> None:
    """One measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Workload.add_arguments(parser)
    for item in fields(Shape):
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=int, default=item.default)
    parser.add_argument("--rank", type=int, default=64, help="of the adapters")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    arguments = parser.parse_args(argv)
    work = replace(Workload.from_arguments(arguments), fixed_length=True)
    torch.set_num_threads(work.threads)
    print_json(measure(work, shape_from(arguments), rank=arguments.rank, prompt_tokens=arguments.prompt_tokens))


if __name__ == "__main__":
    main()
