"""Readers of demonstrations, comparisons and prompts from any source, with a count of what was left out.

A source is a local file (JSON, JSON Lines, both also with ``.gz``, or Parquet) or the name of a Hub dataset.
Formats of rows are in ``alignment.data.formats``; they are recognised by content or named with ``format=``.
Every record gets an id from its file and position, so that the same file always gives the same ids; records
of this project keep theirs.

Rows without a preference are left out and counted. Malformed rows raise, or with ``on_error="skip"`` are left
out and counted. Keys that nothing reads are named in the report; one that carries a label raises, unless ``unused``
names it. Nothing else is left out.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from alignment.data.formats.row_format import FORMATS, RowDefaults, RowReader, known_formats
from alignment.data.formats.row_labels import (
    COMPARISON_LABELS,
    DEMONSTRATION_LABELS,
    PROMPT_LABELS,
    MeaninglessLabel,
    NoPreference,
    Row,
    WatchedRow,
    is_label,
)
from alignment.data.jsonl_and_raw_rows import OnError, ReadReport, RowPlace, UnreadableRow, iter_rows
from alignment.data.records import Comparison, Demonstration, Dimension, Prompt, explain
from alignment.errors import UserError

R = TypeVar("R", bound=BaseModel)

_N_LOOKED_AT = 50
"""Rows among which the first sound one shows the format."""


def load_demonstrations(
    source: str, *, format: str = "auto", on_error: OnError = "raise", unused: Sequence[str] = ()
) -> tuple[list[Demonstration], ReadReport]:
    """Dialogues to imitate; of comparisons, the dialogue with the preferred answer.

    Args:
        source: a file, or ``owner/name[:split]`` of a Hub dataset.
        format: a name from ``FORMATS``, or ``auto``.
        on_error: what to do with malformed rows: raise, or leave out and count.
        unused: keys that may go unread although they carry a label.

    Raises:
        UserError: the source cannot be read, holds no demonstration or a malformed row, or has a label without a
            meaning; names file and row.
    """
    readers = {name: each.demonstrations for name, each in known_formats().items()}
    # the dimension is a formality: a demonstration has none
    kind = _Kind("demonstrations", readers, DEMONSTRATION_LABELS)
    return _load(source, kind, dimension="helpfulness", format=format, on_error=on_error, unused=unused)


def load_comparisons(
    source: str,
    *,
    dimension: Dimension,
    format: str = "auto",
    on_error: OnError = "raise",
    unused: Sequence[str] = (),
) -> tuple[list[Comparison], ReadReport]:
    """Preferences between two answers.

    Args:
        source: a file, or ``owner/name[:split]`` of a Hub dataset.
        dimension: what the preferences are about. This project's own records say so themselves: those about
            something else are left out and counted.
        format: a name from ``FORMATS``, or ``auto``.
        on_error: what to do with malformed rows: raise, or leave out and count.
        unused: keys that may go unread although they carry a label.

    Raises:
        UserError: the source cannot be read, holds no comparison or a malformed row, or has a label without a meaning;
            names file and row.
    """
    readers = {name: each.comparisons for name, each in known_formats().items()}
    kind = _Kind("comparisons", readers, COMPARISON_LABELS)
    return _load(source, kind, dimension=dimension, format=format, on_error=on_error, unused=unused)


def load_prompts(
    source: str,
    *,
    dimension: Dimension = "helpfulness",
    format: str = "auto",
    on_error: OnError = "raise",
    unused: Sequence[str] = (),
) -> tuple[list[Prompt], ReadReport]:
    """Dialogues that wait for an answer; of demonstrations and comparisons, all up to the last user turn.

    Args:
        source: a file, or ``owner/name[:split]`` of a Hub dataset.
        dimension: the tag of prompts that have none themselves.
        format: a name from ``FORMATS``, or ``auto``.
        on_error: what to do with malformed rows: raise, or leave out and count.
        unused: keys that may go unread although they carry a label.

    Raises:
        UserError: the source cannot be read, holds no prompt or a malformed row, or has a label without a meaning;
            names file and row.
    """
    readers = {name: each.prompts for name, each in known_formats().items()}
    kind = _Kind("prompts", readers, PROMPT_LABELS)
    return _load(source, kind, dimension=dimension, format=format, on_error=on_error, unused=unused)


@dataclass(frozen=True)
class _Kind(Generic[R]):
    """A kind of record: what it is called, how each format reads it, and which keys are labels of it."""

    what: str
    readers: Mapping[str, RowReader[R]]
    labels: tuple[str, ...]


def _load(
    source: str,
    kind: _Kind[R],
    *,
    dimension: Dimension,
    format: str,
    on_error: OnError,
    unused: Sequence[str],
) -> tuple[list[R], ReadReport]:
    """Records of a source."""
    what = kind.what
    _check_format(format)
    # the first rows show the format
    rows = iter(iter_rows(source))
    head = list(itertools.islice(rows, _N_LOOKED_AT))
    if not head:
        raise UserError(f"{source} is empty: expected {what}.")
    name = format if format != "auto" else _detect(source, kind, head, on_error=on_error)
    # every row becomes a record, is counted as left out, or raises
    report = ReadReport(path=source)
    records: list[R] = []
    stem = _stem(source)
    for where, row in itertools.chain(head, rows):
        try:
            if isinstance(row, UnreadableRow):
                raise row
            if not isinstance(row, Mapping):
                raise ValueError(f"expected an object, found {type(row).__name__}")
            defaults = RowDefaults(f"{stem}-{where.number:06d}", dimension)
            record, unread = _read(kind.readers[name], row, defaults, unused)
            records.append(record)
        except NoPreference as reason:
            report.skip(str(reason), str(where))
        except ValueError as error:
            problem = explain(error) if isinstance(error, ValidationError) else str(error)
            if on_error == "raise":
                other = f", or {_let_pass(error.key, unused)}" if isinstance(error, MeaninglessLabel) else ""
                advice = f"Mend it, or pass data.on_error=skip{other}."
                raise UserError(f"{source}, {where}: {problem}. {advice} (Read as format {name!r}.)") from error
            report.skip("malformed", f"{where}: {problem}")
        else:
            unknown = [key for key in unread if is_label(key, kind.labels) and key not in unused]
            if unknown:
                raise UserError(
                    f"{source}, {where}: what the label {unknown[0]!r} says is not known here. To read the file "
                    f"without it: {_let_pass(unknown[0], unused)}. (Read as format {name!r}.)"
                )
            report.note_unread(unread)
    report.read = len(records)
    if not records:
        raise UserError(f"no usable {what} in this source, read as format {name!r}. {report.summary()}")
    return records, report


def _read(reader: RowReader[R], row: Row, defaults: RowDefaults, unused: Sequence[str]) -> tuple[R, list[str]]:
    """A row's record, and its keys that were not read.

    Args:
        reader: of the row's format.
        row: to be read.
        defaults: what the record gets where the row does not say it.
        unused: labels that may go unread: without them, where their values have no meaning.
    """
    watched = WatchedRow(row)
    try:
        return reader.read(watched, defaults), watched.unread
    except MeaninglessLabel as error:
        if error.key not in unused:
            raise
        rest = {key: value for key, value in row.items() if key != error.key}
        record, unread = _read(reader, rest, defaults, unused)
        return record, [*unread, error.key]


def _let_pass(key: str, unused: Sequence[str]) -> str:
    """The setting that lets a label go unread, beside those that do already."""
    return f"data.unused=[{','.join((*unused, key))}]"


def _check_format(format: str) -> None:
    valid = ["auto", *FORMATS]
    if format not in valid:
        near = difflib.get_close_matches(format.lower(), valid, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"unknown data format {format!r}; known are {', '.join(valid)}.{hint}")


def _detect(
    source: str,
    kind: _Kind[R],
    head: list[tuple[RowPlace, Any]],
    *,
    on_error: OnError,
) -> str:
    """The first format that recognises one of the first rows; the first row decides where errors raise."""
    for where, row in head:
        if isinstance(row, Mapping):
            for name, reader in kind.readers.items():
                if reader.recognises(row):
                    return name
        elif on_error == "raise":
            problem = str(row) if isinstance(row, UnreadableRow) else f"expected an object, found {type(row).__name__}"
            raise UserError(f"{source}, {where}: {problem}. Mend it, or pass data.on_error=skip.")
    keys = next((", ".join(map(repr, row)) for _, row in head if isinstance(row, Mapping)), "none")
    raise UserError(
        f"{source}: cannot tell which format holds {kind.what} here. The first record has the keys {keys}. "
        f"Known formats are {', '.join(FORMATS)}; name one"
        " with the format setting beside the file's (sft.format, annotate.format, reward.*.format)."
    )


def _stem(source: str) -> str:
    name = Path(source).name
    for suffix in (".gz", ".jsonl", ".json", ".parquet"):
        name = name.removesuffix(suffix)
    return name
