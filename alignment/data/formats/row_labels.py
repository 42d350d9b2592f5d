"""What a row says beside its turns: grade, safety, dimension, scores, and what stands before the prompt.

These keys mean the same in every format. A label is used, or the row is refused: never dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast, get_args

from alignment.data.records import SAFETY_LABELS, ChatRole, Dialogue, Dimension, Grade, Message, SafetyLabel

Row = Mapping[str, Any]

PROMPT_LABELS = ("dimension", "tag", "system", "history", "context")
DEMONSTRATION_LABELS = ("label", "system", "history", "context")
COMPARISON_LABELS = ("grade", "safety", "margin", "score_chosen", "score_rejected", "label", *PROMPT_LABELS)
"""Keys that decide what a record is to teach, by kind of record; which ``score_`` keys there may be, nobody knows."""

GRADE_OF_DIFFERENCE: tuple[tuple[float, Grade], ...] = (
    (3.0, "significantly_better"),
    (2.0, "better"),
    (1.0, "slightly_better"),
)
"""A margin, or difference of scores, of at least the number has the grade; below all of them it is negligibly better.

The numbers are the large margins of Llama 2, Table 27.
"""


class NoPreference(Exception):
    """A sound row that has nothing to learn from; its text is the reason that the report counts."""


class MeaninglessLabel(ValueError):
    """A row with a label whose value no table gives a meaning; ``key`` names it."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def is_label(key: str, labels: tuple[str, ...]) -> bool:
    """Whether a key is one of these labels; a score of any name is one where scores are."""
    return key in labels or (key.startswith("score_") and "score_chosen" in labels)


class WatchedRow(Mapping[str, Any]):
    """A row that remembers which of its keys were read."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return self._row[key]

    def __contains__(self, key: object) -> bool:
        return key in self._row  # to ask is not to read

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    @property
    def unread(self) -> list[str]:
        """Keys with something in them that nobody has read; those of turns as ``messages[].name``."""
        there = {key: value for key, value in self._row.items() if value not in EMPTY}
        whole = [key for key in there if key not in self.read]
        turns = [(key, turn) for key in there if key in self.read for turn in _turns(there[key])]
        parts = [
            f"{key}[].{part}"
            for key, turn in turns
            for part in turn.keys() - PARTS_OF_A_TURN
            if turn[part] not in EMPTY
        ]
        return whole + sorted(set(parts))


EMPTY: tuple[object, ...] = (None, "", [], {})
PARTS_OF_A_TURN = {"role", "content", "from", "value", "weight"}
"""Keys of a turn that readers know."""


def _turns(value: object) -> list[Mapping[str, Any]]:
    """The turns of a dialogue that is a list of objects; none of anything else."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def dimension_of(row: Row, default: Dimension) -> Dimension:
    """What a row says it is about, in ``dimension`` or ``tag``; else what the whole file is about."""
    found = {key: value for key in ("dimension", "tag") if (value := row.get(key)) is not None}
    for key, value in found.items():
        if value not in get_args(Dimension):
            raise MeaninglessLabel(key, f"{key!r} must be one of {', '.join(get_args(Dimension))}, is {value!r}")
    if len(set(found.values())) > 1:
        raise MeaninglessLabel("tag", f"'dimension' is {found['dimension']!r} and 'tag' is {found['tag']!r}")
    return cast(Dimension, next(iter(found.values()), default))


def grade_of(row: Row) -> Grade | None:
    """How much better the preferred answer is: by ``grade``, by the two scores, or by ``margin``.

    Raises:
        MeaninglessLabel: one of them is no grade or number.
        NoPreference: the scores are equal, or say that the other answer is better.
    """
    value = row.get("grade")
    difference = _difference(row)
    if value is not None:
        if value not in get_args(Grade):
            raise MeaninglessLabel("grade", f"'grade' must be one of {', '.join(get_args(Grade))}, is {value!r}")
        return cast(Grade, value)
    if difference is None:
        return None
    return next((grade for least, grade in GRADE_OF_DIFFERENCE if difference >= least), "negligibly_better")


