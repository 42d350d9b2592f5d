r"""What one row of other people's files says: one reader a format, and how a format is recognised.

| name          | row                                                                                    |
|---------------|----------------------------------------------------------------------------------------|
| `tandem`      | this project's own records                                                             |
| `hh`          | raw transcripts `chosen`, `rejected`; turns open with `\n\nHuman:`, `\n\nAssistant:`     |
| `alpaca`      | `instruction`, `input`, and `output`, or `chosen` and `rejected`                       |
| `alpaca_eval` | `instruction`, `output_1`, `output_2`, `preference` from 1 (first is better) to 2      |
| `trl`         | `prompt`, `chosen`, `rejected` as texts or message lists (which may hold the prompt);  |
|               | `messages`; `prompt`, `completion`                                                     |

A reader raises ``ValueError`` for a malformed row and ``NoPreference`` for a sound row that prefers neither
answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from alignment.data.records import Dialogue, Grade, Message, Role

Row = Mapping[str, Any]

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_HH_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
_PROMPT_KEYS = {"id", "messages", "dimension", "kind", "group"}

ALPACA_EVAL_GRADES: tuple[tuple[float, Grade], ...] = (
    (0.49, "significantly_better"),
    (0.40, "better"),
    (0.20, "slightly_better"),
)
"""A strength of preference above the number has the grade; below all of them it is negligibly better."""


class NoPreference(Exception):
    """A sound row that has nothing to learn from; its text is the reason that the report counts."""


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt, the preferred one first."""

    prompt: Dialogue
    chosen: str
    rejected: str
    grade: Grade | None = None


@dataclass(frozen=True)
class Format:
    """How to recognise and read a format.

    Attributes:
        has_pair: whether a row looks like a comparison in this format.
        has_demonstration: whether it holds a dialogue to imitate.
        has_prompt: whether it holds at least a prompt.
        pair: the comparison of a row.
        demonstration: the dialogue to imitate; of a comparison, the one with the preferred answer.
        prompt: the dialogue up to the last user turn.
    """

    has_pair: Callable[[Row], bool]
    has_demonstration: Callable[[Row], bool]
    has_prompt: Callable[[Row], bool]
    pair: Callable[[Row], Pair]
    demonstration: Callable[[Row], Dialogue]
    prompt: Callable[[Row], Dialogue]


