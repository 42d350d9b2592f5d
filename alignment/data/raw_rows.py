"""Raw rows of a source, each with its place: JSON, JSON Lines, both also gzipped, Parquet, Hub dataset."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from alignment.data.jsonl import open_text
from alignment.errors import UserError

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
    import datasets

    try:
        dataset = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises a dozen unrelated types for "not there" and "no network"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{name!r} is neither a file here nor a Hub dataset that could be loaded (split {split!r}): {reason}"
        ) from error
    for number, row in enumerate(dataset, start=1):
        yield RowPlace("row", number), row
