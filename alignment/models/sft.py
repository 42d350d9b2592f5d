"""Supervised fine-tuning on TRL's ``SFTTrainer``: loss on answer tokens and their stop token only (section 3.1).

Dialogues come in encoded (``alignment.data.dialogue``), so that text never becomes control tokens. The same function
serves the SFT stage, rejection-sampling fine-tuning and the "longer SFT" control arm.
"""

from __future__ import annotations

import difflib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
    get_cosine_with_min_lr_schedule_with_warmup_lr_rate,
)
from trl import SFTConfig, SFTTrainer

from alignment.data.dialogue import EncodedDialogue
from alignment.errors import UserError
from alignment.models.optimizer import MasterWeightAdamW
from alignment.models.pretrained import output_logits
from alignment.recipe import SFTSection

IGNORED = -100
WARMUP_SHARE = 0.03
"""Share of the steps that warm up; not reported for SFT, taken from the reward models (section 3.2.2)."""

OnStep = Callable[[int, int, dict[str, float]], None]
"""Called after each logged step with (step, total steps, figures)."""


class StepReporter(TrainerCallback):
    """Hands the figures that the Trainer logs to a function."""

    def __init__(self, on_step: OnStep) -> None:
        self.on_step = on_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **unused: Any) -> None:
        """Forward every training log line (the closing summary, which has no loss, is left out).

        Raises:
            FloatingPointError: the loss or the gradient is not finite.
        """
        if logs and "loss" in logs:
            for name in ("loss", "grad_norm"):
                if not math.isfinite(float(logs.get(name, 0.0))):
                    raise FloatingPointError(f"{name} is {logs[name]} at step {state.global_step}")
            self.on_step(state.global_step, state.max_steps, {key: float(value) for key, value in logs.items()})


OWNED_BY_THE_RECIPE = frozenset(
    {
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "center_rewards_coefficient",
        "completion_only_loss",
        "disable_tqdm",
        "gradient_accumulation_steps",
        "label_smoothing_factor",
        "learning_rate",
        "logging_nan_inf_filter",
        "logging_steps",
        "loss_type",
        "lr_scheduler_kwargs",
        "lr_scheduler_type",
        "max_length",
        "max_steps",
        "num_train_epochs",
        "optim",
        "optim_args",
        "output_dir",
        "packing",
        "per_device_train_batch_size",
        "report_to",
        "resume_from_checkpoint",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "seed",
        "warmup_ratio",
        "warmup_steps",
        "weight_decay",
    }
)


def check_trainer_settings(given: dict[str, Any], config: type[TrainingArguments], *, section: str) -> None:
    """Raise ``UserError`` for a setting that TRL does not know or that the recipe itself decides."""
    known = {field.name for field in fields(config)}
    for name in sorted(given):
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise UserError(f"{section}.{name}: {config.__name__} has no such setting{hint}")
        if name in OWNED_BY_THE_RECIPE:
            raise UserError(f"{section}.{name}: the stage decides this one, by the recipe's own settings")


def optimizer_and_schedule(
    parameters: Sequence[nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    steps: int,
    warmup_steps: int,
) -> tuple[MasterWeightAdamW, torch.optim.lr_scheduler.LambdaLR]:
    """The paper's AdamW with a cosine to 10 % of the peak (sections 3.1 and 3.2.2)."""
    optimizer = MasterWeightAdamW([{"params": parameters}], lr=learning_rate, weight_decay=weight_decay)
    schedule = get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
        optimizer, num_warmup_steps=warmup_steps, num_training_steps=steps, min_lr_rate=0.1
    )
    return optimizer, schedule


def sft_dataset(dialogues: Sequence[EncodedDialogue]) -> Dataset:
    """Token ids and answer masks in the columns that TRL understands."""
    return Dataset.from_dict(
        {
            "input_ids": [list(dialogue.input_ids) for dialogue in dialogues],
            "completion_mask": [[int(counts) for counts in dialogue.loss_mask] for dialogue in dialogues],
        }
    )


