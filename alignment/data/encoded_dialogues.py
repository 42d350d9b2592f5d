"""Prompts, answers and dialogues as token ids, and whether they fit the model's context.

What is too long is an error or counted; nothing is ever truncated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from alignment.data.records import Comparison, Demonstration, Dimension, Message, Prompt
from alignment.errors import UserError


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as one model reads it; another tokenizer makes other token ids of it.

    Attributes:
        prompt: the dialogue that waits for an answer.
        token_ids: the dialogue up to and including the generation prompt.
    """

    prompt: Prompt
    token_ids: list[int]

    @property
    def dimension(self) -> Dimension:
        """The prompt's tag."""
        return self.prompt.dimension


AnyPrompt = TypeVar("AnyPrompt", Prompt, EncodedPrompt)
"""For what goes by the prompts' tags, and does not ask whether they are encoded."""


@dataclass(frozen=True)
class EncodedAnswer:
    """A prompt and one answer to it.

    Attributes:
        prompt_ids: the dialogue up to and including the generation prompt.
        answer_ids: the answer's tokens, the last of them the stop token; all are learned.
        messages: the dialogue as text, for a reader with another tokenizer; empty where nobody needs it.
    """

    prompt_ids: list[int]
    answer_ids: list[int]
    messages: tuple[Message, ...] = ()

    @property
    def input_ids(self) -> list[int]:
        """Prompt and answer in one row."""
        return self.prompt_ids + self.answer_ids


@dataclass(frozen=True)
class EncodedDialogue:
    """A finished dialogue.

    Attributes:
        input_ids: all tokens, as many as ``loss_mask`` has entries.
        loss_mask: True on the tokens to learn: answers, each with its stop token.
    """

    input_ids: list[int]
    loss_mask: list[bool]


