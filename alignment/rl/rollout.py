"""What PPO learns from: episodes (prompts with sampled answers) and how every role scores them.

Masks come from lengths, never from a padding id. Old log-probabilities are recomputed by the same pass that the
update uses, so that the probability ratio is 1 before the first step. Logits are formed for answer tokens only.

Shapes: B episodes, T prompt+response, R response, H hidden, V vocabulary, N response tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from alignment.data.encoded_dialogues import EncodedAnswer, EncodedPrompt
from alignment.data.records import Prompt
from alignment.masks_padding_logprobs import (
    entropy,
    lengths_to_mask,
    masked_sum,
    pad_right,
    padded_width,
    take_tokens,
    token_logprobs,
)
from alignment.models.backbone import Role
from alignment.models.sampling.batch_sampling import SampledAnswers
from alignment.models.scorers.scorer_protocol import RewardJudgment, RewardScorer
from alignment.rl.ppo_math import kl_k1


def order_of_episodes(prompts: Sequence[EncodedPrompt], answers: SampledAnswers) -> Tensor:
    """Places (B,) of the prompts by the length of their episodes, the shortest first; of equal length, as given.

    Args:
        prompts: one for each of the B episodes.
        answers: the answer sampled for each prompt.
    """
    prompt_lengths = torch.tensor([len(item.token_ids) for item in prompts])
    return (prompt_lengths + answers.lengths.cpu()).sort(stable=True).indices


@dataclass(frozen=True)
class Episodes:
    """A batch of prompts, each with one sampled answer."""

    prompts: list[Prompt]
    token_ids: Tensor
    """(B, T) prompt and response, padded on the right."""
    prompt_lengths: Tensor
    """(B,)"""
    response_lengths: Tensor
    """(B,), the stop token included."""
    stopped: Tensor
    """(B,) bool, True where the response ends with a stop token."""
    is_safety: Tensor
    """(B,) bool, the prompt's tag from collection."""

    @classmethod
    def collect(
        cls,
        prompts: Sequence[EncodedPrompt],
        answers: SampledAnswers,
        *,
        pad_id: int,
        device: torch.device,
    ) -> Episodes:
        """Join prompts and answers, sorted by length so that micro-batches pad little.

        Args:
            prompts: one for each of the B episodes, in any order.
            answers: the answer sampled for each prompt.
            pad_id: fills ``token_ids`` on the right.
            device: where the tensors go.
        """
        order = order_of_episodes(prompts, answers).to(device)
        prompt_ids, prompt_lengths = pad_right([item.token_ids for item in prompts], pad_id, device)
        prompt_ids, prompt_lengths = prompt_ids[order], prompt_lengths[order]
        response_ids, response_lengths = (part.to(device)[order] for part in (answers.token_ids, answers.lengths))
        lengths = prompt_lengths + response_lengths
        # Each row: the prompt's tokens, the answer's right behind them, then padding.
        token_ids = torch.full((len(prompts), padded_width(int(lengths.max()))), pad_id, device=device)
        token_ids[:, : prompt_ids.shape[1]] = prompt_ids
        rows, places = lengths_to_mask(response_lengths, response_ids.shape[1]).nonzero(as_tuple=True)
        token_ids[rows, prompt_lengths[rows] + places] = response_ids[rows, places]
        ordered = [prompts[row].prompt for row in order.tolist()]
        return cls(
            prompts=ordered,
            token_ids=token_ids,
            prompt_lengths=prompt_lengths,
            response_lengths=response_lengths,
            stopped=answers.stopped.to(device)[order],
            is_safety=torch.tensor([prompt.dimension == "safety" for prompt in ordered], device=device),
        )

    def select(self, rows: Sequence[int]) -> Episodes:
        """Some of the episodes, in the order given; widths stay as they are."""
        index = torch.tensor(rows, device=self.token_ids.device, dtype=torch.long)
        return Episodes(
            prompts=[self.prompts[row] for row in rows],
            token_ids=self.token_ids[index],
            prompt_lengths=self.prompt_lengths[index],
            response_lengths=self.response_lengths[index],
            stopped=self.stopped[index],
            is_safety=self.is_safety[index],
        )

    @property
    def lengths(self) -> Tensor:
        """(B,) tokens of prompt and response together."""
        return self.prompt_lengths + self.response_lengths

    @property
    def response_mask(self) -> Tensor:
        """(B, R) bool, True = counts."""
        return lengths_to_mask(self.response_lengths, int(self.response_lengths.max()))

    def response_ids(self, row: int) -> list[int]:
        """Tokens of one answer."""
        start, end = int(self.prompt_lengths[row]), int(self.lengths[row])
        ids: list[int] = self.token_ids[row, start:end].tolist()
        return ids

    def dialogues(self) -> list[EncodedAnswer]:
        """Prompt and response of each episode, without padding."""
        prompts = [
            ids[:length] for ids, length in zip(self.token_ids.tolist(), self.prompt_lengths.tolist(), strict=True)
        ]
        return [
            EncodedAnswer(prompt, self.response_ids(row), self.prompts[row].messages)
            for row, prompt in enumerate(prompts)
        ]


