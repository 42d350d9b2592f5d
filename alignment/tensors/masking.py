"""Statistics and indices over padded batches: what counts is said by a mask, and masks come from lengths.

One convention in the whole project: a ``*_mask`` is bool and ``True`` means "counts". No mask is ever built
by comparing with a padding id, so padding and stop token may be the same id. What stands in padding
(garbage, infinities, NaN) never reaches a result or a gradient: it is replaced (``torch.where``) before any
arithmetic, not multiplied by zero.

Statistics are global: ``reduce`` sums a small tensor over all processes (the identity for one process), and
each process calls it equally often. Sums are accumulated in float64 (float32 on Apple's MPS, which has no
float64).

Shapes: B batch, T prompt+response, R response.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor element by element over all processes and gives every process the result."""

MIN_STD = 1e-6
"""Below this standard deviation values count as equal: whitening must not blow rounding up."""


class Moments(NamedTuple):
    """Population moments of the values that count, over all processes; float64 scalars."""

    n: Tensor
    mean: Tensor
    variance: Tensor


class Truncation(NamedTuple):
    """Where each response ends."""

    lengths: Tensor
    """(B,) int64, tokens that count; the stop token is one of them."""
    stopped: Tensor
    """(B,) bool, True where a stop token ended the response."""


def identity(tensor: Tensor) -> Tensor:
    """The ``reduce`` of a single process."""
    return tensor


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


def masked_moments(values: Tensor, mask: Tensor | None = None, *, reduce: Reduce = identity) -> Moments:
    """Number, mean and population variance over all processes; two passes, so a large mean costs no digits.

    Args:
        values: any shape.
        mask: same shape, True = counts; ``None`` means that all do.
        reduce: sum over processes; called twice.

    Returns:
        Moments; mean and variance are NaN where nothing counts on any process.
    """
    counts = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    kept = zero_padding(values.detach(), counts).to(wide)
    total, count = reduce(torch.stack([kept.sum(), counts.sum().to(wide)])).unbind()
    mean = total / count
    deviations = zero_padding(kept - mean, counts).square().sum()
    return Moments(n=count, mean=mean, variance=reduce(deviations) / count)


def whiten(values: Tensor, mask: Tensor | None = None, *, center: bool = True, reduce: Reduce = identity) -> Tensor:
    """Scale the values that count to standard deviation 1 over all processes, and to mean 0 if ``center``.

    ``center=False`` keeps the mean: ``(x - mean) / std + mean``. Equal values (``std < MIN_STD``; a single
    value is one such case) have no scale to divide by and are divided by 1: centred they become 0, else
    they stay as they are.

    Args:
        values: any shape.
        mask: same shape, True = counts; ``None`` means that all do.
        center: whether the result has mean 0.
        reduce: sum over processes.

    Returns:
        The shape of ``values``, at least float32, without gradient; exactly 0 where the mask is False.
    """
    counts = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    moments = masked_moments(values, counts, reduce=reduce)
    std = moments.variance.sqrt()
    scale = torch.where(std < MIN_STD, torch.ones_like(std), std)
    whitened = (values.detach().to(scale.dtype) - moments.mean) / scale
    if not center:
        whitened = whitened + moments.mean
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


def truncate_at_stop(token_ids: Tensor, stop_ids: Collection[int], *, max_lengths: Tensor | None = None) -> Truncation:
    """End each response at its first stop token, which is the last token that counts.

    Looks at the ids of the response only, and never asks what the padding id is. A row without a stop token
    keeps its full length.

    Args:
        token_ids: (B, R) response tokens, without the prompt.
        stop_ids: ids that end a response, at least one.
        max_lengths: (B,) tokens really sampled per row where that is fewer than R; later ids are filler,
            even if one equals a stop id.

    Returns:
        Truncation of lengths and of whether a stop token was met.
    """
    if not stop_ids:
        raise ValueError("no stop ids: nothing would ever end a response; give at least one")
    rows, size = token_ids.shape
    limit = torch.full((rows,), size, device=token_ids.device) if max_lengths is None else max_lengths
    is_stop = torch.isin(token_ids, torch.tensor(sorted(stop_ids), device=token_ids.device))
    is_stop = is_stop & lengths_to_mask(limit, size)
    ends = torch.arange(1, size + 1, device=token_ids.device)
    up_to_stop = torch.where(is_stop, ends, limit.to(ends.dtype).unsqueeze(1)).amin(dim=1)
    return Truncation(lengths=up_to_stop, stopped=is_stop.any(dim=1))
