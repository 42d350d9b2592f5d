"""Token lists of different lengths as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WIDTH_MULTIPLE = 8
CPU_PASS_TOKENS, GPU_PASS_TOKENS = 256, 1024
"""What one more pass through a model costs, in tokens of padding that it has to save: measured, and estimated."""


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


def group_by_length(lengths: Tensor, *, most: int) -> list[Tensor]:
    """Rows in groups that pass together, each padded to its own longest: indices into ``lengths`` (B,)."""
    ascending, order = lengths.sort()
    pass_tokens = CPU_PASS_TOKENS if lengths.device.type == "cpu" else GPU_PASS_TOKENS
    return list(order.split(group_sizes(ascending.tolist(), pass_tokens=pass_tokens, most=most)))


def group_sizes(lengths: Sequence[int], *, pass_tokens: int, most: int) -> list[int]:
    """Sizes of the groups for which padding and passes together cost least.

    Args:
        lengths: tokens of each row, ascending.
        pass_tokens: cost of a pass, in tokens.
        most: rows at most in a group.
    """
    costs, sizes = [0], [0]  # of the cheapest way to pass the first rows, and the size of its last group
    for end, length in enumerate(lengths, start=1):
        width = padded_width(length)
        cost, size = min((costs[end - rows] + rows * width, rows) for rows in range(1, min(most, end) + 1))
        costs.append(cost + pass_tokens)
        sizes.append(size)
    found: list[int] = []
    end = len(lengths)
    while end:
        found.append(sizes[end])
        end -= sizes[end]
    return found[::-1]
