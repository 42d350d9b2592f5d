"""One answer, piece by piece as it is generated, for chatting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Thread

import torch
from transformers import GenerationConfig, TextIteratorStreamer

from alignment.config import SamplingSection
from alignment.data.dialogue import check_length
from alignment.data.records import Message
from alignment.models.backbone import Backbone


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
        arguments = {
            "input_ids": inputs,
            "attention_mask": torch.ones_like(inputs),
            "generation_config": config,
            "streamer": streamer,
        }
        worker = Thread(target=model.generate, kwargs=arguments)  # type: ignore[call-overload]
        worker.start()
        yield from streamer
        worker.join()
