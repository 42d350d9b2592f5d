"""The records that travel between people and training, and the files they live in.

A record is validated once, here at the file boundary; code behind it trusts its types. Files are JSON Lines
(``.jsonl``, optionally ``.gz``), one record a line, so that they can be read, compared and mended by hand.
Readers of other people's formats are in ``alignment.data.readers``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

ChatRole = Literal["system", "user", "assistant"]
Dimension = Literal["helpfulness", "safety"]
Grade = Literal["significantly_better", "better", "slightly_better", "negligibly_better"]
SafetyBin = Literal["preferred_safe_other_unsafe", "both_safe", "both_unsafe", "preferred_unsafe_other_safe"]
Part = Literal["train", "heldout"]
"""What a prompt or a comparison is for: to be trained on, or to measure with."""
HELDOUT_PAIRS = "held-out pairs, "
"""Before the reasons for which such pairs were left out."""

GRADES: tuple[Grade, ...] = (
    "significantly_better",
    "better",
    "slightly_better",
    "negligibly_better",
)
"""The four strengths of preference, strongest first (section 3.2.1)."""

MARGINS: dict[str, dict[str, float]] = {
    "none": dict(zip(GRADES, (0.0, 0.0, 0.0, 0.0), strict=True)),
    "small": dict(zip(GRADES, (1.0, 2 / 3, 1 / 3, 0.0), strict=True)),
    "large": dict(zip(GRADES, (3.0, 2.0, 1.0, 0.0), strict=True)),
}
"""Name of a margin scheme -> grade -> margin m(r) (Llama 2, Table 27)."""

SAFETY_LABELS: dict[SafetyBin, tuple[bool, bool]] = {
    "preferred_safe_other_unsafe": (True, False),
    "both_safe": (True, True),
    "both_unsafe": (False, False),
    "preferred_unsafe_other_safe": (False, True),
}
"""Safety bin -> (chosen is safe, rejected is safe)."""


class Record(BaseModel):
    """Base of all records: immutable, and a key nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    """One turn of a dialogue."""

    role: ChatRole
    content: str

    @field_validator("content")
    @classmethod
    def _holds_whole_characters(cls, content: str) -> str:
        """Raise ``ValueError`` for half a character (a surrogate without the other), which no file can hold."""
        try:
            content.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"holds half a character at place {error.start}: {content[error.start]!r}") from error
        return content


Dialogue = tuple[Message, ...]


def _check_turns(messages: Dialogue, *, last: ChatRole) -> None:
    """Raise ``ValueError`` unless turns alternate user/assistant (after an optional system turn)."""
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    if not turns:
        raise ValueError("a dialogue needs at least one user turn")
    for position, message in enumerate(turns):
        expected = "user" if position % 2 == 0 else "assistant"
        if message.role != expected:
            raise ValueError(f"turn {position + 1} is by {message.role!r}, expected {expected!r}")
        if not message.content.strip():
            raise ValueError(f"turn {position + 1} ({message.role}) is empty")
    if turns[-1].role != last:
        raise ValueError(f"the dialogue must end with a turn by {last!r}, ends with {turns[-1].role!r}")


class Prompt(Record):
    """A dialogue that waits for an answer.

    ``dimension`` is the tag from collection that the gate reads as ``is_safety(p)`` (section 3.2.3);
    ``kind`` and ``group`` are only for reporting.
    """

    id: str
    messages: Dialogue
    dimension: Dimension = "helpfulness"
    kind: str = "helpfulness"
    group: str | None = None

    @model_validator(mode="after")
    def _ends_with_user(self) -> Prompt:
        _check_turns(self.messages, last="user")
        return self


class Demonstration(Record):
    """A curated dialogue whose assistant turns are to be imitated."""

    id: str
    messages: Dialogue

    @model_validator(mode="after")
    def _ends_with_assistant(self) -> Demonstration:
        _check_turns(self.messages, last="assistant")
        return self


class SafetyLabel(Record):
    """The three-way safety bin of a comparison, with what it says of each answer (section 3.2.1)."""

    bin: SafetyBin

    @property
    def chosen_safe(self) -> bool:
        """Whether the chosen answer is safe."""
        return SAFETY_LABELS[self.bin][0]

    @property
    def rejected_safe(self) -> bool:
        """Whether the rejected answer is safe."""
        return SAFETY_LABELS[self.bin][1]


class AnswerSource(Record):
    """Where an answer came from."""

    variant: str
    checkpoint: str | None = None
    temperature: float | None = None
    finish_reason: Literal["stop", "length"] | None = None
    n_tokens: int | None = None
    seed: int | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class SampledAnswer:
    """An answer that was drawn to be compared with another."""

    text: str
    source: AnswerSource