def _difference(row: Row) -> float | None:
    """By how much the preferred answer is better, in numbers; ``None`` where the row has none."""
    margin, chosen, rejected = (_number(row, key) for key in ("margin", "score_chosen", "score_rejected"))
    if chosen is not None and rejected is not None:
        if chosen <= rejected:
            why = "the other answer has the higher score" if chosen < rejected else "equal scores"
            raise NoPreference(f"without a preference ({why})")
        return chosen - rejected
    for key, value in (("score_chosen", chosen), ("score_rejected", rejected)):
        if value is not None:
            raise MeaninglessLabel(key, f"{key!r} says nothing without the other answer's score")
    if margin is not None and margin < 0:
        raise NoPreference("without a preference (negative margin)")
    return margin


def _number(row: Row, key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise MeaninglessLabel(key, f"{key!r} must be a number, is {value!r}")
    return float(value)


def safety_of(row: Row) -> SafetyLabel | None:
    """The safety bin of a pair: by its name, or as ``{"bin": name}``."""
    value = row.get("safety")
    if value is None:
        return None
    name = value.get("bin") if isinstance(value, Mapping) else value
    if not isinstance(name, str) or name not in SAFETY_LABELS:
        raise MeaninglessLabel("safety", f"'safety' must be one of {', '.join(SAFETY_LABELS)}, is {value!r}")
    return SafetyLabel(bin=name)


def check_is_to_be_imitated(row: Row) -> None:
    """Raise ``NoPreference`` where ``label`` says that an answer is a bad one, as in rows for KTO."""
    value = row.get("label")
    if value is None:
        return
    if not isinstance(value, bool) and value not in (0, 1):
        raise MeaninglessLabel("label", f"'label' must be true or false, is {value!r}")
    if not value:
        raise NoPreference("label is false")


def in_context(row: Row, dialogue: Dialogue) -> Dialogue:
    """A dialogue with what the row has around it.

    ``system`` is its system turn; ``history`` are earlier turns, in pairs of texts; ``context`` is a text that belongs
    below the first question, or earlier turns.
    """
    earlier = [*_history(row.get("history")), *_context_turns(row.get("context"))]
    if isinstance(text := row.get("context"), str) and text.strip():
        place = 1 if dialogue and dialogue[0].role == "system" else 0
        if len(dialogue) <= place:
            raise ValueError("'context' is a text that belongs to a question, and there is none")
        asked = dialogue[place].model_copy(update={"content": f"{dialogue[place].content}\n\n{text}"})
        dialogue = (*dialogue[:place], asked, *dialogue[place + 1 :])
    if (system := row.get("system")) is not None:
        if not isinstance(system, str):
            raise MeaninglessLabel("system", f"'system' must be a text, is {type(system).__name__}")
        if system.strip():
            earlier.insert(0, Message(role="system", content=system))
    if earlier and dialogue and dialogue[0].role == "system":
        raise ValueError("the dialogue begins with a system turn, and something is to stand before it")
    return (*earlier, *dialogue)


def _history(value: object) -> list[Message]:
    """Earlier turns from pairs of a question and its answer."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in value
    ):
        raise MeaninglessLabel("history", "'history' must be a list of pairs of texts, a question and its answer")
    roles: tuple[ChatRole, ChatRole] = ("user", "assistant")
    return [Message(role=role, content=text) for pair in value for role, text in zip(roles, pair, strict=True)]


def _context_turns(value: object) -> list[Message]:
    """Earlier turns from a list of messages."""
    if value is None or isinstance(value, str):
        return []
    problem = "'context' must be a text or a list of messages"
    if not isinstance(value, list):
        raise MeaninglessLabel("context", f"{problem}, is {type(value).__name__}")
    try:
        return [Message.model_validate(item) for item in value]
    except ValueError as error:
        raise MeaninglessLabel("context", problem) from error


def check_is_one_text(text: str, key: str) -> None:
    """Raise ``ValueError`` where a text is a list of texts written as JSON, as the Chatbot Arena has its turns."""
    if not text.lstrip().startswith('["'):
        return
    try:
        turns = json.loads(text)
    except ValueError:
        return
    if isinstance(turns, list) and all(isinstance(turn, str) for turn in turns):
        raise ValueError(f"{key!r} is a JSON list of {len(turns)} texts, written as one text")
