"""Training a reward model on TRL's ``RewardTrainer``, with the recipe's loss (section 3.2.2, eq. 2, and A.3.3).

TRL carries the loop, schedules, devices and trackers. Overridden, each for a reason found by experiment:

1. ``compute_loss``: graded margins, the safety auxiliary loss and centring, in one reduction over pairs.
2. The collator and ``_signature_columns``: TRL keeps ids and ``margin`` and drops the safety labels.
3. ``max_length=None``: TRL drops long pairs without a word; here they are an error or counted (``encode_pairs``).
4. The optimiser: float32 masters for adapters that live in bfloat16.
5. Checkpoints: TRL's hold the frozen base and pickles, and one that is half written looks like any other.

Shapes: B pairs, T tokens of a prompt and its two answers.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl import RewardConfig, RewardTrainer

from alignment.machine.checkpoint import checkpoints, load_checkpoint, rng_state, save_checkpoint, set_rng_state
from alignment.models.heads.base_head import RewardHead
from alignment.models.optimizer_and_trainer import (
    WARMUP_SHARE,
    MasterWeightAdamW,
    StepReporter,
    StopWhenAsked,
    optimizer_and_schedule,
)
from alignment.models.scorers.reward_model import RewardModel
from alignment.progress import OnStep
from alignment.reward.encoded_pairs import EncodedPair, PairCollator
from alignment.reward.losses import preference_loss_named, reward_loss
from alignment.settings.reward_sections import RewardModelSection

MIN_WARMUP_STEPS = 5
"""Section 3.2.2."""
TRAINER_STATE = "trainer_state.json"
"""Where ``Trainer`` looks for its own state when it goes on from a folder."""


class GradedRewardTrainer(RewardTrainer):
    """``RewardTrainer`` with the Llama-2 loss and checkpoints that are whole or not there."""

    loss_is_scaled_for_ga = True  # by the pairs of the whole step, which its micro-batches need not share evenly

    def __init__(
        self, *, settings: RewardModelSection, optimizer: MasterWeightAdamW, checkpoint_folder: Path | None, **trl: Any
    ) -> None:
        self.settings = settings
        self.masters = optimizer.weights
        self.checkpoint_folder = checkpoint_folder
        self.resumed: dict[str, Any] = {}
        super().__init__(optimizers=(optimizer, trl.pop("schedule")), **trl)

    def _set_signature_columns_if_needed(self) -> None:
        names = [field.name for field in dataclasses.fields(EncodedPair)]
        self._signature_columns = names  # type: ignore[assignment]  # TRL declares None

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The recipe's loss; TRL's metrics are reduced to the accuracy of the scores.

        Args:
            model: the reward model, as Accelerate wraps it.
            inputs: a batch of B pairs from ``PairCollator``.
            return_outputs: return the scores (B, 2), chosen first, as well.
            num_items_in_batch: pairs of the whole optimiser step, in all micro-batches and processes.
        """
        # The head's opinions (B, 2, M) on the chosen and the rejected answers.
        opinions = model(inputs["token_ids"], inputs["prompt_lengths"], inputs["answer_lengths"], opinions=True)
        head: RewardHead = self.accelerator.unwrap_model(model).head
        # Gradients are averaged over processes afterwards, and ``num_items_in_batch`` counts the pairs of all of them.
        share = self.accelerator.num_processes
        loss = share * reward_loss(
            head,
            opinions,
            inputs,
            n_pairs=int(num_items_in_batch),
            loss=preference_loss_named(self.settings.loss),
            label_smoothing=self.settings.label_smoothing,
            safety_weight=self.settings.safety_weight,
            centering_weight=self.settings.centering_weight,
        )
        # Share of pairs whose chosen answer scores higher.
        scores = head.combine(opinions.flatten(0, 1)).view(-1, 2)
        accuracy = (scores[:, 0] > scores[:, 1]).float().mean()
        self._metrics["train"]["accuracy"].append(self.accelerator.gather_for_metrics(accuracy).mean().item())
        return (loss, {"scores": scores}) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        """Pairs of the whole optimiser step, in all micro-batches and processes."""
        own = torch.tensor(sum(len(batch["margin"]) for batch in batch_samples), device=device)
        return self.accelerator.gather(own).sum()

    # -- going on after a stop ---------------------------------------------------------------------------------------

    def train_on(self) -> None:
        """Train from the newest checkpoint, or from the start where there is none."""
        found = checkpoints(self.checkpoint_folder) if self.checkpoint_folder else []
        if not found:
            self.train()
            return
        self.resumed = load_checkpoint(found[-1])[1]
        state = {**json.loads(self.resumed["trainer"]), "save_steps": self.settings.save_steps}  # it may have changed
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, TRAINER_STATE).write_text(json.dumps(state), encoding="utf-8")
            self.train(resume_from_checkpoint=folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if (
            self.checkpoint_folder is None
            or self.state.global_step >= self.state.max_steps
            or not self.args.should_save
        ):
            return  # after the last step the model itself is saved
        with tempfile.TemporaryDirectory() as folder:
            self.state.save_to_json(str(Path(folder, TRAINER_STATE)))
            trainer = Path(folder, TRAINER_STATE).read_text(encoding="utf-8")
        assert self.optimizer is not None and self.lr_scheduler is not None
        state = {
            "trainer": trainer,
            "weights": list(self.masters.masters),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.lr_scheduler.state_dict(),
            "random": rng_state(),
        }
        save_checkpoint(self.checkpoint_folder, self.state.global_step, state, keep=self.args.save_total_limit or 1)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.masters.load(self.resumed["weights"])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            assert self.optimizer is not None and self.lr_scheduler is not None
            self.optimizer.load_state_dict(self.resumed["optimizer"])
            self.lr_scheduler.load_state_dict(self.resumed["schedule"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_rng_state(self.resumed["random"])


def train_reward_model(
    model: RewardModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[EncodedPair],
    settings: RewardModelSection,
    *,
    seed: int,
    trainer: dict[str, Any],
    on_step: OnStep,
    checkpoint_folder: Path | None = None,
    stop_asked: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Train what is trainable of ``model`` in place; returns ``steps``, ``final_loss`` and whether it ``finished``.

    Args:
        model: a reward model with trainable weights.
        tokenizer: only for TRL's book-keeping; no text is tokenised here.
        pairs: encoded comparisons.
        settings: the numbers.
        seed: of the order of the pairs.
        trainer: further settings for TRL's ``RewardConfig``.
        on_step: called after each optimiser step.
        checkpoint_folder: where checkpoints are written and, if there are some, gone on from; ``None``: nowhere.
        stop_asked: asked after each step; ``True`` ends the training there, with a checkpoint.
    """
    # How many optimiser steps, and of how many micro-batches each.
    accumulate = settings.batch_size_pairs // settings.micro_batch_size_pairs
    steps_per_epoch = max(1, -(-len(pairs) // settings.batch_size_pairs))
    steps = max(1, int(steps_per_epoch * settings.epochs))
    # Optimiser and schedule.
    optimizer, schedule = optimizer_and_schedule(
        model.trainable_parameters(),
        learning_rate=settings.learning_rate,
        weight_decay=0.1,
        steps=steps,
        warmup_steps=min(max(MIN_WARMUP_STEPS, round(WARMUP_SHARE * steps)), steps),
    )
    # The latest step's figures are what is returned.
    last: dict[str, Any] = {}

    def record(step: int, total: int, figures: dict[str, float]) -> None:
        last.update(steps=step, final_loss=figures["loss"], finished=step >= total)
        on_step(step, total, figures)

    with tempfile.TemporaryDirectory() as scratch:
        # Settings for TRL: defaults that the caller may override, then those that it may not.
        defaults = {
            "bf16": False,  # the model already is in the precision that was asked for
            "disable_dropout": False,  # model.lora.dropout decides
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
            save_strategy="no" if checkpoint_folder is None else "steps",
            save_steps=settings.save_steps,
            report_to=[],
            disable_tqdm=True,
        )
        # The trainer, with our loss, collator and optimiser; then train from the newest checkpoint.
        graded = GradedRewardTrainer(
            settings=settings,
            optimizer=optimizer,
            schedule=schedule,
            checkpoint_folder=checkpoint_folder,
            model=model,
            args=arguments,
            data_collator=PairCollator(model.backbone.encoder.pad_id),
            train_dataset=Dataset.from_list([vars(pair) for pair in pairs]),
            processing_class=tokenizer,
            callbacks=[StepReporter(record), StopWhenAsked(stop_asked)],
        )
        graded.remove_callback(PrinterCallback)
        graded.train_on()
    model.eval()
    return last
