"""All formats by name. A new one is a module of its own beside this, and a line in the table."""

from __future__ import annotations

from alignment.data.formats.alpaca import ALPACA, ALPACA_EVAL
from alignment.data.formats.hh import HH
from alignment.data.formats.row_format import Format
from alignment.data.formats.tandem import TANDEM
from alignment.data.formats.trl import TRL

FORMATS: dict[str, Format] = {
    "tandem": TANDEM,
    "alpaca_eval": ALPACA_EVAL,
    "alpaca": ALPACA,
    "hh": HH,
    "trl": TRL,
}
"""Name -> format, in the order in which formats are tried."""