@dataclass(frozen=True)
class Rollout:
    """Episodes with everything the roles said about them."""

    episodes: Episodes
    old_logprobs: Tensor
    """(B, R) under the policy that sampled, at the sampling temperature."""
    ref_logprobs: Tensor
    """(B, R) under the reference."""
    entropy: Tensor
    """(B, R) of the policy's distributions, nats."""
    old_values: Tensor
    """(B, R)"""
    helpfulness: Tensor
    """(B,) raw score."""
    safety: Tensor | None
    """(B,) raw score; ``None`` without a safety model."""
    disagreement: dict[str, Tensor] = field(default_factory=dict)
    """Reward model -> (B,) deviation of the opinions behind its scores, for those that have several."""

    @property
    def kl(self) -> Tensor:
        """(B,) divergence of each answer from the reference: k1 summed over its tokens, nats."""
        return masked_sum(kl_k1(self.old_logprobs, self.ref_logprobs), self.episodes.response_mask, dim=1)


@dataclass(frozen=True)
class GatedRollout:
    """A rollout with its gated and shaped scores."""

    rollout: Rollout
    raw_scores: Tensor
    """(B,) after the gate, before whitening."""
    routed_to_safety: Tensor
    """(B,) bool."""
    scores: Tensor
    """(B,) as the policy is paid them: whitened, less the penalty for a missing stop."""


class ResponsePass(NamedTuple):
    """What one forward pass says about the response tokens; zeros where padding."""

    logprobs: Tensor
    """(B, R)"""
    entropy: Tensor
    """(B, R), nats; carries no gradient; zeros where it was not asked for."""
    states: Tensor
    """(B, R, H), the hidden states that predict the response tokens."""


def response_states(role: Role, token_ids: Tensor, prompt_lengths: Tensor, response_lengths: Tensor) -> Tensor:
    """Hidden states (B, R, H) that predict the response tokens, under a role.

    Token j of a response is predicted by the state at position ``prompt_length + j - 1``.

    Args:
        role: who passes over them.
        token_ids: (B, T) prompt and response, padded on the right; columns beyond the longest row are cut off.
        prompt_lengths: (B,) tokens of each prompt.
        response_lengths: (B,) tokens of each response; R is the longest.
    """
    lengths = prompt_lengths + response_lengths
    width, size = int(lengths.max()), int(response_lengths.max())
    with role.backbone.role(role.adapter):
        hidden = role.backbone.hidden_states(token_ids[:, :width], lengths)
    positions = (prompt_lengths[:, None] - 1 + torch.arange(size, device=token_ids.device)).clamp(max=width - 1)
    return take_tokens(hidden, torch.arange(len(hidden), device=hidden.device), positions)


