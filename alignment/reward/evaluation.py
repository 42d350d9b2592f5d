"""Calibrating a reward model on its training comparisons, and measuring it on held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alignment.data.records import Comparison, Dimension
from alignment.evaluation import accuracy_by_grade, accuracy_trend, length_correlation
from alignment.models.reward_model import RewardModel
from alignment.reward.gate import LOGIT_THRESHOLD
from alignment.reward.pairs import EncodedPair

CALIBRATION_PAIRS = 500


def pair_scores(model: RewardModel, pairs: Sequence[EncodedPair], *, batch_size: int) -> tuple[Tensor, Tensor]:
    """Scores (B,) of the chosen and of the rejected answers."""
    dialogues = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    chosen, rejected = model.score(dialogues, batch_size=batch_size).chunk(2)
    return chosen, rejected


def calibrate(
    model: RewardModel, pairs: Sequence[EncodedPair], dimension: Dimension, *, batch_size: int
) -> dict[str, float | int]:
    """Centre the helpfulness model; say how well the safety model's gate tells unsafe answers.

    Ranking fixes only differences of scores. The safety model's zero is anchored by its auxiliary loss (that of each
    opinion, where the head has several), so it is left alone; the helpfulness model's is arbitrary and is moved to the
    mean over its training answers, lest prompts tagged safety get a constant bonus once both are whitened together
    (section 3.2.3).
    """
    sample = pairs[:: max(1, len(pairs) // CALIBRATION_PAIRS)]
    chosen, rejected = pair_scores(model, sample, batch_size=batch_size)
    scores = torch.cat([chosen, rejected])
    figures: dict[str, float | int] = {"n_answers": len(scores), "std": scores.std(correction=0).item()}
    if dimension == "helpfulness":
        model.offset += scores.mean().item()
        return {**figures, "mean_before_centering": scores.mean().item()}
    labelled = torch.tensor([pair.labelled for pair in sample] * 2)
    safe = torch.tensor([pair.chosen_safe for pair in sample] + [pair.rejected_safe for pair in sample])
    flagged = scores < LOGIT_THRESHOLD
    unsafe = labelled & safe.logical_not()
    hits = (flagged & unsafe).sum().item()
    figures["gate_flagged"] = int((flagged & labelled).sum().item())
    figures["gate_precision"] = hits / max(1, figures["gate_flagged"])
    figures["gate_recall"] = hits / max(1, int(unsafe.sum().item()))
    return figures


def evaluate_reward_model(
    model: RewardModel,
    pairs: Sequence[EncodedPair],
    comparisons: Sequence[Comparison],
    *,
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    """Accuracy per grade against the annotators' choices, its trend, and the correlation of score and length."""
    chosen, rejected = pair_scores(model, pairs, batch_size=batch_size)
    differences = (chosen - rejected).tolist()
    grades = [item.grade for item in comparisons]
    clusters = [item.conversation_id for item in comparisons]
    lengths = [float(len(pair.chosen_ids) - len(pair.rejected_ids)) for pair in pairs]
    return {
        "accuracy": accuracy_by_grade(differences, grades, clusters),
        "trend_p_value": accuracy_trend(differences, grades, clusters),
        "length_correlation": length_correlation(differences, lengths, clusters=clusters, seed=seed),
    }
