"""Causal language models and their tokenizers: loading them, alone or as the base of all roles; merging an adapter.

Attention is in float32 for bfloat16 models on a processor: PyTorch's kernel for processors has no bfloat16 arithmetic
of its own, and its backward pass in bfloat16 takes about three times as long as in float32
(``benchmarks/cpu_kernels.py``). So queries, keys and values are widened around it, which costs little and rounds less.

Shapes of attention: B batch, N heads of queries, K heads of keys and values, T tokens, S tokens to attend to, D size of
a head.
"""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from alignment.data.chat_template import with_date
from alignment.data.dialogue_encoder import DialogueEncoder
from alignment.data.encoded_dialogues import Encoder
from alignment.errors import UserError
from alignment.files import content_hash
from alignment.machine.device_and_processes import pick_device
from alignment.models.backbone import Backbone, save_model
from alignment.models.model_places import check_there, why_not
from alignment.models.weights_from_files import Loaded, check_complete, load_weights, some
from alignment.settings.sections import ModelSection

LOGIT_TRANSFORMS = (
    "final_logit_softcapping",
    "logits_soft_cap",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier",
)


WIDENED_ATTENTION = "sdpa_float32"


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or the Hub; raise ``UserError`` if there is none."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(f"model.name_or_path={path}: no tokenizer there ({why_not(path, error)})") from error
    return tokenizer


def end_tokens_of(path: str, *, trust_remote_code: bool = False) -> list[int]:
    """Ids at which ``generate`` ends an answer of a model, by ``generation_config.json``, else ``config.json``.

    Args:
        path: a folder or a Hub name.
        trust_remote_code: the model's configuration may be code of its own.
    """
    try:
        found = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # it has none
        found = getattr(AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code), "eos_token_id", None)
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def load_causal_lm(path: str, settings: ModelSection, *, quantize: bool = True) -> PreTrainedModel:
    """Load a causal language model in the configured precision, in ``eval`` mode.

    Sampling defaults that come with a model (top-k, repetition penalty, ...) are dropped: what is sampled must be what
    the log-probabilities describe.

    Raises:
        UserError: nothing loadable at ``path``; a weight is missing, of another shape, cut off or not finite; or its
            logits are transformed after the output layer.
    """
    return _load_causal_lm(path, settings, quantize=quantize).model


def _load_causal_lm(path: str, settings: ModelSection, *, quantize: bool) -> Loaded:
    # The precision of the weights, 4-bit where that is asked for.
    dtype = resolve_dtype(settings.dtype)
    quantization = None
    if quantize and settings.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    # Load the weights.
    origin = f"model.name_or_path={path}"
    loaded = load_weights(
        AutoModelForCausalLM,
        path,
        what="causal language model",
        origin=origin,
        dtype=dtype,
        quantization_config=quantization,
        trust_remote_code=settings.trust_remote_code,
        device_map={"": pick_device()} if quantization else None,
    )
    check_complete(loaded, origin)
    model = loaded.model
    # Refuse models that change their logits after the output layer.
    transformed = [name for name in LOGIT_TRANSFORMS if getattr(model.config, name, None) not in (None, 1, 1.0)]
    if transformed:
        raise UserError(f"{path}: models with {transformed[0]} are not supported: log-probabilities would be wrong")
    # Put the model on its device, with the faster attention.
    if quantization:
        _keep_nf4_differentiable(model)
    else:
        nn.Module.to(model, pick_device())
    use_fast_attention(model)
    # Drop the sampling defaults; training passes need no KV cache.
    model.generation_config = GenerationConfig()
    model.config.use_cache = False
    model.eval()
    return loaded