def response_pass(
    role: Role,
    token_ids: Tensor,
    prompt_lengths: Tensor,
    response_lengths: Tensor,
    *,
    temperature: float,
    with_entropy: bool = False,
) -> ResponsePass:
    """Log-probabilities, hidden states and, where asked for, entropies of the response tokens under a role.

    Args:
        role: who passes over them.
        token_ids: (B, T) prompt and response, padded on the right.
        prompt_lengths: (B,) tokens of each prompt.
        response_lengths: (B,) tokens of each response; R is the longest.
        temperature: divides the logits, as when the responses were sampled.
        with_entropy: whether to compute the entropies, in nats.
    """
    states = response_states(role, token_ids, prompt_lengths, response_lengths)
    mask = lengths_to_mask(response_lengths, states.shape[1])
    # Where the response tokens stand in token_ids.
    columns = (prompt_lengths[:, None] + torch.arange(mask.shape[1], device=mask.device)).clamp(
        max=token_ids.shape[1] - 1
    )
    # Logits (N, V) and target tokens (N,), without padding.
    logits = role.backbone.logits(states[mask])
    targets = token_ids.gather(1, columns)[mask]
    # Back to (B, R), zeros where padding.
    zeros = torch.zeros(mask.shape, device=mask.device)
    logprobs = zeros.masked_scatter(mask, token_logprobs(logits, targets, temperature=temperature))
    entropies = zeros
    if with_entropy:
        entropies = zeros.masked_scatter(mask, entropy(logits.detach(), temperature=temperature))
    return ResponsePass(logprobs, entropies, states)


def in_micro_batches(n_rows: int, size: int) -> list[slice]:
    """Consecutive slices of at most ``size`` rows."""
    return [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


class ScoredResponses(NamedTuple):
    """Log-probabilities of the responses; their entropies and values where those were asked for, else zeros."""

    logprobs: Tensor
    """(B, R)"""
    entropy: Tensor
    """(B, R), nats."""
    values: Tensor
    """(B, R)"""


@torch.no_grad()
def score_responses(
    role: Role,
    episodes: Episodes,
    *,
    temperature: float,
    micro_batch_size: int,
    with_entropy: bool = False,
    values_of: Callable[[Tensor, slice], Tensor] | None = None,
) -> ScoredResponses:
    """Pass over all episodes without gradient.

    Args:
        role: who passes over them.
        episodes: sorted by length, so that each micro-batch is cut to its own longest row.
        temperature: divides the logits, as when the responses were sampled.
        micro_batch_size: episodes per forward pass.
        with_entropy: whether to compute the entropies, which cost another pass over all logits.
        values_of: from the role's states (b, r, H) and the rows, their values (b, r).

    Returns:
        Log-probabilities, entropies and values, each (B, R).
    """
    width = int(episodes.response_lengths.max())
    parts: list[ScoredResponses] = []
    for rows in in_micro_batches(len(episodes.prompts), micro_batch_size):
        inputs = episodes.token_ids[rows], episodes.prompt_lengths[rows], episodes.response_lengths[rows]
        result = response_pass(role, *inputs, temperature=temperature, with_entropy=with_entropy)
        values = values_of(result.states, rows) if values_of else torch.zeros_like(result.logprobs)
        parts.append(ScoredResponses(*(pad_columns(part, width) for part in (result.logprobs, result.entropy, values))))
    return ScoredResponses(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def pad_columns(values: Tensor, width: int) -> Tensor:
    """(b, r) -> (b, width), zeros on the right."""
    return torch.nn.functional.pad(values, (0, width - values.shape[1]))


def reward_judgments(
    models: Mapping[str, RewardScorer], episodes: Episodes, *, batch_size: int
) -> dict[str, RewardJudgment]:
    """What each reward model says of the episodes (B), on their device."""
    dialogues, device = episodes.dialogues(), episodes.token_ids.device
    found: dict[str, RewardJudgment] = {}
    for name, model in models.items():
        scores, disagreement = model.judge(dialogues, batch_size=batch_size)
        found[name] = RewardJudgment(scores.to(device), None if disagreement is None else disagreement.to(device))
    return found