def _text(row: Row, key: str, *, optional: bool = False) -> str:
    value = row.get(key)
    if value is None and optional:
        return ""
    if key not in row:
        raise ValueError(f"{key!r} is missing")
    if not isinstance(value, str):
        raise ValueError(f"{key!r} must be a text, is {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _says(role: Role, text: str) -> Message:
    return Message(role=role, content=text)


def _make_pair(prompt: Dialogue, chosen: str, rejected: str, grade: Grade | None = None) -> Pair:
    for name, answer in (("preferred", chosen), ("other", rejected)):
        if not answer.strip():
            raise ValueError(f"the {name} answer is empty")
    if chosen.strip() == rejected.strip():
        raise NoPreference("without a preference (equal answers)")
    return Pair(prompt=prompt, chosen=chosen, rejected=rejected, grade=grade)


def _with_answer(pair: Pair) -> Dialogue:
    return (*pair.prompt, _says("assistant", pair.chosen))


def until_user(messages: Dialogue) -> Dialogue:
    """The dialogue without the answer at its end, if there is one."""
    return messages[:-1] if messages and messages[-1].role == "assistant" else messages


def _is_transcript(value: object) -> bool:
    return isinstance(value, str) and value.lstrip().startswith(("Human:", "Assistant:"))


def parse_transcript(text: str) -> Dialogue:
    """Split a raw transcript into turns.

    Raises:
        ValueError: text stands before the first turn.
    """
    head, *parts = _TURN.split(text.lstrip())
    if head.strip() or not parts:
        raise ValueError("the transcript does not start with 'Human:'")
    return tuple(_says(_HH_ROLES[name], said.strip()) for name, said in zip(parts[::2], parts[1::2], strict=True))


def _hh_pair(row: Row) -> Pair:
    chosen, rejected = parse_transcript(_text(row, "chosen")), parse_transcript(_text(row, "rejected"))
    return _pair_of_dialogues(chosen, rejected)


def _pair_of_dialogues(chosen: Dialogue, rejected: Dialogue) -> Pair:
    """The comparison of two whole dialogues that differ in the last answer."""
    if chosen == rejected:
        raise NoPreference("without a preference (equal answers)")
    for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
        if not dialogue or dialogue[-1].role != "assistant":
            raise ValueError(f"{name} does not end with a turn by the assistant")
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("chosen and rejected differ before the last answer, so they do not answer the same prompt")
    return _make_pair(chosen[:-1], chosen[-1].content, rejected[-1].content)


def _hh_demonstration(row: Row) -> Dialogue:
    return parse_transcript(_text(row, "chosen"))


def _alpaca_prompt(row: Row) -> Dialogue:
    instruction, extra = _text(row, "instruction"), _text(row, "input", optional=True)
    return (_says("user", f"{instruction}\n\n{extra}" if extra.strip() else instruction),)


def _alpaca_pair(row: Row) -> Pair:
    return _make_pair(_alpaca_prompt(row), _text(row, "chosen"), _text(row, "rejected"))


def _alpaca_demonstration(row: Row) -> Dialogue:
    answer = _text(row, "output" if row.get("chosen") is None else "chosen")
    return (*_alpaca_prompt(row), _says("assistant", answer))


def alpaca_eval_grade(preference: float) -> Grade:
    """The grade of a strength of preference between 1 and 2."""
    strength = abs(preference - 1.5)
    return next((grade for above, grade in ALPACA_EVAL_GRADES if strength > above), "negligibly_better")


def _alpaca_eval_pair(row: Row) -> Pair:
    first, second = _text(row, "output_1"), _text(row, "output_2")
    value = row.get("preference")
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or not 1 <= value <= 2:
        raise ValueError(f"'preference' must be a number from 1 to 2, is {value!r}")
    if value == 1.5:
        raise NoPreference("without a preference (exact tie)")
    chosen, rejected = (first, second) if value < 1.5 else (second, first)
    return _make_pair(_alpaca_prompt(row), chosen, rejected, alpaca_eval_grade(value))


def _messages(value: object, key: str) -> Dialogue:
    if not isinstance(value, Iterable) or isinstance(value, str | Mapping):
        raise ValueError(f"{key!r} must be a list of messages, is {_kind(value)}")
    return tuple(_message(item, f"{key}[{position}]") for position, item in enumerate(value))


def _message(item: object, where: str) -> Message:
    if not isinstance(item, Mapping) or not {"role", "content"} <= item.keys():
        raise ValueError(f"{where} must be an object with 'role' and 'content'")
    role, content = item["role"], item["content"]
    if role not in get_args(Role):
        raise ValueError(f"{where} has role {role!r}; known are {', '.join(get_args(Role))}")
    if not isinstance(content, str):
        raise ValueError(f"{where} has content that is {_kind(content)}, not a text")
    return _says(cast(Role, role), content)


def _trl_prompt_part(value: object) -> Dialogue:
    if isinstance(value, str):
        if _is_transcript(value) and value.rstrip().endswith("Assistant:"):
            return parse_transcript(value.rstrip().removesuffix("Assistant:"))
        return (_says("user", value),)
    return _messages(value, "prompt")


def _trl_answered(row: Row, key: str) -> Dialogue:
    """The dialogue ending with the answer under ``key``: a text, a turn or a whole dialogue."""
    value = row.get(key)
    if isinstance(value, str):
        if row.get("prompt") is None:
            raise ValueError(f"{key!r} is a text, so 'prompt' is needed")
        return (*_trl_prompt_part(row["prompt"]), _says("assistant", value))
    if key not in row:
        raise ValueError(f"{key!r} is missing")
    said = _messages(value, key)
    if said and said[0].role == "assistant":
        return (*_trl_prompt_part(row.get("prompt")), *said)
    return said


def _trl_pair(row: Row) -> Pair:
    return _pair_of_dialogues(_trl_answered(row, "chosen"), _trl_answered(row, "rejected"))


def _trl_demonstration(row: Row) -> Dialogue:
    if row.get("messages") is not None:
        return _messages(row["messages"], "messages")
    return _trl_answered(row, "chosen" if row.get("completion") is None else "completion")


def _trl_prompt(row: Row) -> Dialogue:
    if row.get("messages") is None and isinstance(row.get("prompt"), list):
        return _messages(row["prompt"], "prompt")
    if row.get("messages") is None and row.get("prompt") is not None and not isinstance(row.get("chosen"), list):
        return _trl_prompt_part(row["prompt"])
    return until_user(_trl_demonstration(row))


def _has(*keys: str) -> Callable[[Row], bool]:
    return lambda row: all(row.get(key) is not None for key in keys)


def _own_rows_are_validated(row: Row) -> Any:
    raise AssertionError("records of this project are validated, not parsed")


def _is_own_comparison(row: Row) -> bool:
    return {"id", "prompt", "chosen", "rejected", "conversation_id"} <= row.keys()


def _is_hh(row: Row) -> bool:
    return row.get("prompt") is None and _is_transcript(row.get("chosen")) and _is_transcript(row.get("rejected"))


def _is_trl_demonstration(row: Row) -> bool:
    return _has("messages")(row) or _has("prompt", "completion")(row) or _has("chosen", "rejected")(row)


FORMATS: dict[str, Format] = {
    "tandem": Format(
        has_pair=_is_own_comparison,
        has_demonstration=lambda row: row.keys() == {"id", "messages"} or _is_own_comparison(row),
        has_prompt=lambda row: {"id", "messages"} <= row.keys() <= _PROMPT_KEYS or _is_own_comparison(row),
        pair=_own_rows_are_validated,
        demonstration=_own_rows_are_validated,
        prompt=_own_rows_are_validated,
    ),
    "alpaca_eval": Format(
        has_pair=_has("instruction", "output_1", "output_2"),
        has_demonstration=_has("instruction", "output_1", "output_2"),
        has_prompt=_has("instruction", "output_1", "output_2"),
        pair=_alpaca_eval_pair,
        demonstration=lambda row: _with_answer(_alpaca_eval_pair(row)),
        prompt=_alpaca_prompt,
    ),
    "alpaca": Format(
        has_pair=_has("instruction", "chosen", "rejected"),
        has_demonstration=lambda row: _has("instruction", "output")(row) or _has("instruction", "chosen")(row),
        has_prompt=_has("instruction"),
        pair=_alpaca_pair,
        demonstration=_alpaca_demonstration,
        prompt=_alpaca_prompt,
    ),
    "hh": Format(
        has_pair=_is_hh,
        has_demonstration=lambda row: row.get("prompt") is None and _is_transcript(row.get("chosen")),
        has_prompt=lambda row: row.get("prompt") is None and _is_transcript(row.get("chosen")),
        pair=_hh_pair,
        demonstration=_hh_demonstration,
        prompt=lambda row: until_user(_hh_demonstration(row)),
    ),
    "trl": Format(
        has_pair=_has("chosen", "rejected"),
        has_demonstration=_is_trl_demonstration,
        has_prompt=lambda row: _has("prompt")(row) or _is_trl_demonstration(row),
        pair=_trl_pair,
        demonstration=_trl_demonstration,
        prompt=_trl_prompt,
    ),
}
"""Name -> reader, in the order in which formats are tried."""
