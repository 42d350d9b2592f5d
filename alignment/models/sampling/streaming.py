"""One answer as it is drawn, token by token; nothing is held between two tokens.

Each answer has a KV cache and random numbers of its own and enters its role for one forward pass at a time. So answers
of several roles on one backbone can be drawn in turn, in any order, and each is what it would be alone; one that
nobody reads any further costs nothing more. What is drawn is the plain softmax at a temperature, as in
``alignment.models.sampling.batch_sampling``. A sampling copy is not used: it would have to be filled anew for every
token.

Shapes: T tokens read in a step (the prompt, then one), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from alignment.data.encoded_dialogues import check_length
from alignment.data.records import Message
from alignment.models.backbone import Backbone
from alignment.models.sampling.batch_sampling import draw_tokens
from alignment.settings.sections import SamplingSection

HALF_A_CHARACTER = "\ufffd"
"""What bytes decode to that are no whole character yet."""


class Partial(NamedTuple):
    """An answer so far.

    Attributes:
        text: all of it, in whole characters and without the stop token.
        n_tokens: tokens drawn, the stop token included.
        finish_reason: what ended it, ``length`` being the limit; ``None`` while it goes on.
    """

    text: str
    n_tokens: int
    finish_reason: Literal["stop", "length"] | None


def stream_answer(
    backbone: Backbone, role: str | None, messages: Sequence[Message], sampling: SamplingSection, *, seed: int
) -> Iterator[Partial]:
    """Draw one answer, yielding what there is after each token; the last one tells what ended it.

    Args:
        backbone: the frozen base with its adapters.
        role: adapter to draw from, ``None`` for the bare base.
        messages: the dialogue, a user's turn last.
        sampling: temperature and longest answer.
        seed: of this answer; the same one draws the same answer.

    Raises:
        UserError: the conversation leaves no room for an answer in the model's context, or cannot be encoded.
    """
    encoder = backbone.encoder
    inputs = encoder.encode_prompt(messages)
    check_length(
        len(inputs) + sampling.max_new_tokens, backbone.context_tokens, "the conversation with its next answer"
    )
    random = torch.Generator().manual_seed(seed)
    cache = DynamicCache(config=backbone.base.config)
    drawn: list[int] = []
    for left in reversed(range(sampling.max_new_tokens)):
        probabilities = _next_probabilities(backbone, role, inputs, cache, sampling.temperature)
        uniform = torch.rand(1, 1, generator=random, dtype=torch.float64).to(backbone.device)
        token = int(draw_tokens(probabilities, uniform))
        stopped = token in encoder.stop_ids
        drawn.append(token)
        text = encoder.decode(drawn[:-1] if stopped else drawn).rstrip(HALF_A_CHARACTER)
        yield Partial(text, len(drawn), "stop" if stopped else None if left else "length")
        if stopped:
            return
        inputs = [token]


@torch.no_grad()
def _next_probabilities(
    backbone: Backbone, role: str | None, inputs: Sequence[int], cache: DynamicCache, temperature: float
) -> Tensor:
    """Probabilities (1, V) of the next token after T more; ``cache`` holds those before and takes these in."""
    token_ids = torch.tensor([inputs], device=backbone.device)
    with backbone.role(role):
        hidden = backbone.base.base_model(input_ids=token_ids, past_key_values=cache, use_cache=True).last_hidden_state
        logits = backbone.base.get_output_embeddings()(hidden[:, -1])
    return torch.softmax(logits.float() / temperature, dim=-1)
