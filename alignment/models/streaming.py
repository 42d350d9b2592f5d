"""One answer, piece by piece as it is generated, for chatting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, TextIteratorStreamer

from alignment.data.dialogue import check_length
from alignment.data.records import Message
from alignment.models.backbone import Backbone
from alignment.recipe import SamplingSection


def stream_answer(
    backbone: Backbone, role: str | None, messages: Sequence[Message], sampling: SamplingSection
) -> Iterator[str]:
    """Yield the pieces of one sampled answer.

    Raises:
        UserError: the conversation leaves no room for an answer in the model's context.
    """
    encoder = backbone.encoder
    ids = encoder.encode_prompt(messages)
    check_length(len(ids) + sampling.max_new_tokens, backbone.context_tokens, "the conversation with its next answer")
    streamer = TextIteratorStreamer(backbone.tokenizer, skip_prompt=True, skip_special_tokens=True)
    config = GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sorted(encoder.stop_ids),
        pad_token_id=encoder.pad_id,
    )
    with backbone.sampling_model(role) as model:
        inputs = torch.tensor([ids], device=backbone.device)
        reader_left = Event()
        arguments = {
            "input_ids": inputs,
            "attention_mask": torch.ones_like(inputs),
            "generation_config": config,
            "streamer": streamer,
            "stopping_criteria": [lambda ids, _: torch.full((len(ids),), reader_left.is_set(), device=ids.device)],
        }
        with ThreadPoolExecutor(max_workers=1) as pool:
            generation = pool.submit(_generate, model, arguments)
            try:
                yield from streamer
            finally:
                reader_left.set()
            generation.result()


def _generate(model: PreTrainedModel, arguments: dict[str, Any]) -> None:
    """Generate; whoever reads the streamer hears of the end even if it is an error."""
    try:
        model.generate(**arguments)  # type: ignore[operator]
    finally:
        arguments["streamer"].end()
