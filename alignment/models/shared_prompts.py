"""Several answers to one prompt in one row, so that the prompt passes through the model once.

A row holds the prompt and its K answers, one after the other. Every token attends to the prompt and to what precedes
it in its own answer, and has the position that it would have there: each answer sees exactly what it would see alone.

Shapes: B rows (prompts), K answers per prompt, T tokens of a row, W tokens of the longest dialogue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.masks_padding_logprobs import pad_right, padded_width, take_tokens
from alignment.models.backbone import Backbone
from alignment.models.pretrained import WIDENED_ATTENTION

MODEL_TYPES = frozenset({"gemma", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "qwen3_moe"})
"""Families that ``tests/alignment/models/test_shared_prompts.py`` has tried; of others each dialogue passes alone."""
ATTENTION = frozenset({"eager", "sdpa", WIDENED_ATTENTION})
"""Kernels that take any mask."""


def can_share(model: PreTrainedModel) -> bool:
    """Whether the answers of one prompt can pass in one row: full attention in all layers, by a kernel with masks."""
    config = model.config.get_text_config()
    full = {"full_attention"} >= set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    return config.model_type in MODEL_TYPES and config._attn_implementation in ATTENTION and full and window is None


@dataclass(frozen=True)
class SharedPrompts:
    """Where prompt and answers stand in their row."""

    prompt_lengths: Tensor
    """(B,)"""
    answer_lengths: Tensor
    """(B, K)"""

    @property
    def lengths(self) -> Tensor:
        """(B,) tokens of each row."""
        return self.prompt_lengths + self.answer_lengths.sum(1)

    @property
    def dialogue_lengths(self) -> Tensor:
        """(B K,) tokens of each prompt with one of its answers."""
        return (self.prompt_lengths[:, None] + self.answer_lengths).flatten()

    @property
    def _starts(self) -> Tensor:
        """(B, K) column of each answer's first token."""
        return self.prompt_lengths[:, None] + self.answer_lengths.cumsum(1) - self.answer_lengths

    def positions_and_mask(self, width: int) -> tuple[Tensor, Tensor]:
        """Position of each token in its own dialogue (B, T), and what each attends to (B, 1, T, T), True = counts."""
        columns = torch.arange(width, device=self.prompt_lengths.device)
        starts = self._starts
        answer = (columns[None, :, None] >= starts[:, None, :]).sum(2)  # 0: the prompt; k: the k-th answer
        shifts = torch.nn.functional.pad(starts - self.prompt_lengths[:, None], (1, 0))
        own = answer[:, :, None] == answer[:, None, :]
        visible = (own | (answer == 0)[:, None, :]) & (columns[:, None] >= columns)
        return columns - shifts.gather(1, answer), visible[:, None]

    def dialogue_columns(self, width: int) -> Tensor:
        """Column in its row of every token of every dialogue: (B K, W); past the dialogue's end, its last one."""
        columns = torch.arange(width, device=self.prompt_lengths.device).expand(self.answer_lengths.numel(), -1)
        columns = torch.minimum(columns, self.dialogue_lengths[:, None] - 1)
        prompt_lengths = self.prompt_lengths.repeat_interleave(self.answer_lengths.shape[1])
        shifts = self._starts.flatten() - prompt_lengths
        return columns + torch.where(columns >= prompt_lengths[:, None], shifts[:, None], 0)

    def split(self, rows: Tensor) -> Tensor:
        """Tokens (B, T) or hidden states (B, T, H) of rows, as dialogues (B K, W) or (B K, W, H)."""
        n_answers = self.answer_lengths.shape[1]
        if n_answers == 1:
            return rows
        columns = self.dialogue_columns(padded_width(int(self.dialogue_lengths.max())))
        return take_tokens(rows, torch.arange(len(rows), device=rows.device).repeat_interleave(n_answers), columns)


def dialogue_states(backbone: Backbone, token_ids: Tensor, prompts: SharedPrompts) -> Tensor:
    """Last hidden states of B prompts with K answers each under the current role, as of dialogues that pass alone.

    The prompt passes once where the model's attention allows it.

    Args:
        backbone: the model.
        token_ids: (B, T), prompt and answers one after the other, padded on the right with anything.
        prompts: where they stand.

    Returns:
        (B K, W, H), the answers of one prompt together; positions past a dialogue's end hold garbage.
    """
    if prompts.answer_lengths.shape[1] == 1 or not can_share(backbone.base):
        return backbone.hidden_states(prompts.split(token_ids), prompts.dialogue_lengths)
    positions, visible = prompts.positions_and_mask(token_ids.shape[1])
    mask = torch.zeros(visible.shape, dtype=backbone.dtype, device=visible.device)
    mask = mask.masked_fill(visible.logical_not(), torch.finfo(backbone.dtype).min)  # eager attention adds its mask
    output = backbone.base.base_model(input_ids=token_ids, attention_mask=mask, position_ids=positions, use_cache=False)
    return prompts.split(output.last_hidden_state)


def pack_answers(
    rows: Sequence[Sequence[EncodedAnswer]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (B, T), prompt lengths (B,) and answer lengths (B, K) of B prompts with K answers each.

    Args:
        rows: (B, K) dialogues; those of a row begin with the same prompt.
        pad_id: stands past the end.
        device: of the tensors.
    """
    packed = [row[0].prompt_ids + [token for answer in row for token in answer.answer_ids] for row in rows]
    token_ids, _ = pad_right(packed, pad_id, device)
    prompt_lengths = torch.tensor([len(row[0].prompt_ids) for row in rows], device=device)
    answer_lengths = torch.tensor([[len(answer.answer_ids) for answer in row] for row in rows], device=device)
    return token_ids, prompt_lengths, answer_lengths


def batches_by_prompt(dialogues: Sequence[EncodedAnswer], *, batch_size: int, shared: int) -> Iterator[list[list[int]]]:
    """Indices of dialogues as batches of rows: a row begins with one prompt, the rows of a batch are equally many.

    Args:
        dialogues: in any order.
        batch_size: dialogues per batch.
        shared: dialogues at most in a row.
    """
    rows_of: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, dialogue in enumerate(dialogues):
        rows_of[tuple(dialogue.prompt_ids)].append(index)
    rows = [found[start : start + shared] for found in rows_of.values() for start in range(0, len(found), shared)]
    for size in sorted(set(map(len, rows))):
        equal = sorted(
            (row for row in rows if len(row) == size),
            key=lambda row: len(dialogues[row[0]].prompt_ids) + sum(len(dialogues[index].answer_ids) for index in row),
        )
        step = max(1, batch_size // size)
        yield from (equal[start : start + step] for start in range(0, len(equal), step))
