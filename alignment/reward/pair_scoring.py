"""Calibrating a reward model on its training comparisons, and measuring it on held-out ones.

Shapes: B pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.data.records import Comparison, Dimension
from alignment.figures.pair_accuracy import ScoredPair
from alignment.figures.reward_model_figures import Figures, reward_figures
from alignment.models.scorers.reward_model import RewardModel
from alignment.models.scorers.scorer_protocol import RewardScorer
from alignment.reward.encoded_pairs import EncodedPair
from alignment.reward.gate import LOGIT_THRESHOLD, THRESHOLD_PROBABILITY

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

    Args:
        model: a trained reward model; its offset is moved if it is about helpfulness.
        pairs: its training comparisons; a sample of them is scored.
        dimension: what the model is about.
        batch_size: answers per batch.

    Returns:
        Number and spread of the scores; their mean for helpfulness, the gate's precision and recall for safety.
    """
    # Score a sample, spread evenly over the comparisons.
    sample = pairs[:: max(1, len(pairs) // CALIBRATION_PAIRS)]
    chosen, rejected = pair_scores(model, sample, batch_size=batch_size)
    scores = torch.cat([chosen, rejected])
    figures: dict[str, float | int] = {"n_answers": len(scores), "std": scores.std(correction=0).item()}
    # Helpfulness: move the zero to the mean.
    if dimension == "helpfulness":
        model.offset += scores.mean().item()
        return {**figures, "mean_before_centering": scores.mean().item()}
    # Safety: compare what the gate flags with the labels; chosen answers come first.
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
    model: RewardScorer,
    pairs: Sequence[EncodedPair],
    comparisons: Sequence[Comparison],
    *,
    seed: int,
    batch_size: int,
    threshold_probability: float = THRESHOLD_PROBABILITY,
) -> Figures:
    """All figures of ``reward_figures`` on held-out comparisons, against the annotators' choices.

    Args:
        model: on the base that the pairs were encoded for, or one beside it, which reads their text.
        pairs: (B,) encoded held-out comparisons.
        comparisons: (B,) what they were encoded from.
        seed: of the bootstrap.
        batch_size: answers per batch.
        threshold_probability: the gate's; an answer whose probability of being safe is below it is flagged.

    Raises:
        UserError: a score is not a finite number.
    """
    scored = score_pairs(model, pairs, comparisons, batch_size)
    return reward_figures(scored, seed=seed, threshold_probability=threshold_probability)


def score_pairs(
    model: RewardScorer,
    pairs: Sequence[EncodedPair],
    comparisons: Sequence[Comparison],
    batch_size: int,
    *,
    on_batch: Callable[[int], None] | None = None,
) -> list[ScoredPair]:
    """Score both answers of each comparison.

    Args:
        model: on the base that the pairs were encoded for, or one beside it, which reads their text.
        pairs: (B,) encoded comparisons.
        comparisons: (B,) what they were encoded from.
        batch_size: answers per batch.
        on_batch: called with the number of answers after each batch.
    """
    # Scores (2 B,), chosen answers first.
    dialogues = dialogues_of(pairs, comparisons)
    scores = model.score(dialogues, batch_size=batch_size, on_batch=on_batch).tolist()
    # Each pair's two scores, with what the figures need to know of the comparison.
    return [
        ScoredPair(
            id=item.id,
            conversation_id=item.conversation_id,
            dimension=item.dimension,
            grade=item.grade,
            turns=sum(message.role == "user" for message in item.prompt),
            chosen=chosen,
            rejected=rejected,
            chosen_tokens=len(pair.chosen_ids),
            rejected_tokens=len(pair.rejected_ids),
            chosen_safe=item.safety.chosen_safe if item.safety else None,
            rejected_safe=item.safety.rejected_safe if item.safety else None,
            chosen_key=(item.prompt, item.chosen_text),
            rejected_key=(item.prompt, item.rejected_text),
        )
        for pair, item, chosen, rejected in zip(
            pairs, comparisons, scores[: len(pairs)], scores[len(pairs) :], strict=True
        )
    ]


def dialogues_of(pairs: Sequence[EncodedPair], comparisons: Sequence[Comparison]) -> list[EncodedAnswer]:
    """The (2 B,) dialogues of pairs, chosen answers first, with the prompts as text for models that read text."""
    both = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    prompts = [item.prompt for item in comparisons] * 2
    return [replace(dialogue, messages=prompt) for dialogue, prompt in zip(both, prompts, strict=True)]
