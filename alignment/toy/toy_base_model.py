"""The toy base model: a tiny Llama, pretrained on the toy corpus from scratch.

A plain loop: at this size TRL's trainer would spend more time on itself than on the model. Transcripts in the corpus
(``question: ...`` / ``answer: ...`` lines) are shown to the model in the chat format, as today's base models have seen
plenty of chats; prose is shown as it is. Nothing is labelled good or bad. Questions are read, not learned, and
random words stand in and around some of them, so that unseen wordings do not throw the model off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignment.data.jsonl_and_raw_rows import OnError, read_jsonl
from alignment.machine.device_and_processes import pick_device
from alignment.masks_padding_logprobs import lengths_to_mask, pad_right
from alignment.models.backbone import output_logits
from alignment.models.muon import Muon
from alignment.models.optimizer_and_trainer import MasterWeights
from alignment.models.pretrained import resolve_dtype, use_fast_attention
from alignment.progress import OnStep
from alignment.settings.sections import BaseSection
from alignment.toy.toy_tokenizer import ASSISTANT, BOS, EOS, PAD, SPECIAL_TOKENS, TOKEN_ID, USER

NEWTON_SCHULZ_STEPS = 3
"""Of Muon, whose default is five: an equal loss in less time (docs/toy.md)."""


NOISY_ROWS = 0.5
"""Share of the documents whose questions have words replaced; and, drawn apart, of those that get extra ones."""


class Document(BaseModel):
    """One text of the pretraining corpus."""

    text: str


def read_corpus(path: str, *, on_error: OnError = "raise") -> list[str]:
    """The corpus as texts; raise ``UserError`` naming a malformed line."""
    documents, _ = read_jsonl(path, Document, on_error=on_error)
    return [document.text for document in documents]


def new_model(settings: BaseSection) -> LlamaForCausalLM:
    """A randomly initialised Llama of the configured size."""
    config = LlamaConfig(
        vocab_size=settings.vocabulary_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.hidden_size * 8 // 3 // 8 * 8,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=settings.context_tokens,
        pad_token_id=TOKEN_ID[PAD],
        bos_token_id=TOKEN_ID[BOS],
        eos_token_id=TOKEN_ID[EOS],
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def document_batches(documents: Sequence[list[int]], *, steps: int, batch_size: int) -> list[list[list[int]]]:
    """Random batches; within each stretch of 32 batches, documents of similar length share one."""
    batches: list[list[list[int]]] = []
    order: list[int] = []
    while len(batches) < steps:
        while len(order) < 32 * batch_size:
            order += torch.randperm(len(documents)).tolist()
        stretch = sorted(order[: 32 * batch_size], key=lambda index: len(documents[index]))
        order = order[32 * batch_size :]
        for place in torch.randperm(32).tolist():
            batches.append([documents[index] for index in stretch[place * batch_size : (place + 1) * batch_size]])
    return batches[:steps]


def pretrain(
    model: LlamaForCausalLM,
    documents: Sequence[list[int]],
    settings: BaseSection,
    *,
    dtype: str,
    on_step: OnStep,
) -> float:
    """Train on next-token prediction; returns the mean loss of the last tenth of the steps, nats per token.

    Args:
        model: the model to train, in place; it is moved to the device and left in evaluation mode.
        documents: token ids of each document.
        settings: steps, batch size in documents, learning rates and noise.
        dtype: name of the weights' type, for instance ``bfloat16``; ``auto`` is what the hardware does fast.
        on_step: called after each step with its number, the number of steps and the loss.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    # Model on the device, fp32 master weights, optimizers with their peak learning rates, all batches.
    nn.Module.to(model, device=pick_device(), dtype=resolve_dtype(dtype)).train()
    use_fast_attention(model)
    weights = MasterWeights(list(model.parameters()))
    optimizers = pretraining_optimizers(model, weights, settings)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    losses: list[float] = []
    batches = document_batches(documents, steps=settings.steps, batch_size=settings.batch_size_documents)
    for step, batch in enumerate(batches, start=1):
        # Add random words to the questions of some rows; then forward and backward.
        varied = [
            with_extra_words(ids, settings.question_extra_words, settings.vocabulary_size)
            if torch.rand(()) < NOISY_ROWS
            else ids
            for ids in batch
        ]
        losses.append(_next_token_step(model, varied, question_noise=settings.question_noise))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"pretraining loss is {losses[-1]} at step {step}; lower base.learning_rate")
        # Clip the gradients, hand them to the master weights, and step at the scheduled rate.
        torch.nn.utils.clip_grad_norm_(weights.parameters, 1.0)
        weights.take_gradients()
        for optimizer, rates in zip(optimizers, peaks, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * _schedule(step, settings)
            optimizer.step()
        # Copy the master weights back into the model.
        weights.write_back()
        weights.clear_gradients()
        on_step(step, settings.steps, {"loss": losses[-1]})
    model.eval()
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


def pretraining_optimizers(
    model: LlamaForCausalLM, weights: MasterWeights, settings: BaseSection
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings and norms (Jordan et al. 2024).

    In as many steps this reaches a lower loss than AdamW alone. Muon computes in the number format of the model.
    """
    names = [name for name, _ in model.named_parameters()]
    pairs = list(zip(names, weights.masters, strict=True))
    matrices = [master for name, master in pairs if master.ndim == 2 and "embed" not in name]
    others = [master for name, master in pairs if master.ndim != 2 or "embed" in name]
    return (
        Muon(
            matrices,
            dtype=model.dtype,
            lr=settings.matrix_learning_rate,
            weight_decay=0.01,
            momentum=0.95,
            ns_steps=NEWTON_SCHULZ_STEPS,
        ),
        torch.optim.AdamW(others, lr=settings.learning_rate, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0),
    )


def _next_token_step(model: LlamaForCausalLM, batch: list[list[int]], *, question_noise: float) -> float:
    """Forward and backward on one batch; returns its loss, nats per learned token."""
    token_ids, lengths = pad_right(batch, TOKEN_ID[PAD], pick_device())
    inputs = with_question_noise(token_ids, question_noise, model.config.vocab_size)
    learned = learned_positions(token_ids, lengths)
    # Right padding and causal attention: no attention mask is needed, and the kernel without one is faster.
    hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
    loss = cross_entropy(output_logits(model, hidden[learned]).float(), token_ids.roll(-1, dims=1)[learned])
    loss.backward()
    return loss.item()


def _schedule(step: int, settings: BaseSection) -> float:
    """Linear warm-up, then linear to 0 after the last step."""
    if step <= settings.warmup_steps:
        return step / settings.warmup_steps
    return 1 - (step - settings.warmup_steps) / max(1, settings.steps + 1 - settings.warmup_steps)


def save_base(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a standard model folder."""
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def learned_positions(token_ids: Tensor, lengths: Tensor) -> Tensor:
    """Positions (B, T) whose next token is learned: answers, their end, and prose; not questions and their end.

    Questions have a handful of wordings, and what a model this small spends on predicting them, its answers lack.
    """
    role_token = (token_ids == USER) | (token_ids == ASSISTANT)
    learned = ~in_question(token_ids) & ~role_token & lengths_to_mask(lengths, token_ids.shape[1])
    return torch.nn.functional.pad(learned[:, 1:], (0, 1))


def in_question(token_ids: Tensor) -> Tensor:
    """Which tokens (B, T) are words of a question: those between a question's role token and an answer's."""
    is_open = (token_ids == USER).cumsum(1) > (token_ids == ASSISTANT).cumsum(1)
    return is_open & (token_ids != USER)


def with_question_noise(token_ids: Tensor, share: float, vocabulary_size: int) -> Tensor:
    """Token ids (B, T); in about every second row, a share of the questions' words are random ones instead.

    A model this small has seen few words, and one that it does not know in a question changes what it takes the whole
    question to be. Random words in their place teach it to go by the others; the clean rows teach it the facts.
    """
    is_noisy = torch.rand(token_ids.shape[0], 1, device=token_ids.device) < NOISY_ROWS
    chosen = in_question(token_ids) & is_noisy & (torch.rand(token_ids.shape, device=token_ids.device) < share)
    return torch.where(chosen, torch.randint_like(token_ids, len(SPECIAL_TOKENS), vocabulary_size), token_ids)


def with_extra_words(ids: list[int], most: int, vocabulary_size: int) -> list[int]:
    """A document with 0 to ``most`` random words before or after each of its questions.

    The corpus words its questions in a few ways, which end with what is asked about or soon after. Whoever asks
    otherwise puts words there that the model has not seen in such a place.
    """
    longer: list[int] = []
    question_starts = 0
    for token in ids:
        if token == ASSISTANT:
            words = torch.randint(len(SPECIAL_TOKENS), vocabulary_size, (int(torch.randint(most + 1, ())),)).tolist()
            place = len(longer) if torch.rand(()) < 0.5 else question_starts
            longer[place:place] = words
        longer.append(token)
        if token == USER:
            question_starts = len(longer)
    return longer
