"""Rows of the PPO benchmark: who takes part, running the measurements one after the other, ratios, and the table.

Each measurement is a process of its own, and two never run at once. Sides alternate, and each repeat of one side is
compared with the same repeat of the other, which ran next to it: a machine whose speed drifts does so for both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ppo_workload import Workload

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEER = "ppo_trl.py"
Figures = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """One side with its settings."""

    name: str
    script: str
    options: tuple[str, ...] = ()

    @property
    def is_peer(self) -> bool:
        """Whether it is TRL."""
        return self.script == PEER


@dataclass
class Row:
    """One workload, those who take part, and what each needed."""

    name: str
    work: Workload
    contenders: list[Contender]
    figures: dict[str, list[Figures]] = field(default_factory=dict)
    """By contender, one entry per repeat."""

    def run(self, *, repeats: int, peer: Path | None, environment: dict[str, str]) -> None:
        """Measure: all contenders in turn, and again; without ``peer``, our own side alone."""
        for repeat in range(repeats):
            for contender in self.contenders:
                if contender.is_peer and peer is None:
                    continue
                print(f"{self.name}: {contender.name}, {repeat + 1} of {repeats} ...", file=sys.stderr, flush=True)
                paths = {"PYTHONPATH": str(peer)} if contender.is_peer else {}
                options = [*self.work.options, *contender.options]
                found = run_script(contender.script, options, environment={**environment, **paths})
                check_lengths(self.work, contender, found)
                self.figures.setdefault(contender.name, []).append(found)

    def of(self, name: str, key: str) -> list[float]:
        """A figure of one contender, by repeat; empty where it did not take part."""
        return [found[key] for found in self.figures.get(name, [])]

    def speed_ratio(self, ours: str, peers: Sequence[str]) -> float | None:
        """Episodes per second against the fastest of the peers: the median of the repeats' ratios."""
        measured = [self.of(name, "episodes_per_s") for name in peers if self.of(name, "episodes_per_s")]
        if not measured:
            return None
        fastest = max(measured, key=median)
        pairs = zip(self.of(ours, "episodes_per_s"), fastest, strict=True)
        return round(median(own / other for own, other in pairs), 3)

    def memory_ratio(self, ours: str, peers: Sequence[str], *, key: str) -> float | None:
        """Peak memory against the smallest of the peers."""
        measured = [max(self.of(name, key)) for name in peers if self.of(name, key)]
        return round(max(self.of(ours, key)) / min(measured), 3) if measured else None

    def table(self) -> str:
        """A line for each contender."""
        title = f"{self.name}: {self.work.episodes} episodes per update, answers of "
        title += f"{'exactly' if self.work.fixed_length else 'up to'} {self.work.new_tokens} tokens"
        head = f"{'':<34}{'episodes/s':>11}{'repeats':>24}{'s/update':>10}{'peak GiB':>10}{'tokens':>8}"
        lines = [title, head, "-" * len(head)]
        for name, found in self.figures.items():
            speeds = self.of(name, "episodes_per_s")
            seconds = median(item for run in found for item in run["seconds_per_update"])
            peak = max(run["peak_gpu_gib"] or run["peak_rss_gib"] for run in found)
            each = " ".join(f"{speed:.1f}" for speed in speeds)
            length = found[0]["answer_tokens_mean"]
            lines.append(f"{name:<34}{median(speeds):>11.1f}{each:>24}{seconds:>10.2f}{peak:>10.2f}{length:>8.1f}")
        return "\n".join(lines)


def check_lengths(work: Workload, contender: Contender, found: Figures) -> None:
    """Refuse a comparison of unequal work."""
    if work.fixed_length and found["answer_tokens_mean"] != work.new_tokens:
        raise SystemExit(f"{contender.name}: answers of {found['answer_tokens_mean']} tokens, not {work.new_tokens}")


def run_script(script: str, options: Sequence[str], *, environment: dict[str, str]) -> Figures:
    """Run a script of this folder; returns the JSON object in the last line of its output."""
    paths = [environment.get("PYTHONPATH"), str(ROOT), os.environ.get("PYTHONPATH")]
    found = subprocess.run(
        [sys.executable, str(HERE / script), *options],
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise SystemExit(f"{script} {' '.join(options)} failed:\n{found.stderr[-4000:]}")
    result: Figures = json.loads(found.stdout.strip().splitlines()[-1])
    return result
