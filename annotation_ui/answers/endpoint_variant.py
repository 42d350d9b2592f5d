"""A variant behind HTTP: any server with OpenAI's chat completions, answering as a stream of server-sent events.

Errors say what went wrong for whoever reads the log. The key is in none of them, even where a server repeats it.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import httpx

from alignment.data.records import Message
from alignment.errors import UserError
from annotation_ui import texts
from annotation_ui.answers.variants import Piece, Unanswerable, VariantFailed, sampling_of, variant_name
from annotation_ui.app_settings import VariantSettings
from annotation_ui.store.pairs import VariantInfo
from annotation_ui.store.rows import FinishReason

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0
"""Longest wait for the first and for each further part of an answer."""
MAX_REASON_CHARS = 4096
"""Of what a server says is wrong, as far as it is told."""


class EndpointVariant:
    """A model that a server runs."""

    def __init__(
        self,
        info: VariantInfo,
        *,
        url: str,
        model: str,
        key: str | None = None,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            info: with the sampling settings that are asked for.
            url: base URL, such as ``http://host:8000/v1``.
            model: the server's name for the model.
            key: sent as a bearer token.
            silence_seconds: longest wait for each part of an answer.
        """
        self.info, self._model, self._key = info, model, key
        self._url = f"{url.rstrip('/')}/chat/completions"
        timeout = httpx.Timeout(silence_seconds, connect=CONNECT_SECONDS)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(timeout=timeout, headers=headers)

    @classmethod
    def from_settings(cls, wanted: VariantSettings) -> EndpointVariant:
        """The endpoint that the settings describe.

        Raises:
            UserError: the URL cannot be used, or the key is missing.
        """
        assert wanted.endpoint is not None and wanted.endpoint_model is not None
        url = wanted.endpoint
        _check_url(url, wanted.endpoint_model)
        info = VariantInfo(
            name=variant_name(wanted.endpoint_model, wanted),
            checkpoint=f"{wanted.endpoint_model} at {url}",
            weights_sha256=None,
            chat_template_sha256=None,
            sampling=sampling_of(wanted),
        )
        key = None if wanted.api_key_env is None else _key_from(wanted.api_key_env)
        return cls(info, url=url, model=wanted.endpoint_model, key=key)

    def stream(self, messages: Sequence[Message], *, seed: int) -> Iterator[Piece]:
        """Ask for one answer and yield it as it arrives; whether the seed is heeded is for the server to say."""
        try:
            with self._client.stream("POST", self._url, json=self._question(messages, seed)) as response:
                if response.status_code != httpx.codes.OK:
                    raise self._refusal(response)
                yield from _pieces(_events(response.iter_bytes()))
        except httpx.TimeoutException as error:
            raise VariantFailed(f"{self._url} did not answer in time ({type(error).__name__})") from error
        except httpx.ConnectError as error:
            raise VariantFailed(f"{self._url} cannot be reached ({error}). Is the server running?") from error
        except httpx.HTTPError as error:
            raise VariantFailed(f"{self._url}: the connection broke off ({self._without_key(str(error))})") from error
        except VariantFailed as error:
            reason = self._without_key(str(error))[:MAX_REASON_CHARS]  # in this order: half a key is in no message
            raise VariantFailed(f"{self._url}: {reason}") from None

    def _question(self, messages: Sequence[Message], seed: int) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": [message.model_dump() for message in messages],
            "temperature": self.info.sampling["temperature"],
            "max_tokens": self.info.sampling["max_new_tokens"],
            "seed": seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def _refusal(self, response: httpx.Response) -> Exception:
        """What a status other than 200 means."""
        start = b""
        for block in response.iter_bytes():
            start += block
            if len(start) >= 2 * MAX_REASON_CHARS:  # more than is told, lest it ends within a key
                break
        reason = self._without_key(start.decode(errors="replace")).strip()[:MAX_REASON_CHARS]
        if response.status_code in (400, 413, 422) and "context" in reason and "length" in reason:
            return Unanswerable(texts.CONVERSATION_TOO_LONG)
        return VariantFailed(f"status {response.status_code} {response.reason_phrase}: {reason or 'no reason given'}")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "(key)") if self._key else text


def _check_url(url: str, model: str) -> None:
    """Raise ``UserError`` unless the URL is one of a server and holds no secret, since it is stored and logged."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UserError(f"variants: the endpoint of {model} has no valid URL ({error})") from error
    if parts.userinfo or parts.query or parts.fragment:
        raise UserError(
            f"variants: the endpoint of {model} must be a URL without user, password and query. "
            "A key belongs into an environment variable that api_key_env names."
        )
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UserError(f"variants: the endpoint of {model} must be a URL such as http://host:8000/v1")


def _key_from(name: str) -> str:
    """The key in an environment variable; what is wrong with it is said without showing it."""
    key = os.environ.get(name, "").strip()
    if not key:
        raise UserError(f"variants: api_key_env={name}, but the environment variable {name} is not set")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"variants: the key in {name} has characters that no key has")
    return key


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


def _events(blocks: Iterable[bytes]) -> Iterator[str]:
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


def _pieces(events: Iterable[str]) -> Iterator[Piece]:
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
