"""Rejection sampling (section 3.2.3): K answers per prompt, the reward models pick one, fine-tune on the winners.

The pool holds winners of all rounds: they compete again under the newest reward models, which is what stopped the
regressions that the paper saw with a pool of the last round only. Fine-tuning starts afresh from the SFT model.

Shapes: N candidates.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from alignment.data.encoded_dialogues import EncodedDialogue
from alignment.data.records import Dialogue, Prompt, Record
from alignment.models.backbone import Backbone
from alignment.reward.gate import Gate, gate


class Winner(Record):
    """The answer kept for one prompt: its text, and its tokens as they were sampled, with or without a stop token."""

    prompt: Prompt
    answer: str
    answer_ids: list[int]
    stopped: bool
    round: int
    score: float
    median_score: float
    candidates: int


class Candidate(Record):
    """One answer that competes for its prompt."""

    prompt: Prompt
    answer: str
    answer_ids: list[int]
    round: int
    stopped: bool

    @property
    def messages(self) -> Dialogue:
        """The dialogue that it answers."""
        return self.prompt.messages


def order_of_merit(
    helpfulness: Tensor,
    safety: Tensor | None,
    is_safety: Tensor,
    stopped: Tensor,
    *,
    threshold_probability: float,
    gate: Gate = gate,
) -> tuple[Tensor, Tensor]:
    """Rank key and gated score of candidates, each (N,).

    The gated scores of different heads are on different scales, so among answers to one prompt those that the gate
    flags as unsafe, and those that did not stop, rank below all others; within a class the gated score decides.

    Args:
        helpfulness: (N,) raw scores of the helpfulness model.
        safety: (N,) raw scores of the safety model; ``None`` without one.
        is_safety: (N,) bool, True for answers to safety prompts.
        stopped: (N,) bool, True where the answer ended with a stop token.
        threshold_probability: the gate flags an answer whose probability of being safe is below it.
        gate: makes one score of the two.
    """
    # Gated scores, and one demerit each for an unsafe answer to a helpfulness prompt and for a missing stop.
    gated = gate(helpfulness, safety, is_safety, threshold_probability=threshold_probability)
    flagged = gated.routed_to_safety & is_safety.logical_not()
    demerits = flagged.float() + stopped.logical_not().float()
    # A demerit costs more than the widest gap between two scores.
    spread = gated.scores.max() - gated.scores.min() + 1.0
    return gated.scores - spread * demerits, gated.scores


def pick_winners(
    candidates: Sequence[Candidate],
    merit: Tensor,
    scores: Tensor,
    *,
    pick: Literal["best", "random"],
    seed: int,
) -> list[Winner]:
    """One winner per prompt, in the order in which prompts first appear.

    Args:
        candidates: answers, any number per prompt.
        merit: (N,) the higher, the better.
        scores: (N,) gated raw scores, for the record.
        pick: ``random`` ignores the merit (the control arm).
        seed: of the random pick.
    """
    # The candidates of each prompt.
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, candidate in enumerate(candidates):
        rows_of[candidate.prompt.id].append(row)
    # The best of each prompt by merit, or one at random.
    chance = random.Random(seed)
    winners = []
    for rows in rows_of.values():
        row = max(rows, key=lambda index: merit[index].item()) if pick == "best" else chance.choice(rows)
        winners.append(
            Winner(
                prompt=candidates[row].prompt,
                answer=candidates[row].answer,
                answer_ids=candidates[row].answer_ids,
                stopped=candidates[row].stopped,
                round=candidates[row].round,
                score=scores[row].item(),
                median_score=torch.median(scores[rows]).item(),
                candidates=len(rows),
            )
        )
    return winners


def encode_winner(winner: Winner, backbone: Backbone) -> EncodedDialogue:
    """A winner with the loss on its own tokens: what was sampled is learned, and no stop where none was sampled."""
    prompt_ids = backbone.encoder.encode_prompt(winner.prompt.messages)
    mask = [False] * len(prompt_ids) + [True] * len(winner.answer_ids)
    return EncodedDialogue(prompt_ids + winner.answer_ids, mask)