class Encoder(Protocol):
    """What models need of an encoder of dialogues; ``alignment.data.dialogue_encoder`` has it.

    Attributes:
        stop_id: the token that is learned at the end of answers.
        stop_ids: every id that ends an answer.
        pad_id: the pad token, or EOS where there is none.
        control_ids: ids that no message can contain.
        control_markers: plain-text marks of the template that no message may contain.
    """

    stop_id: int
    stop_ids: frozenset[int]
    pad_id: int
    control_ids: frozenset[int]
    control_markers: tuple[str, ...]

    @property
    def template_source(self) -> str:
        """The chat template in use."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without control tokens."""

    def encode_answer(self, messages: Sequence[Message], answer: str) -> EncodedAnswer:
        """A prompt and an answer to it, with its stop token."""

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a dialogue that waits for an answer, ending with the generation prompt."""

    def encode_dialogue(
        self, messages: Sequence[Message], *, loss_on: Literal["all_answers", "last_answer"]
    ) -> EncodedDialogue:
        """Token ids of a finished dialogue, and which of them are learned."""


MARKED = "answers with a mark of the chat template"
"""Why a sampled answer was left out where it would have become a record."""


def has_mark(text: str, encoder: Encoder) -> bool:
    """Whether a text holds a plain-text mark of the template, such as ``[INST]``: no record with it could be encoded.

    A model that learned from a template of such marks may write them in its answers.
    """
    return any(marker in text for marker in encoder.control_markers)


ROWS_MARKED = "with a mark of the chat template"
"""Why a row of a file was left out."""
Row = TypeVar("Row", Prompt, Demonstration, Comparison)


def without_marks(rows: Sequence[Row], encoder: Encoder, *, on_error: str) -> tuple[list[Row], dict[str, int]]:
    """The rows that can be encoded, and how many others there were, by reason; none is left out unless asked for.

    Args:
        rows: what a file holds.
        encoder: of the template whose plain-text marks no message may contain.
        on_error: ``skip`` leaves rows with a mark out; else they stay, and encoding them is an error with their id.
    """
    if on_error != "skip" or not encoder.control_markers:
        return list(rows), {}
    kept = [row for row in rows if not any(has_mark(text, encoder) for text in _texts(row))]
    return kept, {ROWS_MARKED: len(rows) - len(kept)} if len(kept) < len(rows) else {}


def _texts(row: Prompt | Demonstration | Comparison) -> Iterator[str]:
    if isinstance(row, Comparison):
        yield from (message.content for message in row.prompt)
        yield from (row.chosen_text, row.rejected_text)
    else:
        yield from (message.content for message in row.messages)


def check_length(n_tokens: int, max_length: int, where: str) -> None:
    """Raise ``UserError`` where ``n_tokens`` do not fit; nothing is ever truncated.

    Args:
        n_tokens: the length in tokens.
        max_length: the greatest length allowed in tokens.
        where: what is too long, as a person would name it (file and line, or id).
    """
    if n_tokens > max_length:
        raise UserError(
            f"{where} is {n_tokens} tokens long, {max_length} fit. Shorten or remove it, or raise the maximum length."
        )


def encode_prompts(
    prompts: Sequence[Prompt],
    encoder: Encoder,
    *,
    max_new_tokens: int,
    context_tokens: int,
    skip_too_long: bool,
) -> tuple[list[EncodedPrompt], int]:
    """Encode prompts that leave room for an answer in the model's context; returns them and how many were too long.

    Args:
        prompts: the dialogues that wait for an answer; their order is kept.
        encoder: turns prompts into token ids.
        max_new_tokens: room that every answer must have, in tokens.
        context_tokens: the model's context, prompt and answer together, in tokens.
        skip_too_long: leave out and count prompts that are too long, instead of raising.

    Raises:
        UserError: one leaves no room and ``skip_too_long`` is off, or none is left.
    """
    encoded = [EncodedPrompt(prompt, _prompt_ids(prompt, encoder)) for prompt in prompts]
    fitting = [item for item in encoded if len(item.token_ids) + max_new_tokens <= context_tokens]
    too_long = [item for item in encoded if len(item.token_ids) + max_new_tokens > context_tokens]
    # Name the first one that is too long, unless they are to be left out.
    if too_long and not skip_too_long:
        item = too_long[0]
        raise UserError(
            f"prompt {item.prompt.id} has {len(item.token_ids)} tokens; with max_new_tokens={max_new_tokens} that is "
            f"more than the model's context of {context_tokens}. Shorten the prompt, lower max_new_tokens, or pass "
            "data.too_long=skip to leave such out and count them."
        )
    # Something has to be left.
    if too_long and not fitting:
        raise UserError(
            f"no prompt is left: all {len(too_long)} are longer than the model's context of {context_tokens} tokens "
            f"less max_new_tokens={max_new_tokens}"
        )
    return fitting, len(too_long)


def _prompt_ids(prompt: Prompt, encoder: Encoder) -> list[int]:
    try:
        return encoder.encode_prompt(prompt.messages)
    except UserError as error:
        raise UserError(f"prompt {prompt.id}: {error}") from error


def encode_dialogues(
    demonstrations: Sequence[Demonstration],
    encoder: Encoder,
    *,
    max_length_tokens: int,
    skip_too_long: bool,
) -> tuple[list[EncodedDialogue], int]:
    """Encode curated dialogues; returns them and how many were too long.

    Args:
        demonstrations: the dialogues; their order is kept.
        encoder: turns dialogues into token ids and loss masks.
        max_length_tokens: the greatest length of a whole dialogue, in tokens.
        skip_too_long: leave out and count dialogues that are too long, instead of raising.

    Raises:
        UserError: one is longer than ``max_length_tokens`` and ``skip_too_long`` is off, or none is left.
    """
    encoded: list[EncodedDialogue] = []
    too_long = 0
    for item in demonstrations:
        # Encode; an error names the dialogue.
        try:
            dialogue = encoder.encode_dialogue(item.messages, loss_on="all_answers")
        except UserError as error:
            raise UserError(f"dialogue {item.id}: {error}") from error
        # Keep what fits; count the rest, or raise.
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


def distinct_answers(dialogues: Sequence[EncodedAnswer]) -> tuple[list[EncodedAnswer], list[int]]:
    """The dialogues without repeats, in the order of their first occurrence, and the place of each dialogue there."""
    first: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    distinct: list[EncodedAnswer] = []
    places: list[int] = []
    for dialogue in dialogues:
        place = first.setdefault((tuple(dialogue.prompt_ids), tuple(dialogue.answer_ids)), len(distinct))
        if place == len(distinct):
            distinct.append(dialogue)
        places.append(place)
    return distinct, places
