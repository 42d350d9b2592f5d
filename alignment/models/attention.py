"""Attention in float32 for bfloat16 models on a processor.

PyTorch's attention kernel for processors has no bfloat16 arithmetic of its own: its backward pass in bfloat16 takes
about three times as long as in float32 (``benchmarks/cpu_kernels.py``). So queries, keys and values are widened
around it, which costs little and rounds less.

Shapes: B batch, N heads of queries, K heads of keys and values, T tokens, S tokens to attend to, D size of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_float32"


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


AttentionInterface.register(NAME, attention_in_float32)
AttentionMaskInterface.register(NAME, sdpa_mask)


def use_fast_attention(model: PreTrainedModel) -> None:
    """Widen the attention of ``model`` where that is faster: in bfloat16, on a processor, with PyTorch's kernel."""
    on_processor = next(model.parameters()).device.type == "cpu"
    if on_processor and model.dtype == torch.bfloat16 and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)
