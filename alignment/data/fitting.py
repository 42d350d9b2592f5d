"""Prompts and dialogues as token ids that fit the model's context; what is too long is an error or counted."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.data.encoding import DialogueEncoder, EncodedDialogue
from alignment.data.records import Demonstration, Prompt
from alignment.errors import UserError


def fitting_prompts(
    prompts: Sequence[Prompt],
    encoder: DialogueEncoder,
    *,
    max_new_tokens: int,
    context_tokens: int,
    skip_too_long: bool,
) -> tuple[list[Prompt], int]:
    """Prompts that leave room for an answer in the model's context, and how many do not.

    Raises:
        UserError: one does not and ``skip_too_long`` is off, or none is left.
    """
    if not skip_too_long:
        encode_prompts(prompts, encoder, max_new_tokens=max_new_tokens, context_tokens=context_tokens)
        return list(prompts), 0
    kept = [p for p in prompts if len(_prompt_ids(p, encoder)) + max_new_tokens <= context_tokens]
    if prompts and not kept:
        raise UserError(
            f"no prompt is left: all {len(prompts)} are longer than the model's context of {context_tokens} tokens "
            f"less max_new_tokens={max_new_tokens}"
        )
    return kept, len(prompts) - len(kept)


def encode_dialogues(
    demonstrations: Sequence[Demonstration],
    encoder: DialogueEncoder,
    *,
    max_length_tokens: int,
    skip_too_long: bool,
) -> tuple[list[EncodedDialogue], int]:
    """Encode curated dialogues; returns them and how many were too long.

    Raises:
        UserError: one is longer than ``max_length_tokens`` and ``skip_too_long`` is off, or none is left.
    """
    encoded: list[EncodedDialogue] = []
    too_long = 0
    for item in demonstrations:
        try:
            dialogue = encoder.encode_dialogue(item.messages, loss_on="all_answers")
        except UserError as error:
            raise UserError(f"dialogue {item.id}: {error}") from error
        if len(dialogue.input_ids) <= max_length_tokens:
            encoded.append(dialogue)
        elif skip_too_long:
            too_long += 1
        else:
            raise UserError(
                f"dialogue {item.id} has {len(dialogue.input_ids)} tokens, more than the {max_length_tokens} that fit. "
                "Raise max_length_tokens if the model allows, or pass data.too_long=skip to leave such out and count "
                "them."
            )
    if not encoded:
        raise UserError(f"no dialogue is left to train on: all {too_long} are longer than {max_length_tokens} tokens")
    return encoded, too_long


def encode_prompts(
    prompts: Sequence[Prompt], encoder: DialogueEncoder, *, max_new_tokens: int, context_tokens: int
) -> list[list[int]]:
    """Encode prompts, each ending with the generation prompt.

    Raises:
        UserError: a prompt leaves no room for an answer of ``max_new_tokens``.
    """
    encoded = [_prompt_ids(prompt, encoder) for prompt in prompts]
    for prompt, ids in zip(prompts, encoded, strict=True):
        if len(ids) + max_new_tokens > context_tokens:
            raise UserError(
                f"prompt {prompt.id} has {len(ids)} tokens; with max_new_tokens={max_new_tokens} that is more than the "
                f"model's context of {context_tokens}. Shorten the prompt, lower max_new_tokens, or pass "
                "data.too_long=skip to leave such out and count them."
            )
    return encoded


def _prompt_ids(prompt: Prompt, encoder: DialogueEncoder) -> list[int]:
    try:
        return encoder.encode_prompt(prompt.messages)
    except UserError as error:
        raise UserError(f"prompt {prompt.id}: {error}") from error
