"""Training a reward model on TRL's ``RewardTrainer``, with the recipe's loss (section 3.2.2, eq. 2, and A.3.3).

TRL carries the loop, schedules, devices and trackers. Overridden, each for a reason found by experiment:

1. ``compute_loss``: graded margins, the safety auxiliary loss and centring, in one reduction over pairs.
2. The collator and ``_signature_columns``: TRL keeps ids and ``margin`` and drops the safety labels.
3. ``max_length=None``: TRL drops long pairs without a word; here they are an error or counted (``encode_pairs``).
4. The optimiser: float32 masters for adapters that live in bfloat16.

Shapes: B pairs, T tokens of a prompt and its two answers.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl import RewardConfig, RewardTrainer

from alignment.data.dialogue import DialogueEncoder, EncodedAnswer
from alignment.data.records import Comparison
from alignment.errors import UserError
from alignment.models.reward_model import RewardModel
from alignment.models.sft import (
    WARMUP_SHARE,
    OnStep,
    StepReporter,
    optimizer_and_schedule,
)
from alignment.models.shared_prompts import pack_answers
from alignment.recipe import RewardModelSection
from alignment.reward.losses import centering_loss, grade_margins, ranking_loss, safety_loss

MIN_WARMUP_STEPS = 5
"""Section 3.2.2."""


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

    @property
    def chosen(self) -> EncodedAnswer:
        """The preferred answer with its prompt."""
        return EncodedAnswer(self.prompt_ids, self.chosen_ids)

    @property
    def rejected(self) -> EncodedAnswer:
        """The other answer with its prompt."""
        return EncodedAnswer(self.prompt_ids, self.rejected_ids)


def encode_pairs(
    comparisons: Sequence[Comparison],
    encoder: DialogueEncoder,
    *,
    margin: str,
    max_length_tokens: int,
    skip_too_long: bool,
) -> tuple[list[EncodedPair], list[Comparison], int]:
    """Encode comparisons; returns the pairs, the comparisons they came from, and how many were too long.

    Raises:
        UserError: a pair is longer than ``max_length_tokens`` and ``skip_too_long`` is off, or nothing is left.
    """
    margins = grade_margins([item.grade for item in comparisons], scheme=margin).tolist()
    pairs: list[EncodedPair] = []
    kept: list[Comparison] = []
    too_long = 0
    encode = functools.cache(encoder.encode_answer)  # several annotators may judge one pair
    for item, pair_margin in zip(comparisons, margins, strict=True):
        chosen, rejected = encode(item.prompt, item.chosen_text), encode(item.prompt, item.rejected_text)
        longest = max(len(chosen.input_ids), len(rejected.input_ids))
        if longest > max_length_tokens:
            if not skip_too_long:
                raise UserError(
                    f"comparison {item.id} has {longest} tokens, more than max_length_tokens={max_length_tokens}. "
                    "Raise the limit, or pass data.too_long=skip to leave such pairs out and count them."
                )
            too_long += 1
            continue
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

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Collate dataset rows."""
        pairs = [EncodedPair(**row) for row in rows]
        answers = [[pair.chosen, pair.rejected] for pair in pairs]
        token_ids, prompt_lengths, answer_lengths = pack_answers(answers, self.pad_id, torch.device("cpu"))
        return {
            "token_ids": token_ids,
            "prompt_lengths": prompt_lengths,
            "answer_lengths": answer_lengths,
            "margin": torch.tensor([pair.margin for pair in pairs]),
            "safe": torch.tensor([pair.chosen_safe for pair in pairs] + [pair.rejected_safe for pair in pairs]),
            "labelled": torch.tensor([pair.labelled for pair in pairs] * 2),
        }


