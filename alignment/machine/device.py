"""The device that models run on, and the number format of their weights."""

from __future__ import annotations

import os
from typing import Literal

import torch
from accelerate.utils import parse_flag_from_env


def pick_device() -> torch.device:
    """The device this process works on: with several on one machine, each has its own GPU.

    ``ACCELERATE_USE_CPU=1`` keeps to the processor.
    """
    if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


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
