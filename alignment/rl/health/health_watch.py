"""Watches every update of PPO and names the likely cause when something is off.

``examine`` reads a whole history, ``HealthWatch`` goes along while it is made; both say the same. What is looked for,
and the thresholds, are in ``alignment.rl.health.health_checks``. Metrics are plain numbers by the names of
``metrics.jsonl``; there is no tensor here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alignment.rl.health.health_checks import CHECKS, Diagnosis, Severity
from alignment.rl.health.health_history import HealthSettings, History, MetricsRow, NotLogged

RECOVERY_UPDATES = 5
"""Updates without a finding after which it has recovered: a figure near its threshold is reported once, not daily."""


@dataclass(frozen=True)
class Finding:
    """One check that failed at one update: what was seen, why it may be, and what helps."""

    check: str
    update: int
    severity: Severity
    what: str
    likely_cause: str
    what_to_do: str

    def __str__(self) -> str:
        return (
            f"{self.severity} at update {self.update}, {self.check}: {self.what}. "
            f"Likely cause: {self.likely_cause}. What to do: {self.what_to_do}."
        )


class HealthWatch:
    """Goes along with a run: give it each update's metrics, get what is new."""

    def __init__(self, settings: HealthSettings, earlier: Sequence[MetricsRow] = ()) -> None:
        """Start, or go on after updates that were already reported.

        Args:
            settings: of the run.
            earlier: metrics of the updates before, where a run goes on.
        """
        self.settings = settings
        self.rows: list[MetricsRow] = []
        self._last_seen: dict[str, int] = {}
        for row in earlier:
            self.observe(row)

    def observe(self, row: MetricsRow) -> list[Finding]:
        """Findings that are new with this update; one that stays is reported again only after it had recovered."""
        self.rows.append(row)
        number = len(self.rows)
        update = int(row.get("update", number))
        new: list[Finding] = []
        for name, diagnosis in diagnose(self.rows, self.settings).items():
            if number - self._last_seen.get(name, -math.inf) > RECOVERY_UPDATES:
                new.append(
                    Finding(
                        check=name,
                        update=update,
                        severity=diagnosis.severity,
                        what=diagnosis.what,
                        likely_cause=diagnosis.likely_cause,
                        what_to_do=diagnosis.what_to_do,
                    )
                )
            self._last_seen[name] = number
        return new


def diagnose(rows: Sequence[MetricsRow], settings: HealthSettings) -> dict[str, Diagnosis]:
    """What every check says about the last of these updates, by the check's name; those that pass are left out."""
    history = History(rows, settings)
    found: dict[str, Diagnosis] = {}
    for name, check in CHECKS.items():
        try:
            diagnosis = check(history)
        except NotLogged:
            continue
        if diagnosis is not None:
            found[name] = diagnosis
    return found


def examine(rows: Sequence[MetricsRow], settings: HealthSettings) -> list[Finding]:
    """All findings of a whole history, in the order of its updates, each once until it had recovered.

    Args:
        rows: metrics of every update, as logged.
        settings: of the run.
    """
    watch = HealthWatch(settings)
    return [finding for row in rows for finding in watch.observe(row)]
