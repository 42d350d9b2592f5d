"""What both sides of the PPO benchmark are asked to do, and how they say what it took.

Imports neither torch nor TRL, since the process that starts the measurements has to stay small: on Linux the peak
memory of a process begins with that of its parent.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from statistics import mean
from typing import Any, Self

PACKAGES = ("torch", "transformers", "peft", "trl")
LORA_RANK, LORA_ALPHA = 8, 16
LEARNING_RATE = 1e-5


class CommandLine:
    """A frozen dataclass that a script can be asked for by its options; booleans are flags."""

    @property
    def options(self) -> list[str]:
        """The command line that ``add_arguments`` reads back."""
        values: dict[str, Any] = asdict(self)  # type: ignore[call-overload]
        return [
            f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
            for name, value in values.items()
            if value is not False
        ]

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """An option for each field."""
        for item in fields(cls):  # type: ignore[arg-type]
            option = f"--{item.name.replace('_', '-')}"
            if isinstance(item.default, bool):
                parser.add_argument(option, action="store_true")
            else:
                parser.add_argument(option, type=type(item.default), default=item.default)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        """What a command line asks for."""
        names = [item.name for item in fields(cls)]  # type: ignore[arg-type]
        return cls(**{name: getattr(arguments, name) for name in names})


@dataclass(frozen=True)
class Workload(CommandLine):
    """Some updates of PPO on the prompts of a file, from a model folder."""

    model: str = ""
    """A causal language model with its tokenizer."""
    prompts: str = ""
    """Prompts, JSON Lines."""
    episodes: int = 128
    """Per update."""
    minibatch: int = 32
    """Episodes per optimiser step."""
    micro_batch: int = 32
    """Episodes per forward and backward pass."""
    rollout_batch: int = 128
    """Episodes that are sampled together."""
    new_tokens: int = 48
    """Longest answer."""
    fixed_length: bool = False
    """Whether all answers are that long; the model's stop token has to be one that it cannot draw."""
    warm_up: int = 1
    """First updates, not timed."""
    updates: int = 3
    """Timed updates."""
    threads: int = 2


def available_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Of the libraries that the figures depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def figures(work: Workload, stamps: Sequence[float], answer_tokens: Sequence[int], **rest: Any) -> dict[str, Any]:
    """What a measurement reports.

    Args:
        work: what was asked for.
        stamps: times in seconds, before the first update and after each.
        answer_tokens: length of every answer drawn.
        rest: what else the side has to say.
    """
    seconds = [after - before for before, after in pairwise(stamps)][work.warm_up :]
    return {
        **rest,
        "episodes_per_s": round(work.episodes * len(seconds) / sum(seconds), 3),
        "seconds_per_update": [round(item, 3) for item in seconds],
        "answer_tokens_mean": round(mean(answer_tokens), 2),
        "answer_tokens_max": max(answer_tokens),
        "threads": work.threads,
        "versions": versions(),
    }


def print_json(values: dict[str, Any]) -> None:
    """The last line of a script's output."""
    print(json.dumps(values), flush=True)
