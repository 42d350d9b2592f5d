"""Supervised fine-tuning on TRL's ``SFTTrainer``: loss on answer tokens and their stop token only (section 3.1).

Dialogues come in encoded (``alignment.data.dialogue_encoder``), so that text never becomes control tokens. The same
function serves the SFT stage, rejection-sampling fine-tuning and the "longer SFT" control arm.

Shapes: B batch, T prompt+response, V vocabulary.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl import SFTConfig, SFTTrainer

from alignment.data.encoded_dialogues import EncodedDialogue
from alignment.models.backbone import output_logits
from alignment.models.optimizer_and_trainer import WARMUP_SHARE, StepReporter, optimizer_and_schedule
from alignment.progress import OnStep
from alignment.settings.sections import SFTSection

IGNORED = -100


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
        """Negative log-likelihood of the learned tokens, nats, over their number in the whole batch.

        Args:
            model: what the Trainer trains, wrapped by Accelerate.
            inputs: ``input_ids`` (B, T), ``labels`` (B, T) with ``IGNORED`` at tokens that are not learned, and
                the model's other inputs.
            return_outputs: return the logits as well.
            num_items_in_batch: learned tokens in all micro-batches of the step; ``None``: count those at hand.

        Returns:
            The loss, or the loss and the logits of the learned tokens, (tokens, V).
        """
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

    # Keep the losses of all steps, and pass on what the Trainer logs.
    def record(step: int, total: int, figures: dict[str, float]) -> None:
        losses.append(figures["loss"])
        on_step(step, total, figures)

    with tempfile.TemporaryDirectory() as scratch:
        # The user's settings override our defaults; the rest follows from the recipe.
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
        # Make the trainer, and give the weights back the precision that they came in.
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
        # Optimiser and schedule of the paper.
        steps_per_epoch = max(1, -(-len(trainer.get_train_dataloader()) // accumulate))
        total = int(steps_per_epoch * settings.epochs)
        trainer.optimizer, trainer.lr_scheduler = optimizer_and_schedule(
            [parameter for parameter, _ in trained],
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            steps=total,
            warmup_steps=max(1, round(WARMUP_SHARE * total)),
        )
        # Train, without the Trainer's own printing.
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval()
    return {"steps": len(losses), "final_loss": losses[-1] if losses else float("nan")}
