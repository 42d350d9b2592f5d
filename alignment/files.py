"""JSON files that are whole or not there, and content hashes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from alignment.errors import UserError

HASHED_SUFFIXES = {".safetensors", ".json", ".jsonl"}
NOT_HASHED = {"env.json", "metrics.jsonl", "checkpoints"}


def write_json(file: Path, value: object) -> None:
    """Write JSON atomically: the file is whole or not there."""
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, file)


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


def content_hash(path: Path) -> str:
    """A short SHA-256 of a file, or of the weights and records in a folder.

    What differs between two equal runs does not count: the environment, metrics with their times, checkpoints.

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
