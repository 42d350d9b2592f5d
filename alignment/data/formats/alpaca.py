"""Alpaca's rows (``instruction``, ``input``, ``output``, or ``chosen`` and ``rejected``) and AlpacaEval's.

AlpacaEval has ``instruction``, ``output_1``, ``output_2`` and a ``preference`` from 1 to 2, graded by strength.
"""

from __future__ import annotations

import math

from alignment.data.formats.row_format import (
    AnswerPair,
    Format,
    chosen_side,
    comparison_reader,
    demonstration_reader,
    has_keys,
    make_pair,
    prompt_reader,
    text_at,
    turn_of,
)
from alignment.data.formats.row_labels import NoPreference, Row
from alignment.data.records import Dialogue, Grade


def alpaca_prompt(row: Row) -> Dialogue:
    """The instruction, with its input below it where there is one."""
    instruction, extra = text_at(row, "instruction"), text_at(row, "input", optional=True)
    return (turn_of("user", f"{instruction}\n\n{extra}" if extra.strip() else instruction),)


def alpaca_pair(row: Row) -> AnswerPair:
    """A pair from ``chosen`` and ``rejected``."""
    return make_pair(alpaca_prompt(row), text_at(row, "chosen"), text_at(row, "rejected"))


def alpaca_demonstration(row: Row) -> Dialogue:
    """The instruction with ``output``, or with the preferred answer."""
    answer = text_at(row, "output" if row.get("chosen") is None else "chosen")
    return (*alpaca_prompt(row), turn_of("assistant", answer))


ALPACA_EVAL_GRADES: tuple[tuple[float, Grade], ...] = (
    (0.49, "significantly_better"),
    (0.40, "better"),
    (0.20, "slightly_better"),
)
"""A strength of preference above the number has the grade; below all of them it is negligibly better."""


def alpaca_eval_grade(preference: float) -> Grade:
    """The grade of a strength of preference between 1 and 2."""
    strength = abs(preference - 1.5)
    return next((grade for above, grade in ALPACA_EVAL_GRADES if strength > above), "negligibly_better")


def alpaca_eval_pair(row: Row) -> AnswerPair:
    """A pair, graded by how strong the preference is; raise ``NoPreference`` at an exact tie."""
    first, second = text_at(row, "output_1"), text_at(row, "output_2")
    value = row.get("preference")
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or not 1 <= value <= 2:
        raise ValueError(f"'preference' must be a number from 1 to 2, is {value!r}")
    if value == 1.5:
        raise NoPreference("without a preference (exact tie)")
    chosen, rejected = (first, second) if value < 1.5 else (second, first)
    return make_pair(alpaca_prompt(row), chosen, rejected, alpaca_eval_grade(value))


_has_instruction_and_answer = has_keys("instruction", "output")
_has_instruction_and_chosen = has_keys("instruction", "chosen")
_has_two_outputs = has_keys("instruction", "output_1", "output_2")

ALPACA = Format(
    comparisons=comparison_reader(has_keys("instruction", "chosen", "rejected"), alpaca_pair),
    demonstrations=demonstration_reader(
        lambda row: _has_instruction_and_answer(row) or _has_instruction_and_chosen(row), alpaca_demonstration
    ),
    prompts=prompt_reader(has_keys("instruction"), alpaca_prompt),
)
ALPACA_EVAL = Format(
    comparisons=comparison_reader(_has_two_outputs, alpaca_eval_pair),
    demonstrations=demonstration_reader(_has_two_outputs, lambda row: chosen_side(alpaca_eval_pair(row))),
    prompts=prompt_reader(_has_two_outputs, alpaca_prompt),
)
