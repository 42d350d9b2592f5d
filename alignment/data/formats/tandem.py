"""This project's own records, as ``alignment.data.records`` defines them: they keep their ids and say what they are.

A comparison also serves as a demonstration (with its preferred answer) and as a prompt, a demonstration as a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping

from alignment.data.formats.row_format import Format, NoPreference, Row, RowDefaults, RowReader, until_user
from alignment.data.records import Comparison, Demonstration, Prompt

DEMONSTRATION_KEYS = {"id", "messages"}
PROMPT_KEYS = DEMONSTRATION_KEYS | {"dimension", "kind", "group"}


def is_comparison(row: Row) -> bool:
    """Whether a row has all that a comparison must have."""
    return {"id", "prompt", "chosen", "rejected", "conversation_id"} <= row.keys()


def is_demonstration(row: Row) -> bool:
    """Whether a row holds a dialogue to imitate and nothing else, or a comparison."""
    return row.keys() == DEMONSTRATION_KEYS or is_comparison(row)


def is_prompt(row: Row) -> bool:
    """Whether a row holds a prompt, or something that has one."""
    return DEMONSTRATION_KEYS <= row.keys() <= PROMPT_KEYS or is_comparison(row)


def read_comparison(row: Row, defaults: RowDefaults) -> Comparison:
    """The comparison of a row; raise ``NoPreference`` where it is about another dimension than the file's."""
    own = Comparison.model_validate({"dimension": defaults.dimension, **row})
    if own.dimension != defaults.dimension:
        raise NoPreference(f"about {own.dimension}")
    return own


def read_demonstration(row: Row, defaults: RowDefaults) -> Demonstration:
    """The dialogue to imitate; of a comparison, the one with the preferred answer."""
    if "messages" in row:
        return Demonstration.model_validate(row)
    own = Comparison.model_validate(row)
    return Demonstration(id=own.id, messages=own.prompt + own.chosen)


def read_prompt(row: Row, defaults: RowDefaults) -> Prompt:
    """The prompt of a row, of a demonstration or of a comparison."""
    if "messages" not in row:
        own = Comparison.model_validate({"dimension": defaults.dimension, **row})
        kind = own.dimension if own.kind is None else own.kind
        return Prompt(id=own.id, messages=own.prompt, dimension=own.dimension, kind=kind)
    if row.keys() == DEMONSTRATION_KEYS and _is_answered(row):
        row = {**row, "messages": until_user(Demonstration.model_validate(row).messages)}
    tag = row.get("dimension", defaults.dimension)
    return Prompt.model_validate({"dimension": tag, "kind": tag, **row})


def _is_answered(row: Row) -> bool:
    messages = row["messages"]
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, Mapping) and last.get("role") == "assistant"


TANDEM = Format(
    comparisons=RowReader(is_comparison, read_comparison),
    demonstrations=RowReader(is_demonstration, read_demonstration),
    prompts=RowReader(is_prompt, read_prompt),
)
