"""A tokenizer with two ways in: one for what the chat template writes, one for what people say.

The first recognises control tokens; the second takes every one of them for plain text.
``split_special_tokens=True`` alone would not do: it spares only tokens flagged as special, while many models
add control tokens without the flag (``<tool_call>``, ``<think>``). Checked by experiment with tokenizers 0.23
and transformers 5.23.

``find_markers`` finds marks of a template that are no tokens, such as ``[INST]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from alignment.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BRACKETED = re.compile(r"<.+>|\[.+\]", re.DOTALL)


class TwoWayTokenizer:
    """Encodes template text and plain text apart; later changes of the tokenizer are not seen by the latter.

    Attributes:
        control_ids: ids that steer the model.
        control_pattern: matches each control token in text; never the empty string.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, template: str) -> None:
        """Find the control tokens and make the copy that knows none.

        Args:
            tokenizer: a fast tokenizer.
            template: source of the chat template; added tokens that it mentions are control tokens.

        Raises:
            UserError: the tokenizer is not a fast one.
        """
        if not tokenizer.is_fast:
            raise UserError(
                f"{type(tokenizer).__name__} is not a fast tokenizer, so control tokens cannot be told from "
                "text. Convert it to the tokenizers library's format (tokenizer.json)."
            )
        self._tokenizer: Any = tokenizer
        controls = find_control_tokens(tokenizer, template)
        self.control_ids = frozenset(controls.values())
        longest_first = sorted(controls, key=len, reverse=True)
        self.control_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._plain = _plain_text_copy(tokenizer, set(controls))
        bare = self.plain_ids("a")
        self._adds_space_at_start = self.template_ids("a") != bare
        self._adds_space_after_control = any(
            self.template_ids(control + "a")[1:] != bare for control in longest_first[:1]
        )

    def template_ids(self, text: str) -> list[int]:
        """Encode template text that starts a dialogue or starts with a control token."""
        encoded = self._tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=False,
            padding=False,
            verbose=False,
        )
        return list(encoded["input_ids"])

    def plain_ids(self, text: str) -> list[int]:
        """Encode text as it stands in the middle of a line, no control token recognised."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def literal_ids(self, text: str, *, at_start: bool) -> list[int]:
        """Encode template text that starts a dialogue or follows a message."""
        if at_start:
            return self.template_ids(text)
        match = self.control_pattern.search(text)
        border = match.start() if match else len(text)
        return self.plain_ids(text[:border]) + (self.template_ids(text[border:]) if match else [])

    def split_lead(self, text: str, *, at_start: bool) -> tuple[str, str]:
        """Part template text from the spaces that belong to the message after it.

        These are the spaces at its end, or one that the tokenizer itself would put before the message.
        """
        kept = text.rstrip(" ")
        lead = text[len(kept) :]
        if not lead:
            ends_with_control = any(match.end() == len(kept) for match in self.control_pattern.finditer(kept))
            if ends_with_control and self._adds_space_after_control:
                lead = " "
            elif at_start and not kept and self._adds_space_at_start:
                lead = " "
        return kept, lead

    def decode(self, ids: Sequence[int], *, skip_control: bool) -> str:
        """The exact text of ``ids``; what ``plain_ids`` encoded comes back with its leading spaces."""
        kept = [int(i) for i in ids]  # a tensor's entries would never be found in a set
        if skip_control:
            kept = [i for i in kept if i not in self.control_ids]
        return str(self._plain.decode(kept, skip_special_tokens=False))


def find_control_tokens(tokenizer: PreTrainedTokenizerBase, template: str) -> dict[str, int]:
    """Text -> id of the added tokens that steer a model: special, written by the template, or in brackets.

    Other added tokens (words, runs of white space) are vocabulary like any other. So is the unknown token,
    unless it doubles as another one: text in an alphabet that the tokenizer lacks is no forgery.
    """
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if name != "unk_token"}
    controls: dict[str, int] = {}
    for token_id, token in tokenizer.added_tokens_decoder.items():
        text = token.content
        if text == tokenizer.unk_token and text not in named.values():
            continue
        if token.special or _BRACKETED.fullmatch(text.strip()) or (text in template and not text.isspace()):
            controls[text] = token_id
    for text, token_id in zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True):
        if text != tokenizer.unk_token or text in named.values():
            controls[text] = token_id
    return controls


def _plain_text_copy(tokenizer: Any, controls: set[str]) -> Tokenizer:
    """A copy that recognises no control token and puts no space before the first word."""
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in spec["added_tokens"]:
        token["special"] = token["special"] or token["content"] in controls
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        spec[part] = _without_added_space(spec[part], decoder=part == "decoder")
    spec["truncation"] = spec["padding"] = spec["post_processor"] = None
    plain: Tokenizer = Tokenizer.from_str(json.dumps(spec))
    plain.encode_special_tokens = True
    return plain


def _without_added_space(part: dict[str, Any] | None, *, decoder: bool) -> dict[str, Any] | None:
    """A component's description without the step that adds (or, decoding, takes away) a leading space."""
    if part is None or part["type"] == "Prepend" or (decoder and part["type"] == "Strip"):
        return None
    if part["type"] == "Sequence":
        key = next(name for name in part if name != "type")
        steps = [_without_added_space(step, decoder=decoder) for step in part[key]]
        return {**part, key: [step for step in steps if step is not None]}
    if part["type"] == "ByteLevel":
        return {**part, "add_prefix_space": False}
    return {**part, "prepend_scheme": "never"} if part["type"] == "Metaspace" else part


_MARKER_PATTERN = re.compile(
    r"<\|[^<>|\s]+\|>"  # <|user|>
    r"|<</?[^<>\s]+>>"  # <<SYS>>
    r"|</?[A-Za-z_][\w.-]*>"  # <start_of_turn>
    r"|\[/?[A-Z][A-Z_]*\]"  # [INST]
    r"|#{2,} ?[A-Z][\w ]*:"  # ### Instruction:
)


def find_markers(text: str) -> set[str]:
    """Bracket-like tokens of a template's text: ``[INST]``, ``<<SYS>>``, ``<|user|>``, ``### Response:``.

    Plain words that a template also writes ("user", "Question:", "ASSISTANT:") are left out on purpose:
    refusing them would make ordinary English unusable. A template that marks turns by such words only cannot
    tell a turn from a quoted one; choose a template with special tokens where that matters.
    """
    return set(_MARKER_PATTERN.findall(text))
