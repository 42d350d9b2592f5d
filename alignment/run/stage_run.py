"""A stage at work: its folder and its log of metrics; reading such a log, and the snapshots beside it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.data.jsonl import iter_json_lines, read_jsonl, write_jsonl
from alignment.data.records import Snapshot
from alignment.errors import UserError

OnStep = Callable[[int, int, dict[str, float]], None]
"""How a stage tells where it stands: called with the steps done, the steps in all, and the latest figures."""
CHECKPOINTS = "checkpoints"
"""Of a stage, inside its folder."""


@dataclass
class StageRun:
    """A stage at work: its folder, its metrics, and the way to say that it is finished."""

    name: str
    folder: Path
    started: float = field(default_factory=time.monotonic)

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(dict(metrics)) + "\n")

    def cut_log(self, keep: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Keep the lines of ``metrics.jsonl`` up to the first that ``keep`` refuses, atomically; returns those kept.

        A line that was cut short by a kill goes too.
        """
        file = self.folder / "metrics.jsonl"
        if not file.is_file():
            return []
        kept: list[dict[str, Any]] = []
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if not keep(row):
                break
            kept.append(row)
        write_jsonl(file, kept)
        return kept

    def remove_checkpoints(self) -> None:
        """Once the stage is finished, nothing goes on from them."""
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the stage started."""
        return time.monotonic() - self.started


def read_metrics(file: Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.jsonl``.

    Raises:
        UserError: there is no such file, or a line is not a JSON object; names file and line.
    """
    rows: list[dict[str, float]] = []
    for number, line in iter_json_lines(file):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{file}, line {number}: not JSON ({error}). Remove the line.") from error
        if not isinstance(row, dict):
            raise UserError(f"{file}, line {number}: not a JSON object. Remove the line.")
        rows.append({key: value for key, value in row.items() if isinstance(value, int | float)})
    return rows


def read_snapshots(file: Path) -> dict[int, list[Snapshot]]:
    """Update -> what was written down at it; empty without a file."""
    taken: dict[int, list[Snapshot]] = {}
    for item in read_jsonl(file, Snapshot)[0] if file.is_file() else []:
        taken.setdefault(item.update, []).append(item)
    return taken