class GradedRewardTrainer(RewardTrainer):
    """``RewardTrainer`` with the Llama-2 loss."""

    def __init__(self, *, safety_weight: float, centering_weight: float, **trl_arguments: Any) -> None:
        self.safety_weight = safety_weight
        self.centering_weight = centering_weight
        super().__init__(**trl_arguments)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [  # type: ignore[assignment]  # TRL declares None
            "prompt_ids",
            "chosen_ids",
            "rejected_ids",
            "margin",
            "chosen_safe",
            "rejected_safe",
            "labelled",
        ]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Ranking loss with margins, weighted safety and centring losses; the mean over the head's opinions."""
        lengths = inputs["prompt_lengths"], inputs["answer_lengths"]
        opinions = model(inputs["token_ids"], *lengths, opinions=True)
        n_pairs = len(opinions) if num_items_in_batch is None else int(num_items_in_batch)
        n_opinions = opinions.shape[2]
        # Each opinion is one more pair with the same labels: (B, M) -> (B M,).
        n_pairs *= n_opinions
        margin, safe, labelled = (inputs[key].repeat_interleave(n_opinions) for key in ("margin", "safe", "labelled"))
        chosen, rejected = opinions[:, 0].flatten(), opinions[:, 1].flatten()
        scores = torch.cat([chosen, rejected])
        loss = ranking_loss(chosen, rejected, margin, n_pairs=n_pairs)
        if self.safety_weight:
            loss = loss + self.safety_weight * safety_loss(scores, safe, labelled, n_pairs=n_pairs)
        if self.centering_weight:
            loss = loss + self.centering_weight * centering_loss(chosen, rejected, n_pairs=n_pairs)
        accuracy = (chosen > rejected).float().mean()
        self._metrics["train"]["accuracy"].append(self.accelerator.gather_for_metrics(accuracy).mean().item())
        return (loss, {"scores": scores}) if return_outputs else loss


def train_reward_model(
    model: RewardModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[EncodedPair],
    settings: RewardModelSection,
    *,
    seed: int,
    trainer: dict[str, Any],
    on_step: OnStep,
) -> dict[str, float]:
    """Train adapter and head of ``model`` in place; returns ``steps`` and ``final_loss``.

    Args:
        model: a reward model with a trainable adapter.
        tokenizer: only for TRL's book-keeping; no text is tokenised here.
        pairs: encoded comparisons.
        settings: the numbers.
        seed: of the order of the pairs.
        trainer: further settings for TRL's ``RewardConfig``.
        on_step: called after each optimiser step.
    """
    accumulate = settings.batch_size_pairs // settings.micro_batch_size_pairs
    steps_per_epoch = max(1, -(-len(pairs) // settings.batch_size_pairs))
    steps = max(1, int(steps_per_epoch * settings.epochs))
    losses: list[float] = []

    def record(step: int, total: int, figures: dict[str, float]) -> None:
        losses.append(figures["loss"])
        on_step(step, total, figures)

    with tempfile.TemporaryDirectory() as scratch:
        defaults = {
            "bf16": False,  # the model already is in the precision that was asked for
            "gradient_checkpointing": False,
            "max_grad_norm": 1.0,
            "use_cpu": not torch.cuda.is_available(),
        }
        arguments = RewardConfig(
            **{**defaults, **trainer},
            logging_nan_inf_filter=False,
            output_dir=scratch,
            seed=seed,
            max_steps=steps,
            per_device_train_batch_size=settings.micro_batch_size_pairs,
            gradient_accumulation_steps=accumulate,
            max_length=None,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        graded = GradedRewardTrainer(
            safety_weight=settings.safety_weight,
            centering_weight=settings.centering_weight,
            model=model,
            args=arguments,
            data_collator=PairCollator(model.backbone.encoder.pad_id),
            train_dataset=Dataset.from_list([vars(pair) for pair in pairs]),
            processing_class=tokenizer,
            callbacks=[StepReporter(record)],
            optimizers=optimizer_and_schedule(
                model.trainable_parameters(),
                learning_rate=settings.learning_rate,
                weight_decay=0.1,
                steps=steps,
                warmup_steps=min(max(MIN_WARMUP_STEPS, round(WARMUP_SHARE * steps)), steps),
            ),
        )
        graded.remove_callback(PrinterCallback)
        graded.train()
    model.eval()
    return {"steps": len(losses), "final_loss": losses[-1]}
