"""Comparisons as token ids with their labels, alone and in batches; and whether they have what a model is to learn.

Shapes: B pairs, T tokens of a prompt and its two answers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from alignment.data.encoded_dialogues import EncodedAnswer, Encoder
from alignment.data.records import Comparison
from alignment.errors import UserError
from alignment.models.heads.base_head import RewardHead
from alignment.models.shared_prompts import pack_answers
from alignment.reward.losses import STRENGTHS, grade_values, margin_table
from alignment.settings.reward_sections import RewardModelSection


@dataclass(frozen=True)
class EncodedPair:
    """One comparison as token ids; ``labelled`` says whether the two safety labels count."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    """The answer alone, stop token included."""
    rejected_ids: list[int]
    margin: float
    chosen_safe: bool
    rejected_safe: bool
    labelled: bool
    strength: float = 1.0
    """Of the preference, for losses that weigh by it."""
    dimension: str = "helpfulness"
    objective: str = "helpfulness"
    """What the answers were compared by; the dimension, unless the comparison is more exact."""

    @property
    def chosen(self) -> EncodedAnswer:
        """The preferred answer with its prompt."""
        return EncodedAnswer(self.prompt_ids, self.chosen_ids)

    @property
    def rejected(self) -> EncodedAnswer:
        """The other answer with its prompt."""
        return EncodedAnswer(self.prompt_ids, self.rejected_ids)


class EncodedParts(NamedTuple):
    """One reward model's comparisons as token ids: those to train on, and those to measure it on."""

    pairs: list[EncodedPair]
    heldout_pairs: list[EncodedPair]
    heldout: list[Comparison]
    left_out: dict[str, int]


def encode_pairs(
    comparisons: Sequence[Comparison],
    encoder: Encoder,
    *,
    margin: str | Mapping[str, float],
    max_length_tokens: int,
    skip_too_long: bool,
    strengths: Mapping[str, float] = STRENGTHS,
) -> tuple[list[EncodedPair], list[Comparison], int]:
    """Encode comparisons; returns the pairs, the comparisons they came from, and how many were too long.

    Args:
        comparisons: what to encode.
        encoder: from messages to the token ids of the base.
        margin: name of a margin scheme, or a margin for each grade; 0 without a grade.
        max_length_tokens: of a prompt with the longer of its two answers.
        skip_too_long: leave longer pairs out and count them; else they are an error.
        strengths: grade -> strength of the preference; 1 without a grade.

    Raises:
        UserError: a pair is longer than ``max_length_tokens`` and ``skip_too_long`` is off, or nothing is left.
    """
    # Margin and strength of each comparison, by its grade.
    grades = [item.grade for item in comparisons]
    margins = grade_values(grades, margin_table(margin), ungraded=0.0).tolist()
    weights = grade_values(grades, strengths, ungraded=1.0).tolist()
    pairs: list[EncodedPair] = []
    kept: list[Comparison] = []
    too_long = 0
    encode = functools.cache(encoder.encode_answer)  # several annotators may judge one pair
    for item, pair_margin, strength in zip(comparisons, margins, weights, strict=True):
        try:
            chosen, rejected = encode(item.prompt, item.chosen_text), encode(item.prompt, item.rejected_text)
        except UserError as error:
            raise UserError(f"comparison {item.id}: {error}") from error
        # Too long: an error, or left out.
        longest = max(len(chosen.input_ids), len(rejected.input_ids))
        if longest > max_length_tokens:
            if not skip_too_long:
                raise UserError(
                    f"comparison {item.id} has {longest} tokens, more than max_length_tokens={max_length_tokens}. "
                    "Raise the limit, or pass data.too_long=skip to leave such pairs out and count them."
                )
            too_long += 1
            continue
        # Without a safety label, labelled=False keeps the placeholder True out of the loss.
        safety = item.safety
        pairs.append(
            EncodedPair(
                chosen.prompt_ids,
                chosen.answer_ids,
                rejected.answer_ids,
                pair_margin,
                chosen_safe=safety.chosen_safe if safety else True,
                rejected_safe=safety.rejected_safe if safety else True,
                labelled=safety is not None,
                strength=strength,
                dimension=item.dimension,
                objective=item.objective or item.dimension,
            )
        )
        kept.append(item)
    if not pairs:
        raise UserError(f"no comparison is left to train on ({too_long} of {len(comparisons)} are too long)")
    return pairs, kept, too_long


