"""The losses of a reward model: graded ranking, safe/unsafe discrimination, centring.

Sources: Llama 2, section 3.2.2, eq. 2 (ranking with a margin by grade) and Tables 27-29 in appendix A.3.3-4
(margins, safety auxiliary loss); Eisenstein et al. 2023 (arXiv:2312.09244), eq. 2 (centring).

Each loss is a sum over the pairs at hand divided by ``n_pairs``, the number of all pairs of the optimiser
step (labelled or not, in all micro-batches and processes). So the losses of micro-batches add up to that of
the whole batch, and weights between the three terms mean the same for any split. For the mean over one
batch pass its length.

Where the paper is silent:

1. Pairs without a grade have margin 0.
2. The auxiliary loss is the binary cross-entropy of both answers of a pair, summed; the weight is the
   caller's.

Shapes: B pairs (or answers, in ``safety_loss``). Scores are raw outputs of the head, before any sigmoid,
handled in float32 or wider.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from alignment.errors import UserError
from alignment.masking import at_least_float32, masked_sum, zero_padding

MARGINS: dict[str, dict[str, float]] = {
    "none": {"significantly_better": 0.0, "better": 0.0, "slightly_better": 0.0, "negligibly_better": 0.0},
    "small": {
        "significantly_better": 1.0,
        "better": 2 / 3,
        "slightly_better": 1 / 3,
        "negligibly_better": 0.0,
    },
    "large": {"significantly_better": 3.0, "better": 2.0, "slightly_better": 1.0, "negligibly_better": 0.0},
}
"""Name of a margin scheme -> grade -> margin m(r) (Llama 2, Table 27)."""


def grade_margins(grades: Sequence[str | None], *, scheme: str) -> Tensor:
    """Margins (B,) float32 of graded pairs; 0 for a pair without a grade.

    Raises:
        UserError: an unknown scheme or grade; lists the valid ones.
    """
    if scheme not in MARGINS:
        raise UserError(f"unknown margin scheme {scheme!r}; valid: {', '.join(MARGINS)}")
    table = MARGINS[scheme]
    unknown = sorted({grade for grade in grades if grade is not None and grade not in table})
    if unknown:
        raise UserError(f"unknown grades {', '.join(map(repr, unknown))}; valid: {', '.join(table)}")
    return torch.tensor([0.0 if grade is None else table[grade] for grade in grades], dtype=torch.float32)


def _check(n_pairs: int) -> None:
    """Refuse a normaliser without meaning."""
    if n_pairs < 1:
        raise ValueError(f"n_pairs must be the number of pairs of the optimiser step, at least 1, got {n_pairs}")


def _check_shapes(*tensors: Tensor) -> None:
    """Refuse what would broadcast: (B, 1) scores and (B,) margins make a (B, B) loss that still trains."""
    if any(tensor.shape != tensors[0].shape or tensor.dim() != 1 for tensor in tensors):
        raise ValueError(f"expected tensors of one shape (B,), got {[tuple(t.shape) for t in tensors]}")


def ranking_loss(chosen: Tensor, rejected: Tensor, margin: Tensor, *, n_pairs: int) -> Tensor:
    """``-log sigmoid(r_chosen - r_rejected - m)`` per pair (Llama 2, eq. 2), as a sum over ``n_pairs``.

    Args:
        chosen: (B,) raw scores of the preferred answers.
        rejected: (B,) raw scores of the others.
        margin: (B,) margins, 0 for ungraded pairs.
        n_pairs: pairs of the whole optimiser step.

    Returns:
        Scalar; the mean over pairs once all micro-batches are added.
    """
    _check(n_pairs)
    _check_shapes(chosen, rejected, margin)
    difference = at_least_float32(chosen) - at_least_float32(rejected) - at_least_float32(margin)
    # logsigmoid stays finite where log(sigmoid(x)) underflows to -inf (x below about -104).
    return -functional.logsigmoid(difference).sum() / n_pairs


def safety_loss(logits: Tensor, safe: Tensor, mask: Tensor, *, n_pairs: int) -> Tensor:
    """Cross-entropy of "this answer is safe" (Llama 2, section 3.2.2, Table 29), labelled answers only.

    Both answers of a pair take part: pass them concatenated, or add two calls; the result is the same.
    Anchors the raw score: its sigmoid becomes the probability of being safe, which the gate's 0.15 refers
    to.

    Args:
        logits: (B,) raw scores, one per answer.
        safe: (B,) bool or float, 1 = safe; anything where there is no label.
        mask: (B,) bool, True = the answer carries a label and counts.
        n_pairs: all pairs of the optimiser step, labelled or not.

    Returns:
        Scalar; 0 where nothing is labelled.
    """
    _check(n_pairs)
    _check_shapes(logits, safe, mask)
    kept = zero_padding(at_least_float32(logits), mask)
    labels = zero_padding(at_least_float32(safe), mask).to(kept.dtype)
    losses = functional.binary_cross_entropy_with_logits(kept, labels, reduction="none")
    return masked_sum(losses, mask) / n_pairs


def centering_loss(chosen: Tensor, rejected: Tensor, *, n_pairs: int) -> Tensor:
    """``(r_c + r_r)^2`` per pair (Eisenstein et al. 2023, eq. 2), summed and divided by ``n_pairs``.

    Ranking fixes only differences of scores; this pulls their mean to zero without touching the differences.

    Args:
        chosen: (B,) raw scores of the preferred answers.
        rejected: (B,) raw scores of the others.
        n_pairs: pairs of the whole optimiser step.
    """
    _check(n_pairs)
    _check_shapes(chosen, rejected)
    return (at_least_float32(chosen) + at_least_float32(rejected)).square().sum() / n_pairs
