"""This project's own records, as ``alignment.data.records`` defines them: they keep their ids and say what they are.

They are known by what they must have: a key that no record has is no reason to read them as something else, nor is a
missing id or conversation. A comparison also serves as a demonstration (with its preferred answer) and as a prompt, a
demonstration as a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from alignment.data.formats.row_format import Format, RowDefaults, RowReader, check_about, until_user
from alignment.data.formats.row_labels import (
    Row,
    check_is_to_be_imitated,
    dimension_of,
    grade_of,
    in_context,
    safety_of,
)
from alignment.data.records import Comparison, Demonstration, Prompt
from alignment.data.splits import first_turn_key

OWN_MARKS = {"id", "conversation_id", "dimension", "grade", "safety", "objective", "annotator_id"}
"""Keys of a comparison of this project; rows of TRL with the same answers have none of them."""


def is_comparison(row: Row) -> bool:
    """Whether a row compares two answers of one turn each, and says something that only this project's records say."""
    answers = (row.get("chosen"), row.get("rejected"))
    return isinstance(row.get("prompt"), list) and all(map(_is_one_answer, answers)) and bool(OWN_MARKS & row.keys())


def _is_one_answer(value: object) -> bool:
    return isinstance(value, list) and len(value) == 1 and _role(value) == "assistant"


def has_own_messages(row: Row) -> bool:
    """Whether a row has an id and a dialogue."""
    return isinstance(row.get("id"), str) and isinstance(row.get("messages"), list)


def read_comparison(row: Row, defaults: RowDefaults) -> Comparison:
    """The comparison of a row; raise ``NoPreference`` where it is about another dimension than the file's."""
    labels = {"dimension": check_about(row, defaults.dimension), "grade": grade_of(row), "safety": safety_of(row)}
    values = _own(row, Comparison, id=defaults.id, conversation_id="unknown") | labels
    own = Comparison.model_validate(values)
    prompt = in_context(row, own.prompt)
    conversation = first_turn_key(prompt) if row.get("conversation_id") is None else own.conversation_id
    return own.model_copy(update={"prompt": prompt, "conversation_id": conversation})


def read_demonstration(row: Row, defaults: RowDefaults) -> Demonstration:
    """The dialogue to imitate; of a comparison, the one with the preferred answer."""
    check_is_to_be_imitated(row)
    if "messages" in row:
        own = Demonstration.model_validate(_own(row, Demonstration, id=defaults.id))
        return own.model_copy(update={"messages": in_context(row, own.messages)})
    pair = read_comparison(row, RowDefaults(defaults.id, dimension_of(row, defaults.dimension)))
    return Demonstration(id=pair.id, messages=pair.prompt + pair.chosen)


def read_prompt(row: Row, defaults: RowDefaults) -> Prompt:
    """The prompt of a row, of a demonstration or of a comparison."""
    tag = dimension_of(row, defaults.dimension)
    if "messages" not in row:
        pair = read_comparison(row, RowDefaults(defaults.id, tag))
        return Prompt(id=pair.id, messages=pair.prompt, dimension=tag, kind=pair.kind or tag)
    values = {"kind": tag, **_own(row, Prompt, id=defaults.id, dimension=tag)}
    if _role(row["messages"]) == "assistant":
        values["messages"] = until_user(Demonstration.model_validate(_own(row, Demonstration, id=defaults.id)).messages)
    own = Prompt.model_validate(values)
    return own.model_copy(update={"messages": in_context(row, own.messages)})


def _own(row: Row, record: type[BaseModel], **defaults: object) -> dict[str, Any]:
    """What of a row belongs to a record, and what it gets where the row says nothing."""
    return defaults | {key: row[key] for key in record.model_fields if row.get(key) is not None}


def _role(messages: object) -> object:
    """Whose the last of some messages is."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    return last.get("role") if isinstance(last, Mapping) else None


def _has_own_messages_or_comparison(row: Row) -> bool:
    return has_own_messages(row) or is_comparison(row)


TANDEM = Format(
    comparisons=RowReader(is_comparison, read_comparison),
    demonstrations=RowReader(_has_own_messages_or_comparison, read_demonstration),
    prompts=RowReader(_has_own_messages_or_comparison, read_prompt),
)