def _keep_nf4_differentiable(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking weights for a CPU kernel that has no backward pass.

    One no-grad forward in ``eval`` would do so, and every later gradient would be wrong.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def load_base(path: str | Path, settings: ModelSection, *, today: date | None = None) -> Backbone:
    """The frozen base of all roles, with its tokenizer and its encoder, from a folder or the Hub.

    Args:
        path: of the model.
        settings: its precision, and whether its code may be run.
        today: what a chat template that writes the date is to write from now on; default: the date of today.
    """
    check_there(str(path), f"model.name_or_path={path}")
    base, _, unexpected = _load_causal_lm(str(path), settings, quantize=True)
    tokenizer = load_tokenizer(str(path), trust_remote_code=settings.trust_remote_code)
    if settings.sampling_copy and settings.quantization != "none":
        raise UserError("model.sampling_copy needs model.quantization=none: adapters do not merge into 4-bit weights")
    if isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = with_date(tokenizer.chat_template, today or date.today())
    ends = end_tokens_of(str(path), trust_remote_code=settings.trust_remote_code)
    encoder = DialogueEncoder(tokenizer, eos_token_ids=ends)
    backbone = Backbone(base, tokenizer, encoder, sampling_copy=settings.sampling_copy)
    backbone.trust_remote_code = settings.trust_remote_code
    backbone.unexpected_weights = unexpected
    return backbone


def check_trainable(backbone: Backbone, settings: ModelSection) -> None:
    """Raise ``UserError`` where a model cannot be trained as a recipe says.

    A layer that is to get an adapter is not there, or a token that can occur has no embedding: of texts, ends and
    padding. Further special tokens, which tokenizers are given by their class, stand in no text.
    """
    backbone.check_layers(settings.lora)
    embedding = backbone.base.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding), "of a causal language model"
    tokenizer, encoder = backbone.tokenizer, backbone.encoder
    by_number = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special, used = set(tokenizer.added_tokens_decoder), {encoder.pad_id, *encoder.stop_ids}
    occurring = [(token, number) for token, number in by_number if number not in special or number in used]
    unknown = [repr(token) for token, number in occurring if number >= embedding.num_embeddings]
    if unknown:
        raise UserError(
            f"model.name_or_path={backbone.path}: the model has {embedding.num_embeddings} embeddings, and none for "
            f"{len(unknown)} tokens of its tokenizer: {some(unknown)}. Take the tokenizer that belongs to the model."
        )


def merge_and_save(base: str, adapter: Path, settings: ModelSection, encoder: Encoder, folder: Path) -> None:
    """Merge an adapter into an unquantised copy of its base and save a standard model folder.

    Args:
        base: folder or Hub name of the base.
        adapter: folder of the adapter.
        settings: precision of the weights, and whether Python code that comes with the model may run.
        encoder: its stop and pad tokens become the model's defaults for ``generate``.
        folder: the folder to make.
    """
    model = load_causal_lm(base, settings, quantize=False)
    save_model(PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(), encoder, folder)


def attention_in_float32(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Transformers' ``sdpa`` on widened inputs; the result is in the inputs' own format.

    Args:
        module: the attention layer that calls.
        query: (B, N, T, D).
        key: (B, K, S, D), cached tokens included.
        value: (B, K, S, D).
        attention_mask: (B, 1, T, S) bool, True = attended to, or floats to add to the scores; ``None``: no mask.
        **options: passed on to ``sdpa``, such as the scaling.

    Returns:
        The output (B, T, N, D), and ``None`` in place of the attention weights.
    """
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **options)
    return output.to(query.dtype), None


AttentionInterface.register(WIDENED_ATTENTION, attention_in_float32)
AttentionMaskInterface.register(WIDENED_ATTENTION, sdpa_mask)


def use_fast_attention(model: PreTrainedModel) -> None:
    """Widen the attention of ``model`` where that is faster: in bfloat16, on a processor, with PyTorch's kernel."""
    on_processor = next(model.parameters()).device.type == "cpu"
    if on_processor and model.dtype == torch.bfloat16 and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(WIDENED_ATTENTION)


def same_model(one: str, other: str) -> bool:
    """Whether two names mean the same weights: one name, one folder, or folders with equal weight files."""
    if one == other or Path(one).resolve() == Path(other).resolve():
        return True
    found = weights_hash(one)
    return found is not None and found == weights_hash(other)


def weights_hash(path: str) -> str | None:
    """By what a base is known wherever it lies: a hash of its weight files; ``None`` where there are none."""
    hashes = [f"{file.name} {content_hash(file)}" for file in sorted(Path(path).glob("*.safetensors"))]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16] if hashes else None


def resolve_dtype(name: str) -> torch.dtype:
    """The number format of the frozen base; ``auto`` is bfloat16 where the hardware multiplies in it."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("amx_bf16", False) or capabilities.get("avx512_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def dtype_name(dtype: torch.dtype) -> Literal["float32", "bfloat16"]:
    """The name of a number format in ``model.dtype``."""
    return "bfloat16" if dtype == torch.bfloat16 else "float32"
