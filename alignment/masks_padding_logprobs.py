"""Padded batches: padding, statistics and indices by masks that come from lengths, and log-probabilities of tokens.

One convention in the whole project: a ``*_mask`` is bool and ``True`` means "counts". No mask is ever built
by comparing with a padding id, so padding and stop token may be the same id. What stands in padding
(garbage, infinities, NaN) never reaches a result or a gradient: it is replaced (``torch.where``) before any
arithmetic, not multiplied by zero.

Moments are accumulated in float64 (float32 on Apple's MPS, which has no float64). Several processes need nothing
here: each of them holds the whole batch.

Shapes: B batch, T prompt+response, R response, N tokens that count, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MIN_STD = 1e-6
"""Below this standard deviation values count as equal: whitening must not blow rounding up."""


class Moments(NamedTuple):
    """Population moments of the values that count; float64 scalars."""

    mean: Tensor
    variance: Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Widen bf16, fp16, bool and integers to float32; leave float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def lengths_to_mask(lengths: Tensor, size: int) -> Tensor:
    """Mask of the first ``lengths`` positions of each row.

    Args:
        lengths: (B,) integers between 0 and ``size``.
        size: number of columns.

    Returns:
        (B, size) bool, True where column < length.

    Raises:
        ValueError: a length is negative or exceeds ``size`` (tokens would be lost unseen).
    """
    if lengths.numel() and not 0 <= int(lengths.min()) <= int(lengths.max()) <= size:
        raise ValueError(f"lengths must lie between 0 and {size}, found {int(lengths.min())} to {int(lengths.max())}")
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(-1)


def zero_padding(values: Tensor, mask: Tensor) -> Tensor:
    """Values where ``mask`` is True, exactly zero elsewhere; NaN in padding stays out of result and gradient.

    Args:
        values: any shape.
        mask: same shape, bool, True = counts.
    """
    if mask.dtype != torch.bool or mask.shape != values.shape:
        raise ValueError(
            f"a mask is bool and shaped like its values {tuple(values.shape)}; "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    return torch.where(mask, values, torch.zeros_like(values))


def masked_sum(values: Tensor, mask: Tensor, *, dim: int | None = None) -> Tensor:
    """Sum of the values that count, over everything or along ``dim``; the sum of none is 0."""
    kept = zero_padding(values, mask)
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(values: Tensor, mask: Tensor, *, dim: int | None = None) -> Tensor:
    """Mean of the values that count, over everything or along ``dim``; of none it is NaN, not a silent 0."""
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(at_least_float32(values), mask, dim=dim) / count


def masked_variance(values: Tensor, mask: Tensor, *, dim: int | None = None) -> Tensor:
    """Population variance (divided by n) of the values that count; of one value it is 0, of none NaN."""
    kept = zero_padding(at_least_float32(values), mask)
    mean = masked_mean(kept, mask, dim=dim)
    centred = kept - (mean if dim is None else mean.unsqueeze(dim))
    return masked_mean(centred.square(), mask, dim=dim)


def masked_moments(values: Tensor, mask: Tensor | None = None) -> Moments:
    """Mean and population variance of the values that count; two passes, so a large mean costs no digits.

    Args:
        values: any shape.
        mask: same shape, True = counts; ``None`` means that all do.

    Returns:
        Moments; mean and variance are NaN where nothing counts.
    """
    counts = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    kept = zero_padding(values.detach(), counts).to(wide)
    count = counts.sum().to(wide)
    mean = kept.sum() / count
    deviations = zero_padding(kept - mean, counts).square().sum()
    return Moments(mean=mean, variance=deviations / count)


def take_tokens(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Picked positions of a batch, as rows of a matrix.

    The gradient of ``gather`` in three dimensions takes ten times as long on a processor.

    Args:
        values: (B, T) or (B, T, H).
        rows: (N,) row of ``values`` for each row of the result.
        columns: (N, W) columns of ``values``.

    Returns:
        (N, W) or (N, W, H).
    """
    places = rows[:, None] * values.shape[1] + columns
    return values.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape)


def last_index(mask: Tensor) -> Tensor:
    """Index of the last position that counts in each row.

    Args:
        mask: (B, T) bool, True = counts; left or right padded.

    Returns:
        (B,) int64.

    Raises:
        ValueError: nothing counts in some row; there is no such index, and -1 would silently mean another
            token.
    """
    empty = mask.any(dim=1).logical_not()
    if bool(empty.any()):
        raise ValueError(f"rows {empty.nonzero().flatten().tolist()} of the mask count no token")
    positions = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, positions, torch.full_like(positions, -1)).amax(dim=1)


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


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities (N, V), at least float32: bf16 has too few digits for ratios near 1."""
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    logits = at_least_float32(logits)
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)


def token_logprobs(logits: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """Log-probability of each target token at the temperature that the rollout was sampled at.

    Args:
        logits: (N, V), those that predict the targets, of the tokens that count only.
        targets: (N,) token ids.
        temperature: divides the logits, in the policy as in the reference.

    Returns:
        (N,), at least float32.
    """
    return _tempered(logits, temperature).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def entropy(logits: Tensor, *, temperature: float) -> Tensor:
    """Entropy in nats of each distribution (N, V) -> (N,); logits of -inf count as probability 0."""
    logprobs = _tempered(logits, temperature)
    # 0 * log 0 = 0: with a finite stand-in for -inf neither the product nor its gradient is NaN.
    logprobs = logprobs.clamp_min(torch.finfo(logprobs.dtype).min)
    return -(logprobs.exp() * logprobs).sum(dim=-1)
