"""Pieces of an answer from a stream of server-sent events, as OpenAI's chat completions send them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from annotation_ui.answers.variants import Piece, VariantFailed
from annotation_ui.store.rows import FinishReason

FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
}
"""What servers write -> what is stored. An answer that a filter held back or a tool call is none of them."""
HALF_A_CHARACTER = "\ufffd"
"""What half of a character decodes to."""


def read_events(blocks: Iterable[bytes]) -> Iterator[str]:
    """The data of each server-sent event, up to ``[DONE]``.

    Lines are split as bytes: text may contain other line separators of Unicode, and a block may end anywhere.
    """
    rest = b""
    for block in itertools.chain(blocks, [b"\n"]):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            name, _, value = line.strip(b"\r").partition(b":")
            data = value.removeprefix(b" ").decode(errors="replace")
            if name == b"data" and data == "[DONE]":
                return
            if name == b"data":
                yield data


def read_pieces(events: Iterable[str]) -> Iterator[Piece]:
    """What the answer is after each event; the last piece comes when all have been read, as counts come last."""
    text, n_tokens, reason = "", None, None
    for data in events:
        new, ended, counted = _read(data)
        reason = ended or reason
        n_tokens = n_tokens if counted is None else counted
        text += new
        if new:
            yield Piece(_whole_characters(text))
    if reason is None:
        raise VariantFailed("the stream ended before the answer did")
    if reason not in FINISH_REASONS:
        raise VariantFailed(f"the answer ended with finish_reason={reason!r}, so it is not one to compare")
    yield Piece(_whole_characters(text), FINISH_REASONS[reason], n_tokens)


def _read(data: str) -> tuple[str, str | None, int | None]:
    """New text, finish reason and number of tokens in an event, each where there is one."""
    try:
        chunk = json.loads(data)
        if chunk.get("error"):
            raise VariantFailed(f"error in mid-answer: {json.dumps(chunk['error'])}")
        usage = chunk.get("usage") or {}
        choices = chunk.get("choices") or [{}]
        new = (choices[0].get("delta") or {}).get("content") or ""
        reason, counted = choices[0].get("finish_reason"), usage.get("completion_tokens")
        if not (isinstance(new, str) and isinstance(reason, str | None) and isinstance(counted, int | None)):
            raise TypeError
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise VariantFailed(f"the stream holds something that is no chat completion: {data!r}") from error
    return new, reason, counted


def _whole_characters(text: str) -> str:
    """Join the halves of characters that JSON writes as two escapes, and leave out a last one without its other half.

    The other half may come with the next event.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").rstrip(HALF_A_CHARACTER)
