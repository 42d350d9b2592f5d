"""Settings of the model, how answers are drawn from it, the prompts, and the toy base model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alignment.settings.section import Count, Positive, Rate, Section, Share

TOY_MODEL = "toy"


class LoraSection(Section):
    """Low-rank adapters, one per role."""

    r: Positive = Field(16, description="rank of each adapter")
    alpha: Rate = Field(32, description="scale; the update is alpha/r * B A")
    dropout: Share = Field(0.0, description="dropout in adapters while SFT and reward models train; PPO has none")
    target_modules: Literal["all-linear"] | list[str] = Field("all-linear", description="layers that get an adapter")


class ModelSection(Section):
    """The base model that every stage starts from."""

    name_or_path: str = Field(description="'toy' (pretrained by stages.base), a folder, or a Hub name")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on GPUs and on processors with AMX or AVX512-BF16, else float32"
    )
    quantization: Literal["none", "nf4"] = Field("none", description="nf4 loads the frozen base in 4 bits")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")
    sampling_copy: bool = Field(
        False, description="keep a second copy of the base with the adapter merged in, to sample faster"
    )
    lora: LoraSection = LoraSection()  # type: ignore[call-arg]


class SamplingSection(Section):
    """How answers are drawn. No top-k and no top-p: what is sampled is what is trained."""

    temperature: Rate = Field(1.0, description="divides the logits")
    max_new_tokens: Positive = Field(400, description="longest answer")
    batch_size_prompts: Positive = Field(64, description="prompts decoded together")


class DataSection(Section):
    """Prompts, and what to do with lines that cannot be used."""

    prompts: str = Field(description="training prompts, JSONL")
    heldout_prompts: str | None = Field(None, description="held-out prompts, JSONL; never trained on")
    on_error: Literal["raise", "skip"] = Field("raise", description="malformed line: stop, or skip and count")
    too_long: Literal["raise", "skip"] = Field(
        "raise", description="longer than max_length_tokens: stop, or skip and count"
    )


class BaseSection(Section):
    """Pretraining of the toy base model."""

    corpus: str = Field("data/toy/pretraining.jsonl", description="documents, JSONL with a 'text' key")
    steps: Positive = Field(900, description="optimiser steps")
    batch_size_documents: Positive = Field(32, description="documents per step")
    learning_rate: Rate = Field(3e-2, description="peak, of AdamW on embeddings; linear warm-up, then linear to 0")
    matrix_learning_rate: Rate = Field(8e-3, description="peak, of Muon on the matrices of the blocks; same schedule")
    question_noise: Share = Field(
        0.3, description="share of the questions' words that are random ones instead, in every second document"
    )
    question_extra_words: Count = Field(
        8, description="random words at most that stand before or after a question, in every second document"
    )
    warmup_steps: Count = Field(50, description="optimiser steps")
    vocabulary_size: Positive = Field(3072, description="tokens of the byte-level BPE, special ones included")
    hidden_size: Positive = Field(192, description="width H")
    layers: Positive = Field(3, description="transformer blocks")
    heads: Positive = Field(6, description="attention heads; must divide hidden_size")
    context_tokens: Positive = Field(1024, description="longest dialogue")
