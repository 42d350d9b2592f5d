"""JSON Lines files of records: read and validated line by line, written whole; what is skipped is counted."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar, cast

from pydantic import BaseModel, ValidationError

from alignment.errors import UserError

OnError = Literal["raise", "skip"]


R = TypeVar("R", bound=BaseModel)


@dataclass
class ReadReport:
    """What reading a file left out, and why; ``examples`` holds the first few lines of each reason."""

    path: str
    read: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, where: str) -> None:
        """Count one left-out record under ``reason``; remember where the first one stood."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        self.examples.setdefault(reason, where)

    @property
    def n_skipped(self) -> int:
        """Number of records left out."""
        return sum(self.skipped.values())

    def summary(self) -> str:
        """One line for people: how many were read and what was left out."""
        parts = [f"{count} {reason} (first: {self.examples[reason]})" for reason, count in self.skipped.items()]
        left_out = f"; left out: {', '.join(parts)}" if parts else ""
        return f"{self.path}: {self.read} records{left_out}"


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A text file to read while the block runs; ``.gz`` is unzipped, and a byte order mark is no part of the text.

    Raises:
        UserError: there is no such file, or what was read in the block is damaged or not UTF-8.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as text:
            yield cast(TextIO, text)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is damaged or cut off ({error}). Fetch it again.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def iter_json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) of each non-empty line; raise ``UserError`` where the file cannot be read."""
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, line


def explain(error: ValidationError) -> str:
    """One line from a pydantic error: each field with what is wrong."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'record'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors()
    )


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
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as lines:
        for record in records:
            row = record.model_dump(mode="json", exclude_none=True) if isinstance(record, BaseModel) else record
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        lines.flush()
        os.fsync(lines.fileno())
    os.replace(temporary, file)
