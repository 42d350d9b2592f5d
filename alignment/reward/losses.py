"""The losses of a reward model: graded preference, safe/unsafe discrimination, centring.

Sources: Llama 2, section 3.2.2, eq. 2 (ranking with a margin by grade) and Tables 27-29 in appendix A.3.3-4
(margins, safety auxiliary loss); Wang et al. 2024 (arXiv:2410.01257), section 4 (scaled Bradley-Terry); Eisenstein et
al. 2023 (arXiv:2312.09244), eq. 2 (centring).

``reward_loss`` is all of it; its example is eq. 2 in one line. A preference loss sees the log-odds that the chosen
answer is better, margin included: for a head with one score, ``r_chosen - r_rejected - m``. To add one, put a function
of log-odds and strength into ``LOSSES``; from a file of your own, that is ``LOSSES["mine"] = my_loss`` and
``plugins=[my_losses.py]``.

Each loss is a sum over the pairs at hand divided by ``n_pairs``, the number of all pairs of the optimiser
step (labelled or not, in all micro-batches and processes). So the losses of micro-batches add up to that of
the whole batch, and weights between the three terms mean the same for any split. For the mean over one
batch pass its length.

Where the paper is silent:

1. Pairs without a grade have margin 0 and strength 1.
2. The auxiliary loss is the binary cross-entropy of both answers of a pair, summed; the weight is the
   caller's.

Shapes: B pairs (or answers, in ``safety_loss``), M opinions of the head on an answer, M' statements on a pair or scores
of an answer that a head makes of its opinions. Scores are raw outputs of the head, before any sigmoid, handled in
float32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from alignment.data.records import MARGINS
from alignment.errors import UserError
from alignment.masks_padding_logprobs import at_least_float32, masked_sum, zero_padding

STRENGTHS = MARGINS["large"]
"""Grade -> strength of the scaled loss: 3, 2, 1, and 0 for what counts as a tie there (Wang et al. 2024)."""

PairLoss = Callable[[Tensor, Tensor], Tensor]
"""Log-odds (B,) that the chosen answer is better, and strengths (B,) of preference -> losses (B,)."""


def bradley_terry(log_odds: Tensor, strength: Tensor) -> Tensor:
    """``-log sigmoid(log-odds)`` per pair (Llama 2, eq. 2); the strength counts through the margin only."""
    # logsigmoid stays finite where log(sigmoid(x)) underflows to -inf (x below about -104).
    return -functional.logsigmoid(log_odds)


def scaled_bradley_terry(log_odds: Tensor, strength: Tensor) -> Tensor:
    """``-strength * log sigmoid(log-odds)``: a pair judged twice as strongly counts twice (Wang et al. 2024)."""
    return -strength * functional.logsigmoid(log_odds)


LOSSES: dict[str, PairLoss] = {"ranking": bradley_terry, "scaled": scaled_bradley_terry}
"""Name in the configuration -> preference loss."""


def preference_loss_named(name: str) -> PairLoss:
    """The preference loss of a name; raise ``UserError`` that lists the valid ones."""
    if name not in LOSSES:
        raise UserError(
            f"unknown preference loss {name!r}; valid: {', '.join(sorted(LOSSES))}. A loss of your own is known once "
            "plugins=[...] names the file that it is in."
        )
    return LOSSES[name]


def margin_table(margin: str | Mapping[str, float]) -> Mapping[str, float]:
    """Grade -> margin, of a scheme's name or as it is given; raise ``UserError`` for an unknown name."""
    if not isinstance(margin, str):
        return margin
    if margin not in MARGINS:
        raise UserError(f"unknown margin scheme {margin!r}; valid: {', '.join(MARGINS)}, or a number for each grade")
    return MARGINS[margin]


def grade_values(grades: Sequence[str | None], table: Mapping[str, float], *, ungraded: float) -> Tensor:
    """The table's numbers (B,) float32 of graded pairs; ``ungraded`` for a pair without a grade.

    Raises:
        UserError: a grade that is not in the table; lists the valid ones.
    """
    unknown = sorted({grade for grade in grades if grade is not None and grade not in table})
    if unknown:
        raise UserError(f"unknown grades {', '.join(map(repr, unknown))}; valid: {', '.join(table)}")
    return torch.tensor([ungraded if grade is None else table[grade] for grade in grades], dtype=torch.float32)


def _check(n_pairs: int) -> None:
    """Refuse a normaliser without meaning."""
    if n_pairs < 1:
        raise ValueError(f"n_pairs must be the number of pairs of the optimiser step, at least 1, got {n_pairs}")


def _check_shapes(*tensors: Tensor) -> None:
    """Refuse what would broadcast: (B, 1) scores and (B,) margins make a (B, B) loss that still trains."""
    if any(tensor.shape != tensors[0].shape or tensor.dim() != 1 for tensor in tensors):
        raise ValueError(f"expected tensors of one shape (B,), got {[tuple(t.shape) for t in tensors]}")


