"""The records that travel between people and training, and the files they live in.

A record is validated once, here at the file boundary; code behind it trusts its types. Files are JSON Lines
(``.jsonl``, optionally ``.gz``), one record a line, so that they can be read, compared and mended by hand.
Readers of other people's formats are in ``alignment.data.sources``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from alignment.errors import UserError

Role = Literal["system", "user", "assistant"]
Dimension = Literal["helpfulness", "safety"]
Grade = Literal["significantly_better", "better", "slightly_better", "negligibly_better"]
SafetyBin = Literal["preferred_safe_other_unsafe", "both_safe", "both_unsafe", "preferred_unsafe_other_safe"]
OnError = Literal["raise", "skip"]

GRADES: tuple[Grade, ...] = (
    "significantly_better",
    "better",
    "slightly_better",
    "negligibly_better",
)
"""The four strengths of preference, strongest first (section 3.2.1)."""

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

    role: Role
    content: str


Dialogue = tuple[Message, ...]


def _check_turns(messages: Dialogue, *, last: Role) -> None:
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


R = TypeVar("R", bound=BaseModel)


@dataclass
class ReadReport:
    """What reading a file left out, and why; ``examples`` holds the first few lines of each reason."""

    path: str
    read: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, where: str) -> None:
        """Count one left-out record under ``reason``; remember where the first one stood."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        self.examples.setdefault(reason, where)

    @property
    def n_skipped(self) -> int:
        """Number of records left out."""
        return sum(self.skipped.values())

    def summary(self) -> str:
        """One line for people: how many were read and what was left out."""
        parts = [f"{count} {reason} (first: {self.examples[reason]})" for reason, count in self.skipped.items()]
        left_out = f"; left out: {', '.join(parts)}" if parts else ""
        return f"{self.path}: {self.read} records{left_out}"


def open_text(path: Path) -> Any:
    """Open a text file, unzipping ``.gz``; raise ``UserError`` where there is none."""
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


def iter_json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) of each non-empty line; raise ``UserError`` where the file cannot be read."""
    try:
        with open_text(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except (EOFError, zlib.error, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def explain(error: ValidationError) -> str:
    """One line from a pydantic error: each field with what is wrong."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'record'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors()
    )


def read_jsonl(
    path: str | os.PathLike[str], record_type: type[R], *, on_error: OnError = "raise"
) -> tuple[list[R], ReadReport]:
    """Read and validate one record a line.

    Raises:
        UserError: the file is missing or holds no record, or a line is malformed and ``on_error="raise"``;
            names file and line.
    """
    file = Path(path)
    report = ReadReport(path=str(path))
    records: list[R] = []
    for number, line in iter_json_lines(file):
        try:
            records.append(record_type.model_validate(json.loads(line)))
        except (json.JSONDecodeError, ValidationError) as error:
            reason = explain(error) if isinstance(error, ValidationError) else f"not JSON ({error})"
            if on_error == "raise":
                raise UserError(
                    f"{path}, line {number}: {reason}. Mend the line, or pass data.on_error=skip."
                ) from error
            report.skip("malformed", f"line {number}: {reason}")
    report.read = len(records)
    if not records:
        raise UserError(f"{path}: no usable {record_type.__name__.lower()} in this file ({report.summary()})")
    return records, report


def write_jsonl(path: str | os.PathLike[str], records: Iterable[BaseModel | dict[str, Any]]) -> None:
    """Write one record a line, atomically: the file is whole or not there."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as lines:
        for record in records:
            row = record.model_dump(mode="json", exclude_none=True) if isinstance(record, BaseModel) else record
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        lines.flush()
        os.fsync(lines.fileno())
    os.replace(temporary, file)


def dialogue_key(messages: Sequence[Message]) -> str:
    """A short hash of what a dialogue says: equal for dialogues that differ only in case and white space."""
    text = "\n".join(f"{message.role}: {' '.join(message.content.lower().split())}" for message in messages)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_no_overlap(
    train: Iterable[Sequence[Message]],
    heldout: Iterable[Sequence[Message]],
    *,
    train_name: str,
    heldout_name: str,
) -> None:
    """Raise ``UserError`` if a prompt of ``heldout`` is also in ``train``."""
    seen = {dialogue_key(messages) for messages in train}
    shared = [messages for messages in heldout if dialogue_key(messages) in seen]
    if shared:
        raise UserError(
            f"{len(shared)} prompts of {heldout_name} are also in {train_name}, the first: "
            f"{shared[0][-1].content[:80]!r}. Held-out figures would be worthless: remove them from one of the two."
        )