class PairCollator:
    """Stacks pairs to rows of prompt, chosen and rejected answer, right-padded (B, T), with lengths and labels."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate dataset rows."""
        pairs = [EncodedPair(**row) for row in rows]
        # Token ids (B, T); lengths (B,) of the prompts and (B, 2) of the answers.
        answers = [[pair.chosen, pair.rejected] for pair in pairs]
        token_ids, prompt_lengths, answer_lengths = pack_answers(answers, self.pad_id, torch.device("cpu"))
        return {
            "token_ids": token_ids,
            "prompt_lengths": prompt_lengths,
            "answer_lengths": answer_lengths,
            "margin": torch.tensor([pair.margin for pair in pairs]),
            "strength": torch.tensor([pair.strength for pair in pairs]),
            "objective": [pair.objective for pair in pairs],
            "safe": torch.tensor([pair.chosen_safe for pair in pairs] + [pair.rejected_safe for pair in pairs]),
            "labelled": torch.tensor([pair.labelled for pair in pairs] * 2),
        }


def check_usable(
    comparisons: Sequence[Comparison], settings: RewardModelSection, head: RewardHead, *, name: str
) -> None:
    """Refuse settings that these comparisons cannot fill: a margin nobody graded would be ignored without a word.

    Args:
        comparisons: what to train on.
        settings: of the reward model.
        head: its reward head, which knows the objectives that it has scores for.
        name: the model's section under ``reward`` in the recipe, for the messages.

    Raises:
        UserError: a margin or strengths without a grade; the safety loss without labels or with labels of one kind;
            comparisons about what the head has no score for, or none about what it has.
    """
    section, total = f"reward.{name}", len(comparisons)
    # Margins and strengths need grades.
    graded = any(item.grade is not None for item in comparisons)
    if not graded and any(margin_table(settings.margin).values()):
        raise UserError(
            f"{section}.margin={settings.margin} needs graded comparisons, and none of {total} has a grade. "
            f"Pass {section}.margin=none."
        )
    if not graded and settings.loss == "scaled":
        raise UserError(
            f"{section}.loss=scaled weighs by the grade, and none of {total} comparisons has one. "
            f"Pass {section}.loss=ranking."
        )
    # The safety loss needs both kinds of label, and each objective of the head needs comparisons.
    if settings.safety_weight:
        _check_labels(comparisons, f"{section}.safety_weight")
    if head.objectives is not None:
        _check_objectives(comparisons, head.objectives)


def _check_labels(comparisons: Sequence[Comparison], key: str) -> None:
    labels = [item.safety for item in comparisons if item.safety is not None]
    kinds = {safe for label in labels for safe in (label.chosen_safe, label.rejected_safe)}
    if len(kinds) < 2:
        found = "none of them has a safety label"
        if labels:
            found = f"all {2 * len(labels)} labelled answers are {'safe' if True in kinds else 'unsafe'}"
        raise UserError(
            f"{key} needs safe and unsafe answers to tell apart, and of {len(comparisons)} comparisons {found}. "
            f"Pass {key}=0 to train without the safety loss."
        )


def _check_objectives(comparisons: Sequence[Comparison], known: Sequence[str]) -> None:
    found = {item.objective or item.dimension for item in comparisons}
    wrong = [(name, "the head has no score for it") for name in sorted(found - set(known))]
    wrong += [(name, "no comparison is about it") for name in known if name not in found]
    if wrong:
        raise UserError(
            f"reward.head.arguments.objectives={list(known)} does not fit the comparisons: "
            + "; ".join(f"{name!r}: {why}" for name, why in wrong)
        )
