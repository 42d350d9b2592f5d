"""What PPO's health checks look at: the metrics of every update so far, and the settings that they depend on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from alignment.settings.ppo_sections import PPOSection
from alignment.settings.sections import LoraSection

Default = TypeVar("Default", float, None)
MetricsRow = Mapping[str, float]

START_UPDATES = 3
"""Updates whose mean is the start that a collapse is measured against: one batch alone is noisy."""
RECENT_UPDATES = 3
"""Updates whose mean is compared with the start."""


class NotLogged(LookupError):
    """A check needs a metric that was not logged, or updates that have not been made."""


@dataclass(frozen=True)
class HealthSettings:
    """The settings of a run that decide how large noise is and which cause is likely."""

    batch_size_episodes: int = 512
    temperature: float = 1.0
    max_new_tokens: int = 400
    lora_dropout: float = 0.0
    warmup_value_updates: int = 0

    @classmethod
    def from_sections(cls, ppo: PPOSection, lora: LoraSection) -> HealthSettings:
        """Take them from two sections of a recipe."""
        return cls(
            batch_size_episodes=ppo.batch_size_episodes,
            temperature=ppo.sampling.temperature,
            max_new_tokens=ppo.sampling.max_new_tokens,
            lora_dropout=lora.dropout,
            warmup_value_updates=ppo.warmup_value_updates,
        )


@dataclass(frozen=True)
class History:
    """All updates so far, the latest last. Look-ups raise ``NotLogged`` where there is not enough."""

    rows: Sequence[MetricsRow]
    settings: HealthSettings

    def now(self, key: str) -> float:
        """A metric of the latest update."""
        value = self.now_or(key, None)
        if value is None:
            raise NotLogged(key)
        return value

    def now_or(self, key: str, default: Default) -> float | Default:
        """A metric of the latest update, or ``default`` where it is missing or not finite."""
        value = self.rows[-1].get(key, math.nan)
        return value if math.isfinite(value) else default

    def values(self, key: str, *, at_least: int = 1) -> list[float]:
        """A metric at every update that has it, the latest among them."""
        self.now(key)
        found = [row[key] for row in self.rows if math.isfinite(row.get(key, math.nan))]
        if len(found) < at_least:
            raise NotLogged(key)
        return found

    def before(self, key: str, n: int) -> list[float]:
        """A metric at the ``n`` updates before the latest, as far as they have it."""
        found = (row.get(key, math.nan) for row in self.rows[-1 - n : -1])
        return [value for value in found if math.isfinite(value)]

    def start_and_recent(self, key: str) -> tuple[float, float]:
        """Means of a metric over the first and over the latest updates, which do not overlap."""
        found = self.values(key, at_least=START_UPDATES + RECENT_UPDATES)
        return statistics.fmean(found[:START_UPDATES]), statistics.fmean(found[-RECENT_UPDATES:])
