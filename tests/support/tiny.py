"""Models of a few thousand random weights with a tokenizer, made on the spot, and what tests ask of them.

Their weights are larger than a real initialisation, so that logits, scores and gradients are far from flat; the stop
token is made likely, so that short samples contain both stopped and unstopped answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from alignment.data.encoded_dialogues import EncodedAnswer, EncodedPrompt
from alignment.data.records import Message, Prompt
from alignment.models.backbone import Backbone
from alignment.models.pretrained import load_base
from alignment.models.scorers.reward_model import RewardModel
from alignment.settings.sections import LoraSection, ModelSection

Family = Literal["llama", "qwen2", "qwen3"]
HIDDEN = 16
STOP_LOGIT = 5.3
LORA = LoraSection(r=2, alpha=4)
SPECIALS = ("<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXTS = ("what is it", "the cat sat", "is the sky blue or is it grey today", "why", "tell me of the sea and the sun")


def tiny_tokenizer(*, pad_is_eos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE with a few merges and the markers of a chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = len(alphabet) + len(SPECIALS) + 10
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXTS * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|end|>" if pad_is_eos else "<|pad|>",
        bos_token="<|begin|>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
    )


def tiny_causal_lm(family: Family, vocabulary: int, *, hidden: int, stop_id: int) -> PreTrainedModel:
    """A random model of two blocks whose stop token has a probability of about one in ten at each step."""
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 96,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": stop_id,
        "pad_token_id": None,
    }
    torch.manual_seed(1)
    model: PreTrainedModel
    if family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape))
    elif family == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape))
    else:
        model = Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=hidden // 4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter[0] = 0.0
        # Unit 0 of the residual stream is the same in every position: the stop token's logit is lifted through it.
        model.get_input_embeddings().weight[:, 0] = 2.0
        states = model.base_model(torch.arange(10, 60)[None]).last_hidden_state
        model.get_output_embeddings().weight *= 1.7
        model.get_output_embeddings().weight[stop_id] = 0.0
        model.get_output_embeddings().weight[stop_id, 0] = STOP_LOGIT / states[0, :, 0].mean()
    return model.eval()


def save_tiny_model(folder: Path, *, family: Family = "llama", pad_is_eos: bool = False, hidden: int = HIDDEN) -> Path:
    """Write a standard model folder; returns it."""
    tokenizer = tiny_tokenizer(pad_is_eos=pad_is_eos)
    model = tiny_causal_lm(family, len(tokenizer), hidden=hidden, stop_id=tokenizer.eos_token_id)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def tiny_settings(**changes: Any) -> ModelSection:
    """Settings of a model section for the CPU, in float32 unless changed."""
    return ModelSection(**{"name_or_path": "tiny", "dtype": "float32", "lora": LORA, **changes})


def load_tiny(folder: Path, **changes: Any) -> Backbone:
    """A backbone on a folder that ``save_tiny_model`` wrote."""
    return load_base(folder, tiny_settings(**changes))


def randomize(backbone: Backbone, role: str, *, seed: int = 0, scale: float = 0.15) -> None:
    """Give an adapter an update that matters (a fresh one's is zero)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.adapter_parameters(role):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def add_role(backbone: Backbone, role: str, *, seed: int = 0, trainable: bool = True) -> None:
    """Add an adapter with random weights."""
    backbone.add_adapter(role, LORA, trainable=trainable)
    randomize(backbone, role, seed=seed)


def add_reward_model(backbone: Backbone, role: str, *, seed: int = 0, head_name: str = "linear") -> RewardModel:
    """Add a frozen reward model with random weights."""
    add_role(backbone, role, seed=seed, trainable=False)
    torch.manual_seed(seed)
    model = RewardModel(backbone, role, head_name=head_name, head_arguments={}, offset=0.25)
    for name, parameter in model.head.named_parameters():
        if name.startswith("likelihood"):  # starts at zero
            nn.init.normal_(parameter, std=0.01)
    model.head.requires_grad_(False)
    return model.eval()


def state_of(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Copies of some parameters, to compare with later."""
    return [parameter.detach().clone() for parameter in parameters]


def unchanged(parameters: Sequence[nn.Parameter], before: Sequence[Tensor]) -> bool:
    """Whether every parameter is bit for bit what it was."""
    return all(torch.equal(parameter, old) for parameter, old in zip(parameters, before, strict=True))


def base_parameters(backbone: Backbone) -> list[nn.Parameter]:
    """The parameters of the frozen base, without any adapter's."""
    return [parameter for name, parameter in backbone.base.named_parameters() if "lora_" not in name]


def separate_model(backbone: Backbone, role: str, folder: Path, *, trainable: bool = False) -> PeftModel:
    """The base loaded a second time, with a saved copy of one adapter on it and nothing else."""
    backbone.save_adapter(role, folder)
    base = AutoModelForCausalLM.from_pretrained(backbone.path, dtype=backbone.dtype)
    return PeftModel.from_pretrained(base, str(folder), is_trainable=trainable, autocast_adapter_dtype=False).eval()


def token_rows(*lengths: int, seed: int = 0) -> list[list[int]]:
    """Random sequences of ordinary tokens."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(len(SPECIALS), 200, (length,), generator=generator).tolist() for length in lengths]


def as_answers(rows: Sequence[Sequence[int]]) -> list[EncodedAnswer]:
    """Each row with its second half as the answer."""
    return [EncodedAnswer(list(row[: len(row) // 2]), list(row[len(row) // 2 :])) for row in rows]


def tiny_prompts(count: int) -> list[Prompt]:
    """Prompts of mixed lengths, every third about safety."""
    return [
        Prompt(
            id=f"p{number}",
            messages=(Message(role="user", content=f"{TEXTS[number % len(TEXTS)]} {number}"),),
            dimension="safety" if number % 3 == 2 else "helpfulness",
        )
        for number in range(count)
    ]


def encoded_prompts(backbone: Backbone, count: int) -> list[EncodedPrompt]:
    """The same as a backbone reads them."""
    return [EncodedPrompt(prompt, backbone.encoder.encode_prompt(prompt.messages)) for prompt in tiny_prompts(count)]
