"""Llamas with random weights, whose answers never end before their longest length, and prompts for them.

    python benchmarks/random_llama.py FOLDER --hidden 192 --layers 4

writes ``model/`` (bfloat16, as checkpoints mostly are) and ``prompts.jsonl`` into the folder.

A word is a token. Padding and stop token have ids past the model's vocabulary, so that the model cannot draw them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from ppo_workload import print_json
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alignment.data.records import Message, Prompt

CHAT_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
MARKS = ("<user>", "<assistant>")


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama."""

    hidden: int = 192
    intermediate: int = 512
    layers: int = 4
    heads: int = 6
    key_value_heads: int = 6
    vocabulary: int = 1024
    tied: int = 1
    """Whether embedding and output layer are one matrix."""
    context: int = 1024

    @property
    def config(self) -> LlamaConfig:
        """The model's configuration."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            max_position_embeddings=self.context,
            tie_word_embeddings=bool(self.tied),
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )

    @property
    def options(self) -> list[str]:
        """The command line that describes it."""
        return [f"--{name.replace('_', '-')}={value}" for name, value in asdict(self).items()]


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose stop and padding tokens are the two ids after the vocabulary."""
    words = [*MARKS, *(f"w{number}" for number in range(len(MARKS), vocabulary)), "<end>", "<pad>"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=words[2]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<end>",
        pad_token="<pad>",
        additional_special_tokens=list(MARKS),
        chat_template=CHAT_TEMPLATE,
    )


def random_prompts(count: int, *, tokens: int, vocabulary: int) -> list[Prompt]:
    """Prompts of exactly so many tokens, every third about safety."""
    rng = random.Random(0)
    texts = [
        " ".join(f"w{rng.randrange(len(MARKS), vocabulary)}" for _ in range(tokens - len(MARKS))) for _ in range(count)
    ]
    return [
        Prompt(
            id=f"p{number}",
            messages=(Message(role="user", content=text),),
            dimension="safety" if number % 3 == 2 else "helpfulness",
        )
        for number, text in enumerate(texts)
    ]


def write(folder: Path, shape: Shape, *, prompts: int, prompt_tokens: int) -> int:
    """Write model and prompts; returns the number of parameters."""
    parameters = save_model(folder / "model", shape, word_tokenizer(shape.vocabulary))
    records = random_prompts(prompts, tokens=prompt_tokens, vocabulary=shape.vocabulary)
    lines = [json.dumps(record.model_dump(mode="json", exclude_none=True)) + "\n" for record in records]
    (folder / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
    return parameters


def save_model(folder: Path, shape: Shape, tokenizer: PreTrainedTokenizerBase) -> int:
    """Write a model of random weights with its tokenizer; returns the number of parameters."""
    torch.manual_seed(0)
    model = LlamaForCausalLM._from_config(shape.config, dtype=torch.bfloat16)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return int(model.num_parameters())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path)
    for item in fields(Shape):
        made.add_argument(f"--{item.name.replace('_', '-')}", type=int, default=item.default)
    made.add_argument("--prompts", type=int, default=512)
    made.add_argument("--prompt-tokens", type=int, default=32)
    return made


def shape_from(arguments: argparse.Namespace) -> Shape:
    """The shape that a command line describes."""
    return Shape(**{item.name: getattr(arguments, item.name) for item in fields(Shape)})


def main(argv: Sequence[str] | None = None) -> None:
    """Write a folder."""
    arguments = parser().parse_args(argv)
    parameters = write(
        arguments.folder, shape_from(arguments), prompts=arguments.prompts, prompt_tokens=arguments.prompt_tokens
    )
    print_json({"parameters": parameters})


if __name__ == "__main__":
    main()
