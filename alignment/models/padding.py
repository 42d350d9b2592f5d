"""Token lists of different lengths as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WIDTH_MULTIPLE = 8


def padded_width(longest: int) -> int:
    """The least multiple of ``WIDTH_MULTIPLE`` that holds ``longest`` tokens.

    Kernels are compiled and cached by shape: a new width at every step costs more time and memory than the padding.
    """
    return -(-longest // WIDTH_MULTIPLE) * WIDTH_MULTIPLE


def pad_right(sequences: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Stack token lists to (B, T), padded on the right to a ``padded_width``, with their lengths (B,)."""
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=device)
    width = padded_width(int(lengths.max()))
    ids = torch.tensor([list(sequence) + [pad_id] * (width - len(sequence)) for sequence in sequences], device=device)
    return ids, lengths