class AnswerTokensTrainer(SFTTrainer):
    """TRL's trainer with, on a processor, logits made for the learned tokens only.

    There TRL's own loss goes over all tokens in blocks, with entropies and a gradient of the output layer that nobody
    needs, and takes longer than the rest of a step. On a GPU, where it has a kernel that saves memory, and for
    mixtures of experts, which have a loss of their own, it stays TRL's.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Negative log-likelihood of the learned tokens, nats, over their number in the whole batch."""
        if inputs["input_ids"].device.type != "cpu" or self.aux_loss_enabled:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        causal_lm: Any = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        texts = {key: value for key, value in inputs.items() if key != "labels"}
        targets = inputs["labels"][:, 1:]
        learned = targets != IGNORED
        with self.accelerator.autocast():
            hidden = causal_lm.base_model(**texts, use_cache=False).last_hidden_state
            logits = output_logits(causal_lm, hidden[:, :-1][learned])
        n_tokens = torch.as_tensor(learned.sum() if num_items_in_batch is None else num_items_in_batch).clamp(min=1)
        loss = cross_entropy(logits.float(), targets[learned], reduction="sum") / n_tokens
        return (loss, {"logits": logits}) if return_outputs else loss


def train_sft(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    dialogues: Sequence[EncodedDialogue],
    settings: SFTSection,
    *,
    seed: int,
    on_step: OnStep,
) -> dict[str, float]:
    """Fine-tune the trainable parameters of ``model`` in place.

    Args:
        model: a causal LM or PEFT model whose ``requires_grad`` flags say what is trained.
        tokenizer: only for TRL's book-keeping; no text is tokenised here.
        dialogues: encoded dialogues with their loss masks.
        settings: the numbers.
        seed: of the order of the dialogues.
        on_step: called after each optimiser step.

    Returns:
        ``steps`` and ``final_loss``.
    """
    accumulate = settings.batch_size_dialogues // settings.micro_batch_size_dialogues
    losses: list[float] = []

    def record(step: int, total: int, figures: dict[str, float]) -> None:
        losses.append(figures["loss"])
        on_step(step, total, figures)

    with tempfile.TemporaryDirectory() as scratch:
        defaults: dict[str, Any] = {
            "bf16": False,  # the model already is in the precision that was asked for
            "gradient_checkpointing": False,
            "max_grad_norm": 1.0,
            "use_cpu": not torch.cuda.is_available(),
        }
        arguments = SFTConfig(
            **{**defaults, **settings.trainer},
            logging_nan_inf_filter=False,
            output_dir=scratch,
            seed=seed,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.micro_batch_size_dialogues,
            gradient_accumulation_steps=accumulate,
            learning_rate=settings.learning_rate,
            max_length=settings.max_length_tokens if settings.packing else None,
            packing=settings.packing,
            completion_only_loss=True,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trained = [(parameter, parameter.data) for parameter in model.parameters() if parameter.requires_grad]
        trainer = AnswerTokensTrainer(
            model=model,  # type: ignore[arg-type]  # a causal LM or a PEFT model
            args=arguments,
            train_dataset=sft_dataset(dialogues),
            processing_class=tokenizer,
            callbacks=[StepReporter(record)],
        )
        for parameter, data in trained:
            parameter.data = data  # TRL rounds adapters on a 4-bit base to bfloat16, whatever that computes in
        steps_per_epoch = max(1, -(-len(trainer.get_train_dataloader()) // accumulate))
        total = int(steps_per_epoch * settings.epochs)
        trainer.optimizer, trainer.lr_scheduler = optimizer_and_schedule(
            [parameter for parameter, _ in trained],
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            steps=total,
            warmup_steps=max(1, round(WARMUP_SHARE * total)),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval()
    return {"steps": len(losses), "final_loss": losses[-1] if losses else float("nan")}
