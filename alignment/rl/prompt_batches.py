"""Which prompts PPO works on, update by update: the same for the same seed, in passes without repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from alignment.data.records import Prompt
from alignment.errors import UserError


def prompt_batches(
    prompts: Sequence[Prompt], batch_size: int, *, seed: int, safety_share: float | None = None
) -> Iterator[list[Prompt]]:
    """Batches without end: each pass over the prompts in a new order, none skipped or repeated within a pass.

    Args:
        prompts: what to train on.
        batch_size: prompts per batch.
        seed: of the order.
        safety_share: of prompts tagged safety in every batch, which then take their own passes; ``None``: as it comes.

    Raises:
        UserError: there is no prompt, or none of a tag that the share asks for.
    """
    if not prompts:
        raise UserError("there is no prompt to train on")
    generator = torch.Generator().manual_seed(seed)
    if safety_share is None:
        parts = [(list(prompts), batch_size)]
    else:
        n_safety = round(safety_share * batch_size)
        tagged = [prompt for prompt in prompts if prompt.dimension == "safety"]
        others = [prompt for prompt in prompts if prompt.dimension != "safety"]
        if (n_safety and not tagged) or (n_safety < batch_size and not others):
            raise UserError(
                f"ppo.safety_share={safety_share}: {len(tagged)} of {len(prompts)} prompts are safety prompts"
            )
        parts = [(tagged, n_safety), (others, batch_size - n_safety)]
    return _batches([(_passes(part, generator), count) for part, count in parts])


def _batches(streams: Sequence[tuple[Iterator[Prompt], int]]) -> Iterator[list[Prompt]]:
    while True:
        yield [next(stream) for stream, count in streams for _ in range(count)]


def _passes(prompts: Sequence[Prompt], generator: torch.Generator) -> Iterator[Prompt]:
    while True:
        for index in torch.randperm(len(prompts), generator=generator).tolist():
            yield prompts[index]
