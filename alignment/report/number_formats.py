"""Numbers as people read them: shares, means, intervals, p-values, durations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alignment.report.blocks_and_reward_schema import FigureBlock, Measured

NONE = "\N{EN DASH}"
SPACE = "\N{NO-BREAK SPACE}"
NumberFormat = Callable[[float], str]


def percent(value: float) -> str:
    """A share in per cent: one decimal near 0 % and 100 %, none between."""
    decimals = 0 if 0.1 <= value <= 0.9 or value in (0.0, 1.0) else 1
    return f"{100 * value:.{decimals}f}{SPACE}%"


def decimal(value: float) -> str:
    """A number with two decimals, and no minus before a zero."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "\N{MINUS SIGN}")


def thousandths(value: float) -> str:
    """A number with three decimals."""
    return f"{value:.3f}"


def probability(value: float) -> str:
    """A probability with as many digits as tell it from 0 and 1."""
    return f"{value:.3g}" if value < 0.5 else f"{1 - float(f'{1 - value:.2g}'):.12g}"


def p_value(value: float | None) -> str:
    """``p = 0.012``; a dash where there is none."""
    return NONE if value is None else f"p = {value:.1e}" if value < 0.001 else f"p = {value:.3f}"


def tokens(value: float) -> str:
    """A length with one decimal, and no minus before a zero."""
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """Seconds as ``45 s`` or ``7 min 11 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{SPACE}min {rest}{SPACE}s" if minutes else f"{rest}{SPACE}s"


def number(figure: Measured, form: NumberFormat) -> str:
    """The value alone; a dash where it was not measured."""
    return NONE if figure is None else form(figure.value)


def signed(form: NumberFormat) -> NumberFormat:
    """The same format for a difference: a plus before one above 0; shares in percentage points."""
    if form is percent:
        return points
    return lambda value: ("+" if value > 0 and form(value) != form(0.0) else "") + form(value)


def points(value: float) -> str:
    """A difference of two shares in percentage points."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def with_interval(figure: FigureBlock, form: NumberFormat) -> str:
    """``value (low to high)``."""
    unit = " points" if form is points else ""
    return f"{form(figure.value)} ({interval(figure.ci95, form)}){unit}"


def count(value: int, noun: str) -> str:
    """``1 prompt``, ``2,000 prompts``."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def interval(ci95: Sequence[float], form: NumberFormat) -> str:
    """``low to high``."""
    return f"{form(ci95[0])} to {form(ci95[1])}"
