"""Files and folders: whole or not there, text and JSON, hashes of what they hold, recipes and tables that are shipped.

In a checkout the recipes and the toy data are the folders ``configs/`` and ``data/`` beside this package. A wheel
carries ``configs/`` and ``data/toy/`` in ``alignment/_resources/`` (see ``force-include`` in ``pyproject.toml``), so
``configs/toy.yaml`` means the same file from any folder.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import shutil
import tomllib
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TextIO, cast

from alignment.errors import UserError


def write_text(path: Path, content: str | Iterable[str]) -> None:
    """Write a file that is whole or not there: on disk under another name first. Long content may come in pieces."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines([content] if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def write_json(file: Path, value: object) -> None:
    """Write JSON atomically: the file is whole or not there."""
    write_text(file, json_text(value))


def json_text(value: object) -> str:
    """JSON as it stands in the files of a run."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(file: Path) -> Any:
    """Read a JSON file of this run; raise ``UserError`` naming it when it is missing or not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing. Run the stage that writes it again, with overwrite=true.") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{file}: not valid JSON ({error}). Delete the folder it is in and run that stage again."
        ) from error


def read_object(file: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON file of this run that holds an object; raise ``UserError`` naming it where it does not.

    Args:
        file: its path.
        keys: what the object must have.
    """
    value = read_json(file)
    missing = [key for key in keys if key not in value] if isinstance(value, dict) else []
    if not isinstance(value, dict) or missing:
        found = f"without {', '.join(map(repr, missing))}" if missing else f"{json.dumps(value)[:40]}, no object"
        raise UserError(f"{file}: not what was written there ({found}). Put it back, or make that stage again.")
    return value


def check_replaceable(folder: Path, *, mark: tuple[str, str], overwrite: bool) -> None:
    """Raise ``UserError`` where something is at ``folder``, unless it may go.

    Args:
        folder: where a folder is to be made.
        mark: a file, and words in it by which a folder is known that may be replaced.
        overwrite: such a folder may go.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    file, words = mark
    if not overwrite:
        raise UserError(f"{folder} exists. Pass overwrite=true to replace it, or name another folder.")
    if not ((folder / file).is_file() and words in (folder / file).read_text(encoding="utf-8", errors="replace")):
        raise UserError(
            f"{folder} exists and is not what was made here before, so it is left alone. Name another folder."
        )


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to write to; it takes the place of ``folder`` when the block ends, or is gone.

    Raises:
        UserError: the folder above it cannot be written to.
    """
    made, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("part", "old"))
    try:
        for left in (made, old):
            shutil.rmtree(left, ignore_errors=True)
        made.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}. Name another folder.") from error
    try:
        yield made
        if folder.exists():
            os.replace(folder, old)
        os.replace(made, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def flush(path: Path) -> None:
    """See a file or folder to the disk; on Windows a folder cannot be opened for this, and a file only for writing."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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


HASHED_SUFFIXES = {".safetensors", ".json", ".jsonl"}
NOT_HASHED = {"env.json", "measured_env.json", "metrics.jsonl", "checkpoints"}
"""What a stage writes that differs between two equal runs: the environment, metrics with their times, checkpoints."""


def content_hash(path: Path) -> str:
    """A short SHA-256 of a file, or of the weights and records in a folder.

    What differs between two equal runs does not count (``NOT_HASHED``).

    A path that is not there, such as the Hub name of a data set, has the hash of nothing.
    """
    digest = hashlib.sha256()
    inside = (
        file
        for file in path.rglob("*")
        if file.suffix in HASHED_SUFFIXES and not NOT_HASHED.intersection(file.relative_to(path).parts)
    )
    files = sorted(inside) if path.is_dir() else [path] if path.is_file() else []
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


DISTRIBUTION = "tandem-rlhf"

_PACKAGE = Path(__file__).resolve().parent
_FOLDERS = ("configs", "data")


def resource(path: str | Path) -> Path:
    """Locate a file or folder that ships with the project; whether it exists is for the caller to check.

    Args:
        path: Relative to the project's root, within ``configs/`` or ``data/``, such as ``configs/toy.yaml``.

    Returns:
        The absolute path in the source checkout, or else in the installed package.

    Raises:
        ValueError: The path is absolute, contains ``..``, or lies outside ``configs/`` and ``data/``.
    """
    if not _is_resource(Path(path)):
        raise ValueError(f"not a resource: {path}; give a relative path within {' or '.join(_FOLDERS)}")
    return _root() / path


@cache
def table(path: str) -> tuple[dict[str, str], ...]:
    """The rows of a table that ships with the project, each by the names in the table's header.

    Args:
        path: of a file with tabs between its columns, such as ``data/toy/facts.tsv``.
    """
    with resource(path).open(encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def resolve(path: str | Path) -> Path:
    """Turn a path given by a person into the one to open: their own file first, then the project's.

    Args:
        path: Any path; a relative one is looked up in the current folder.

    Returns:
        ``path`` itself where it exists; else the shipped file of that name; else ``path`` unchanged, so that
        the error of whoever opens it names what was given.
    """
    given = Path(os.path.expanduser(path))  # which leaves "~backup.jsonl" alone
    if given.exists() or not _is_resource(given):
        return given
    shipped = resource(given)
    return shipped if shipped.exists() else given


def _is_resource(path: Path) -> bool:
    return not path.is_absolute() and path.parts[:1] in {(name,) for name in _FOLDERS} and ".." not in path.parts


def _root() -> Path:
    return _PACKAGE.parent if _is_checkout(_PACKAGE.parent) else _PACKAGE / "_resources"


def _is_checkout(folder: Path) -> bool:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, unreadable, or not TOML: somebody else's folder
        return False
    name: object = project.get("project", {}).get("name")
    return name == DISTRIBUTION
