"""Files of rows: JSON Lines of records, read and written; and raw rows of any source, each with its place.

A source is JSON, JSON Lines, both also gzipped, Parquet, or a dataset on the Hub.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO, TypeVar

from pydantic import BaseModel, ValidationError

from alignment.data.records import explain
from alignment.errors import UserError
from alignment.files import open_text, write_text
from alignment.hub import why_not_there

OnError = Literal["raise", "skip"]


R = TypeVar("R", bound=BaseModel)


@dataclass
class ReadReport:
    """What reading a file left out, and why; ``examples`` holds where the first of each reason stood.

    ``unread`` counts the rows with a key that nothing has read, by key.
    """

    path: str
    read: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str, where: str) -> None:
        """Count one left-out record under ``reason``; remember where the first one stood."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        self.examples.setdefault(reason, where)

    def note_unread(self, keys: Iterable[str]) -> None:
        """Count a row's keys that nothing has read."""
        for key in keys:
            self.unread[key] = self.unread.get(key, 0) + 1

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the file went unread, row or key."""
        return not self.n_skipped and not self.unread

    @property
    def n_skipped(self) -> int:
        """Number of records left out."""
        return sum(self.skipped.values())

    def summary(self) -> str:
        """One line for people: how many were read and what was left out."""
        parts = [f"{count} {reason} (first: {self.examples[reason]})" for reason, count in self.skipped.items()]
        left_out = f"; left out: {', '.join(parts)}" if parts else ""
        unread = f"; not used: {', '.join(self.unread)}" if self.unread else ""
        return f"{self.path}: {self.read} records{left_out}{unread}"


def iter_json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) of each non-empty line; raise ``UserError`` where the file cannot be read."""
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, line


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
    write_text(file, (_as_line(record) for record in records))


def _as_line(record: BaseModel | dict[str, Any]) -> str:
    row = record.model_dump(mode="json", exclude_none=True) if isinstance(record, BaseModel) else record
    return json.dumps(row, ensure_ascii=False) + "\n"


_HUB_NAME = re.compile(r"(?P<owner>[\w-]+)/(?P<name>[\w.-]+)(:(?P<split>[\w\[\]%:+-]+))?")
_FILE_SUFFIXES = (
    ".json",
    ".jsonl",
    ".gz",
    ".parquet",
    ".csv",
    ".txt",
    ".zip",
    ".zst",
    ".arrow",
    ".yaml",
    ".tsv",
)


class UnreadableRow(ValueError):
    """A row that could not even be read."""


class RowPlace(NamedTuple):
    """Where a row stands, as people would say it."""

    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.unit} {self.number}"


def iter_rows(source: str) -> Iterator[tuple[RowPlace, Any]]:
    """Yield (place as people would name it, row or ``UnreadableRow``)."""
    hub = check_source(source)
    if hub is not None:
        return _hub_rows(f"{hub['owner']}/{hub['name']}", hub["split"] or "train")
    path = Path(source)
    return _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)


def check_source(source: str) -> re.Match[str] | None:
    """The parts of a Hub name, or ``None`` for a file; raise ``UserError`` where a source can be neither."""
    path = Path(source)
    if path.is_dir():
        raise UserError(f"{source} is a folder: give one file of it.")
    if path.is_file():
        return None
    hub = _HUB_NAME.fullmatch(source)
    if hub is None or source.lower().endswith(_FILE_SUFFIXES) or Path(hub["owner"]).exists():
        raise UserError(f"no such file: {source}")
    return hub


def _json_rows(path: Path) -> Iterator[tuple[RowPlace, Any]]:
    """Rows of a JSON array (``item N``) or of JSON Lines (``line N``), told apart by the first character."""
    with open_text(path) as lines:
        first = next((line for line in lines if line.strip()), "")
        lines.seek(0)
        if first.lstrip(" \t").startswith("["):
            yield from _array_items(path, lines.read())
        else:
            yield from _json_lines(path, lines)


def _array_items(path: Path, text: str) -> Iterator[tuple[RowPlace, Any]]:
    try:
        items = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    yield from ((RowPlace("item", number), item) for number, item in enumerate(items, start=1))


def _json_lines(path: Path, lines: TextIO) -> Iterator[tuple[RowPlace, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            if line.strip() == "{":
                raise UserError(
                    f"{path}, line {number}: a JSON object over several lines. Expected a list of objects, "
                    "or one object a line."
                ) from error
            row = UnreadableRow(f"not JSON ({error})")
        yield RowPlace("line", number), row


def _parquet_rows(path: Path) -> Iterator[tuple[RowPlace, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield RowPlace("row", number), row
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file: {error}") from error


def _hub_rows(name: str, split: str) -> Iterator[tuple[RowPlace, Any]]:
    if (missing := why_not_there("dataset", name)) is not None:
        raise _no_dataset(name, split, missing)
    import datasets
    from huggingface_hub import is_offline_mode

    datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE or is_offline_mode()
    try:
        dataset = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises a dozen unrelated types for "not there" and "no network"
        raise _no_dataset(name, split, error) from error
    for number, row in enumerate(dataset, start=1):
        yield RowPlace("row", number), row


def _no_dataset(name: str, split: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(
        f"{name!r} is neither a file here nor a Hub dataset that could be loaded (split {split!r}): {reason}"
    )