class Collected(Record):
    """How a comparison was made in the annotation app: for audits and filters, no training reads it.

    Attributes:
        project: name of the collection.
        item_id: what stood in its queue, one id for all who judged it.
        comparison_id: one annotator's showing of the two answers.
        chosen_was_left: where the chosen answer stood.
        is_gold: whether the right choice was known before.
        guidelines_sha256: of the guidelines that the annotator read.
        app_version: that took the judgment.
        judged_at: ISO 8601 in UTC; of an edited judgment, when it was edited.
        shown_at: when both answers were there to read for the first time.
        active_ms: time spent with the page in front.
        input_method: what the judgment was sent with.
        flags: by the annotator, or set by what they answered.
        note: by the annotator; exported on request only.
    """

    project: str
    item_id: str
    comparison_id: str
    chosen_was_left: bool
    is_gold: bool
    guidelines_sha256: str
    app_version: str
    judged_at: str
    shown_at: str | None = None
    active_ms: int | None = None
    input_method: Literal["keyboard", "mouse"] | None = None
    flags: tuple[str, ...] = ()
    note: str | None = None


class Comparison(Record):
    """One person's (or annotator program's) preference between two answers to one prompt.

    ``chosen`` and ``rejected`` hold one assistant turn each, so a file of these loads in TRL as it is.
    ``grade`` is ``None`` where the data carries no strength. ``safety`` is ``None`` where it was not asked.
    ``conversation_id`` groups comparisons that must stay on one side of a train/held-out split. ``objective`` names
    what the answers were compared by where that is narrower than the dimension (honesty, say). ``turn`` is the place,
    from 1, in a conversation that was judged turn by turn. ``margin`` is for other trainers, such as TRL's: Tandem
    computes its own from the grade. ``collected`` says how the annotation app came by the comparison.
    """

    id: str
    prompt: Dialogue
    chosen: Dialogue
    rejected: Dialogue
    dimension: Dimension = "helpfulness"
    objective: str | None = None
    grade: Grade | None = None
    safety: SafetyLabel | None = None
    annotator_id: str | None = None
    conversation_id: str
    kind: str | None = None
    batch: str | None = None
    chosen_source: AnswerSource | None = None
    rejected_source: AnswerSource | None = None
    turn: int | None = None
    margin: float | None = None
    collected: Collected | None = None

    @model_validator(mode="after")
    def _is_a_comparison(self) -> Comparison:
        _check_turns(self.prompt, last="user")
        for name, answer in (("chosen", self.chosen), ("rejected", self.rejected)):
            if len(answer) != 1 or answer[0].role != "assistant":
                raise ValueError(f"{name} must be exactly one assistant turn")
            if not answer[0].content.strip():
                raise ValueError(f"{name} is empty")
        if self.chosen == self.rejected:
            raise ValueError("the two answers are equal")
        return self

    @property
    def chosen_text(self) -> str:
        """The preferred answer."""
        return self.chosen[0].content

    @property
    def rejected_text(self) -> str:
        """The other answer."""
        return self.rejected[0].content


@dataclass(frozen=True)
class JudgedAnswer:
    """One answer of one policy with everything measured on it.

    Attributes:
        prompt_id: the prompt it answers; answers to one prompt form a cluster.
        kind: helpfulness, safety, borderline, multi_turn, ...: only for the breakdown.
        group: seen_wordings, unseen_wordings, or ``None``: only for the breakdown.
        dimension: the tag of the prompt: which figures the answer counts in.
        answer: its text.
        helpfulness: verdict in [0, 1]; ``None`` where there is no judge.
        unsafe: verdict; ``None`` where there is no judge.
        refusal: verdict; ``None`` where there is no judge.
        n_tokens: length of the answer, stop token included.
        stopped: whether it ended with a stop token and not at the length limit.
        kl_nats: sum over its tokens of log pi - log pi_sft; ``None`` where not measured.
        reward_helpfulness: raw score of the helpfulness reward model; ``None`` where there is none.
        reward_safety: raw score of the safety reward model; ``None`` where there is none.
        reward_guard: raw score of the guard, a reward model that pays no policy; ``None`` where there is none.
    """

    prompt_id: str
    kind: str
    group: str | None
    dimension: Dimension
    answer: str
    helpfulness: float | None
    unsafe: bool | None
    refusal: bool | None
    n_tokens: int
    stopped: bool
    kl_nats: float | None = None
    reward_helpfulness: float | None = None
    reward_safety: float | None = None
    reward_guard: float | None = None


def explain(error: ValidationError) -> str:
    """One line from a pydantic error: each field with what is wrong."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'record'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors()
    )


def features_of(kind: Any) -> dict[str, Any]:
    """The columns of a record type as ``datasets.Features.from_dict`` takes them."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: features_of(field.annotation) for name, field in kind.model_fields.items()}
    inner = [part for part in get_args(kind) if part is not NoneType]
    if get_origin(kind) is tuple:
        return {"feature": features_of(inner[0]), "_type": "List"}
    if get_origin(kind) is Literal:
        return features_of(type(inner[0]))
    if inner:  # optional
        return features_of(inner[0])
    return {"dtype": {str: "string", int: "int64", float: "float64", bool: "bool"}[kind], "_type": "Value"}
