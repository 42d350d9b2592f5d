"""From a recipe's file names to checked, encoded data that fits the model; what does not fit is an error or counted."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.config import Recipe
from alignment.data.dialogue import DialogueEncoder, EncodedDialogue
from alignment.data.records import Demonstration, Prompt, check_no_overlap, read_jsonl
from alignment.errors import UserError
from alignment.resources import resolve


def heldout_prompts(recipe: Recipe) -> list[Prompt]:
    """The held-out prompts; empty where the recipe names none."""
    if recipe.data.heldout_prompts is None:
        return []
    return read_jsonl(resolve(recipe.data.heldout_prompts), Prompt, on_error=recipe.data.on_error)[0]


def training_prompts(recipe: Recipe) -> list[Prompt]:
    """The training prompts, checked against the held-out ones."""
    prompts, _ = read_jsonl(resolve(recipe.data.prompts), Prompt, on_error=recipe.data.on_error)
    check_no_overlap(
        (prompt.messages for prompt in prompts),
        (prompt.messages for prompt in heldout_prompts(recipe)),
        train_name=recipe.data.prompts,
        heldout_name=str(recipe.data.heldout_prompts),
    )
    return prompts


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
        dialogue = encoder.encode_dialogue(item.messages, loss_on="all_answers")
        if len(dialogue.input_ids) <= max_length_tokens:
            encoded.append(dialogue)
        elif skip_too_long:
            too_long += 1
        else:
            raise UserError(
                f"dialogue {item.id} has {len(dialogue.input_ids)} tokens, more than the {max_length_tokens} that fit. "
                "Raise max_length_tokens if the model allows, or pass data.too_long=skip to leave such out and count them."
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
    encoded = [encoder.encode_prompt(prompt.messages) for prompt in prompts]
    for prompt, ids in zip(prompts, encoded, strict=True):
        if len(ids) + max_new_tokens > context_tokens:
            raise UserError(
                f"prompt {prompt.id} has {len(ids)} tokens; with max_new_tokens={max_new_tokens} that is more than the "
                f"model's context of {context_tokens}. Shorten the prompt or lower max_new_tokens."
            )
    return encoded
