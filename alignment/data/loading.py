"""From a recipe's file names to checked, encoded data that fits the model; what does not fit is an error or counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from alignment.data.dialogue import DialogueEncoder, EncodedDialogue
from alignment.data.records import Demonstration, Message, Prompt, ReadReport, check_no_overlap
from alignment.data.sources import load_prompts
from alignment.errors import UserError
from alignment.recipe import Recipe
from alignment.resources import resolve


def heldout_prompts(recipe: Recipe) -> tuple[list[Prompt], ReadReport]:
    """The held-out prompts and what was left out of them; empty where the recipe names none."""
    if recipe.data.heldout_prompts is None:
        return [], ReadReport(path="")
    return _prompts(recipe, recipe.data.heldout_prompts)


def training_prompts(recipe: Recipe) -> tuple[list[Prompt], ReadReport]:
    """The training prompts, checked against the held-out ones, and what was left out of them."""
    prompts, report = _prompts(recipe, recipe.data.prompts)
    check_against_heldout(recipe, (prompt.messages for prompt in prompts), name=recipe.data.prompts)
    return prompts, report


def check_against_heldout(recipe: Recipe, dialogues: Iterable[Sequence[Message]], *, name: str) -> None:
    """Raise ``UserError`` if one of the held-out prompts is among these prompts, which are to be trained on."""
    check_no_overlap(
        dialogues,
        (prompt.messages for prompt in heldout_prompts(recipe)[0]),
        train_name=name,
        heldout_name=str(recipe.data.heldout_prompts),
    )


def _prompts(recipe: Recipe, path: str) -> tuple[list[Prompt], ReadReport]:
    prompts, report = load_prompts(str(resolve(path)), on_error=recipe.data.on_error)
    counts = Counter(prompt.id for prompt in prompts)
    identifier, count = counts.most_common(1)[0]
    if count > 1:
        raise UserError(f"{path}: {count} prompts have the id {identifier!r}. Give each prompt an id of its own.")
    return prompts, report


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
