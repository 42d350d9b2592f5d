"""All formats by name, in the order in which they are recognised."""

from __future__ import annotations

from typing import Any

from alignment.data.formats.alpaca import alpaca_demonstration, alpaca_eval_pair, alpaca_pair, alpaca_prompt
from alignment.data.formats.hh import hh_demonstration, hh_pair, is_hh, is_transcript
from alignment.data.formats.row_format import Format, Row, chosen_side, has_keys, until_user
from alignment.data.formats.trl import is_trl_demonstration, trl_demonstration, trl_pair, trl_prompt

_PROMPT_KEYS = {"id", "messages", "dimension", "kind", "group"}


def _own_rows_are_validated(row: Row) -> Any:
    raise AssertionError("records of this project are validated, not parsed")


def _is_own_comparison(row: Row) -> bool:
    return {"id", "prompt", "chosen", "rejected", "conversation_id"} <= row.keys()


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
        has_pair=has_keys("instruction", "output_1", "output_2"),
        has_demonstration=has_keys("instruction", "output_1", "output_2"),
        has_prompt=has_keys("instruction", "output_1", "output_2"),
        pair=alpaca_eval_pair,
        demonstration=lambda row: chosen_side(alpaca_eval_pair(row)),
        prompt=alpaca_prompt,
    ),
    "alpaca": Format(
        has_pair=has_keys("instruction", "chosen", "rejected"),
        has_demonstration=lambda row: has_keys("instruction", "output")(row) or has_keys("instruction", "chosen")(row),
        has_prompt=has_keys("instruction"),
        pair=alpaca_pair,
        demonstration=alpaca_demonstration,
        prompt=alpaca_prompt,
    ),
    "hh": Format(
        has_pair=is_hh,
        has_demonstration=lambda row: row.get("prompt") is None and is_transcript(row.get("chosen")),
        has_prompt=lambda row: row.get("prompt") is None and is_transcript(row.get("chosen")),
        pair=hh_pair,
        demonstration=hh_demonstration,
        prompt=lambda row: until_user(hh_demonstration(row)),
    ),
    "trl": Format(
        has_pair=has_keys("chosen", "rejected"),
        has_demonstration=is_trl_demonstration,
        has_prompt=lambda row: has_keys("prompt")(row) or is_trl_demonstration(row),
        pair=trl_pair,
        demonstration=trl_demonstration,
        prompt=trl_prompt,
    ),
}
"""Name -> reader, in the order in which formats are tried."""
