"""A key that a server repeats is in no message, not even half of it where a long message is cut."""

from __future__ import annotations

import httpx
import pytest

from alignment.data.records import Message
from annotation_ui.answers.endpoint_variant import MAX_REASON_CHARS, EndpointVariant
from annotation_ui.answers.variants import VariantFailed
from annotation_ui.store.pairs import VariantInfo

KEY = "sk-0123456789abcdef0123456789abcdef"
ASK = [Message(role="user", content="what is it")]


def said_by(status: int, body: bytes) -> str:
    """How asking a server fails that answers with this."""
    info = VariantInfo("big@0.7", "", None, None, {"temperature": 0.7, "max_new_tokens": 9})
    variant = EndpointVariant(info, url="http://host/v1", model="big", key=KEY)
    answer = httpx.MockTransport(lambda request: httpx.Response(status, content=body))
    variant._client = httpx.Client(transport=answer)
    with pytest.raises(VariantFailed) as caught:
        list(variant.stream(ASK, seed=0))
    return str(caught.value)


@pytest.mark.parametrize("before", [*range(250, 301, 10), *range(MAX_REASON_CHARS - 80, MAX_REASON_CHARS + 1, 8)])
@pytest.mark.parametrize(
    ("status", "form"),
    [
        (401, "{}"),
        (200, 'data: {{"error": "{}"}}\n\n'),
        (200, 'data: {{"choices": [{{"delta": {{"content": 3}}}}], "note": "{}"}}\n\n'),
    ],
    ids=["refused", "error in mid-answer", "no chat completion"],
)
def test_half_a_key_is_in_no_message(status: int, form: str, before: int) -> None:
    said = said_by(status, form.format("x" * before + KEY + "y" * 9000).encode())
    assert KEY[:6] not in said
    assert len(said) < MAX_REASON_CHARS + 100
