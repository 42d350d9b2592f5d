"""Drawing answers from a policy: Transformers' forward pass and KV cache in a loop that drops finished rows.

``generate`` goes on computing every row until the last one has stopped. Answers differ in length, so here rows that
have stopped leave the batch (and its cache) as soon as enough of them have. What is drawn is the plain softmax at a
temperature: no top-k, no top-p, no penalty, because PPO's ratio is only right for the distribution that was sampled
from. Prompts of similar length are decoded together; answers come back in the order of the prompts.

Shapes: B rows still going, T prompt, R response, V vocabulary, N prompts in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.models.backbone import Role
from alignment.settings.sections import SamplingSection

COMPACT_SHARE = 0.2
"""Finished rows are dropped once they are this share of the batch; copying the cache more often costs more."""


@dataclass(frozen=True)
class SampledAnswers:
    """An answer to each of N prompts, in their order."""

    token_ids: Tensor
    """(N, R), a stop token included, padded on the right with zeros; R is the longest answer allowed."""
    lengths: Tensor
    """(N,) tokens of each answer."""
    stopped: Tensor
    """(N,) bool, True where the answer ends with a stop token."""

    def row_ids(self) -> list[list[int]]:
        """Tokens of each answer without padding, for those who want text."""
        rows = zip(self.token_ids.cpu(), self.lengths.tolist(), strict=True)
        return [ids[:length].tolist() for ids, length in rows]


@torch.no_grad()
def sample(
    role: Role,
    prompt_ids: Sequence[Sequence[int]],
    *,
    temperature: float,
    max_new_tokens: int,
    batch_size_prompts: int,
    noise: Tensor | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> SampledAnswers:
    """Draw one answer per prompt (repeat a prompt to get several).

    Args:
        role: who answers.
        prompt_ids: encoded prompts, each ending with the generation prompt.
        temperature: divides the logits.
        max_new_tokens: longest answer; one that reaches it without a stop token has ``stopped=False``.
        batch_size_prompts: prompts decoded together.
        noise: (N, R) in [0, 1) with R = ``max_new_tokens``, one number for each token of each answer: what is drawn
            then does not depend on how the prompts are split into batches. Default: torch's generator, as it comes.
        on_batch: called with the number of answers just drawn.
    """
    # Room for all answers, each in its prompt's row.
    backbone, encoder, n = role.backbone, role.backbone.encoder, len(prompt_ids)
    answers = SampledAnswers(
        torch.zeros(n, max_new_tokens, dtype=torch.long, device=backbone.device),
        torch.zeros(n, dtype=torch.long, device=backbone.device),
        torch.zeros(n, dtype=torch.bool, device=backbone.device),
    )
    # Prompts of similar length together, the longest first.
    order = sorted(range(n), key=lambda index: -len(prompt_ids[index]))
    stop_ids = torch.tensor(sorted(encoder.stop_ids), device=backbone.device)
    with backbone.sampling_model(role.adapter) as model:
        for start in range(0, n, batch_size_prompts):
            # Pad one batch and decode it.
            rows = order[start : start + batch_size_prompts]
            inputs = _pad_left([prompt_ids[row] for row in rows], encoder.pad_id, backbone.device)
            uniforms = None if noise is None else noise[rows].to(backbone.device)
            drawn = _decode(
                model, *inputs, stop_ids, temperature=temperature, max_new_tokens=max_new_tokens, noise=uniforms
            )
            # Put each answer into its prompt's row.
            answers.token_ids[rows] = drawn.token_ids
            answers.lengths[rows] = drawn.lengths
            answers.stopped[rows] = drawn.stopped
            if on_batch is not None:
                on_batch(len(rows))
    return answers


def keyed_noise(*key: int, rows: Sequence[int], max_new_tokens: int) -> Tensor:
    """Uniform numbers (N, R), float64 in [0, 1), each row's a function of the key and the row's own number alone.

    Args:
        key: seed, update, and the like; none negative.
        rows: numbers of the rows, such as places in the global batch.
        max_new_tokens: R.
    """
    drawn = [np.random.default_rng([*key, row]).random(max_new_tokens) for row in rows]
    return torch.from_numpy(np.stack(drawn)) if drawn else torch.empty(0, max_new_tokens, dtype=torch.float64)


def draw_tokens(probabilities: Tensor, uniform: Tensor | None = None) -> Tensor:
    """One category (B, 1) per row of probabilities (B, V), by inverting the cumulative distribution.

    ``torch.multinomial`` draws B V exponential numbers one after the other on a processor, which takes longer than the
    forward pass of a small model; this draws B uniform ones.

    Args:
        probabilities: (B, V), not necessarily of sum 1.
        uniform: (B, 1) float64 in [0, 1); default: drawn from torch's generator.

    Raises:
        FloatingPointError: a probability is not a number.
    """
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)  # float32 would lose rare ones of a large vocabulary
    if uniform is None:
        uniform = torch.rand(len(probabilities), 1, device=probabilities.device, dtype=torch.float64)
    if not cumulative[:, -1].isfinite().all():
        raise FloatingPointError("the model's probabilities are not finite")
    # Scaled to the sum, which rounding keeps from being exactly 1; ``right`` passes over categories of probability 0.
    chosen = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return chosen.clamp_max(probabilities.shape[1] - 1)


def _pad_left(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Stack prompts to (B, T), padded on the left, with the mask of real tokens (B, T)."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    return ids, torch.arange(width, device=device) >= (width - lengths)[:, None]


def _decode(
    model: PreTrainedModel,
    token_ids: Tensor,
    prompt_mask: Tensor,
    stop_ids: Tensor,
    *,
    temperature: float,
    max_new_tokens: int,
    noise: Tensor | None,
) -> SampledAnswers:
    """Decode one batch of left-padded prompts (B, T) until every row has stopped or is full."""
    # Results, for all rows of the batch; ``rows`` are the numbers of those still going.
    drawn = torch.zeros(len(token_ids), max_new_tokens, dtype=torch.long, device=token_ids.device)
    lengths = torch.zeros(len(token_ids), dtype=torch.long, device=token_ids.device)
    stopped = torch.zeros(len(token_ids), dtype=torch.bool, device=token_ids.device)
    rows = torch.arange(len(token_ids), device=token_ids.device)
    going = torch.ones_like(rows, dtype=torch.bool)
    # The first pass reads whole prompts; every later one reads the last token alone.
    cache = DynamicCache(config=model.config)
    mask = prompt_mask.long()
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    inputs = token_ids
    for step in range(max_new_tokens):
        hidden = model.base_model(
            input_ids=inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        # Two dimensions: on a slice of three, the output layer would copy its weights once per row.
        logits = model.get_output_embeddings()(hidden[:, -1])
        # Draw a token for each row, and note which rows have stopped.
        uniform = None if noise is None else noise[rows, step, None]
        chosen = draw_tokens(torch.softmax(logits.float() / temperature, dim=-1), uniform)
        drawn[rows, step] = chosen[:, 0] * going  # what a row draws once it has stopped is padding
        lengths[rows] += going
        going &= torch.isin(chosen[:, 0], stop_ids).logical_not()
        stopped[rows] = going.logical_not()
        if not going.any():
            break
        # The tokens just drawn are the next inputs.
        inputs, positions = chosen, positions[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        # Drop finished rows once there are enough of them.
        if going.float().mean() <= 1 - COMPACT_SHARE:
            kept = going.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            rows, going, inputs, positions, mask = (item[kept] for item in (rows, going, inputs, positions, mask))
    return SampledAnswers(drawn, lengths, stopped)


def answer_prompts(
    role: Role,
    prompts: Sequence[EncodedPrompt],
    settings: SamplingSection,
    *,
    on_batch: Callable[[int], None] | None = None,
) -> SampledAnswers:
    """Sample one answer per prompt, in the order of the prompts.

    Args:
        role: who answers.
        prompts: encoded for the role's backbone, each with room for an answer.
        settings: temperature, longest answer in tokens, prompts decoded together.
        on_batch: called with the number of answers just drawn.
    """
    longest = max((len(prompt.token_ids) for prompt in prompts), default=0) + settings.max_new_tokens
    context = role.backbone.context_tokens
    assert longest <= context, f"{longest} tokens do not fit in {context}"
    return sample(
        role,
        [prompt.token_ids for prompt in prompts],
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        batch_size_prompts=settings.batch_size_prompts,
        on_batch=on_batch,
    )