class ComparingHead(Protocol):
    """What the losses ask of a reward head (``alignment.models.heads``)."""

    def log_odds(self, chosen: Tensor, rejected: Tensor, margin: Tensor, objectives: Sequence[str]) -> Tensor:
        """(B, M') that chosen is better by the margin; with one score ``chosen - rejected - margin``.

        Args:
            chosen: (B, M) opinions on the chosen answers.
            rejected: (B, M) opinions on the rejected answers.
            margin: (B,) by which chosen should be better.
            objectives: what each of the B pairs was compared by.
        """

    def anchored(self, opinions: Tensor) -> Tensor:
        """(B, M') scores that safety labels and centring apply to; with one score, that one."""


def reward_loss(
    head: ComparingHead,
    opinions: Tensor,
    labels: Mapping[str, Any],
    *,
    n_pairs: int,
    loss: PairLoss = bradley_terry,
    label_smoothing: float = 0.0,
    safety_weight: float = 0.0,
    centering_weight: float = 0.0,
) -> Tensor:
    """Preference loss, weighted safety loss and weighted centring of some pairs, as a sum over ``n_pairs``.

    For a head with one score and the ranking loss it is equation 2 of Llama 2, the last line but one:

    >>> from torch.nn.functional import logsigmoid
    >>> from alignment.models.heads import HEADS
    >>> linear_head = HEADS["linear"](16)
    >>> r_chosen, r_rejected, margin = torch.tensor([1.5, 0.2]), torch.tensor([0.5, 0.4]), torch.tensor([1.0, 0.0])
    >>> opinions = torch.stack([r_chosen, r_rejected], dim=1)[:, :, None]
    >>> labels = {"margin": margin, "strength": torch.ones(2), "objective": ["helpfulness", "helpfulness"]}
    >>> equation_2 = -logsigmoid(r_chosen - r_rejected - margin).mean()
    >>> torch.equal(reward_loss(linear_head, opinions, labels, n_pairs=2), equation_2)
    True

    Where a head makes several statements on a pair or has several scores of an answer, the mean of their losses
    counts, so that weights and learning rates mean the same for every head.

    Args:
        head: turns opinions into log-odds and scores.
        opinions: (B, 2, M) on the chosen and the rejected answers.
        labels: ``margin``, ``strength`` (B,), ``objective`` (B names), ``safe`` and ``labelled`` (2 B,), chosen first.
        n_pairs: pairs of the whole optimiser step.
        loss: what each pair costs, by its log-odds.
        label_smoothing: chance that a label is wrong.
        safety_weight: of ``safety_loss``; 0: without.
        centering_weight: of ``centering_loss``; 0: without.

    Returns:
        Scalar; the mean over pairs once all micro-batches are added.
    """
    # Which answer is better: equation 2.
    (chosen, rejected), margin, objectives = opinions.unbind(dim=1), labels["margin"], labels["objective"]
    log_odds = head.log_odds(chosen, rejected, margin, objectives)  # (B, M')
    opposite = head.log_odds(rejected, chosen, margin, objectives).flatten() if label_smoothing else None
    statements = log_odds.shape[1]
    total = preference_loss(
        log_odds.flatten(),
        labels["strength"].repeat_interleave(statements),
        n_pairs=n_pairs * statements,
        loss=loss,
        label_smoothing=label_smoothing,
        opposite=opposite,
    )
    if not safety_weight and not centering_weight:
        return total
    # Which answers are safe, and where the zero of the scores lies.
    anchored = head.anchored(torch.cat([chosen, rejected]))  # (2 B, M')
    n_scores = anchored.shape[1]
    if safety_weight:
        safe, labelled = (labels[key].repeat_interleave(n_scores) for key in ("safe", "labelled"))
        total = total + safety_weight * safety_loss(anchored.flatten(), safe, labelled, n_pairs=n_pairs * n_scores)
    if centering_weight:
        both = anchored.flatten().chunk(2)
        total = total + centering_weight * centering_loss(*both, n_pairs=n_pairs * n_scores)
    return total


def preference_loss(
    log_odds: Tensor,
    strength: Tensor,
    *,
    n_pairs: int,
    loss: PairLoss = bradley_terry,
    label_smoothing: float = 0.0,
    opposite: Tensor | None = None,
) -> Tensor:
    """A preference loss as a sum over ``n_pairs``.

    Args:
        log_odds: (B,) that the chosen answer is better by its margin.
        strength: (B,) of preference, for losses that weigh by it.
        n_pairs: pairs of the whole optimiser step.
        loss: what each pair costs.
        label_smoothing: chance that a label is wrong: that share of the loss is the one of the opposite label.
        opposite: (B,) log-odds that the rejected answer is better by the margin; without a margin, minus ``log_odds``.

    Returns:
        Scalar; the mean over pairs once all micro-batches are added.
    """
    _check(n_pairs)
    _check_shapes(log_odds, strength)
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be at least 0 and below 0.5, got {label_smoothing}")
    log_odds, strength = at_least_float32(log_odds), at_least_float32(strength)
    losses = loss(log_odds, strength)
    if label_smoothing:
        opposite = -log_odds if opposite is None else at_least_float32(opposite)
        losses = (1 - label_smoothing) * losses + label_smoothing * loss(opposite, strength)
    _check_shapes(losses, log_odds)
    return losses.sum() / n_pairs


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
