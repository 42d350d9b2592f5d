"""Statistics and indices over padded batches: what counts is said by a mask, and masks come from lengths.

One convention in the whole project: a ``*_mask`` is bool and ``True`` means "counts". No mask is ever built
by comparing with a padding id, so padding and stop token may be the same id. What stands in padding
(garbage, infinities, NaN) never reaches a result or a gradient: it is replaced (``torch.where``) before any
arithmetic, not multiplied by zero.

Moments are accumulated in float64 (float32 on Apple's MPS, which has no float64). Several processes need nothing
here: each of them holds the whole batch.

Shapes: B batch, T prompt+response, R response.
"""

from __future__ import annotations

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


def whiten(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Bring the values that count to mean 0 and standard deviation 1.

    Equal values (``std < MIN_STD``; a single value is one such case) have no scale to divide by: they become 0.

    Args:
        values: any shape.
        mask: same shape, True = counts; ``None`` means that all do.

    Returns:
        The shape of ``values``, at least float32, without gradient; exactly 0 where the mask is False.
    """
    counts = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    moments = masked_moments(values, counts)
    std = moments.variance.sqrt()
    scale = torch.where(std < MIN_STD, torch.ones_like(std), std)
    whitened = (values.detach().to(scale.dtype) - moments.mean) / scale
    return zero_padding(whitened, counts).to(at_least_float32(values).dtype)


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
