"""Who answers: variants, each a policy of a run, a model of one's own, or an HTTP endpoint (``endpoint_variant``).

``load_variants`` makes those that the settings name. Variants on one backbone have it draw their tokens in turn, one
thread for all of them: answers that are written at the same time grow at the same pace, and none waits for another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from alignment.data.records import Message
from alignment.errors import UserError
from annotation_ui import texts
from annotation_ui.app_settings import VariantSettings
from annotation_ui.store.pairs import VariantInfo
from annotation_ui.store.rows import FinishReason

if TYPE_CHECKING:
    from alignment.models.backbone import Backbone


@dataclass(frozen=True)
class Piece:
    """An answer so far; the last piece of an answer has a ``finish_reason``.

    Attributes:
        text: all of it, not only what is new.
        finish_reason: ``length``: the limit cut it off; ``None`` while it goes on.
        n_tokens: its tokens, the stop token included; ``None`` where nobody counted.
    """

    text: str
    finish_reason: FinishReason | None = None
    n_tokens: int | None = None


class Unanswerable(Exception):
    """A conversation that no try will get an answer to; the text is for the annotator and says what to do."""


class VariantFailed(Exception):
    """A variant did not answer; the text is for the log and must not reach the annotator."""


class Variant(Protocol):
    """Answers conversations, several at a time, each from a thread of its own."""

    @property
    def info(self) -> VariantInfo:
        """What is kept with every answer."""

    def stream(self, messages: Sequence[Message], *, seed: int) -> Iterator[Piece]:
        """Draw one answer; the same seed draws the same one, as far as the variant can promise it.

        Raises:
            Unanswerable: the conversation is too long, or cannot be read by the model.
            VariantFailed: there is no answer; says why.
        """


class LocalVariant:
    """A model in this process: a role of a backbone at a temperature."""

    def __init__(self, info: VariantInfo, backbone: Backbone, role: str | None, turns: ThreadPoolExecutor) -> None:
        """Join those that draw from a backbone.

        Args:
            info: with the sampling settings that are used.
            backbone: may be shared with other variants.
            role: adapter on it, ``None`` for the bare base.
            turns: the one thread that uses this backbone; its queue is what makes streams take turns.
        """
        self.info, self.backbone, self.role, self._turns = info, backbone, role, turns

    def stream(self, messages: Sequence[Message], *, seed: int) -> Iterator[Piece]:
        """Draw one answer, each token when its turn comes."""
        from alignment.models.sampling.streaming import stream_answer
        from alignment.settings.sections import SamplingSection

        sampling = SamplingSection.model_validate(self.info.sampling)
        answer = stream_answer(self.backbone, self.role, messages, sampling, seed=seed)
        try:
            while (drawn := self._turns.submit(next, answer, None).result()) is not None:
                yield Piece(drawn.text, drawn.finish_reason, drawn.n_tokens)
        except UserError as error:
            raise Unanswerable(texts.CONVERSATION_UNREADABLE) from error


def variant_name(model: str, wanted: VariantSettings) -> str:
    """What tells variants apart in reports: the model and its temperature, as simulated annotators write it too."""
    return f"{model}@{wanted.temperature}"


def sampling_of(wanted: VariantSettings) -> dict[str, float | int]:
    """How a variant's answers are drawn."""
    return {"temperature": wanted.temperature, "max_new_tokens": wanted.max_new_tokens}
