"""What files and folders held at one time, so that what is recorded of a stage is what it read.

A stage reads its files before it begins, and for some hours after; in the meantime one may be edited, and a link may be
turned to another file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Contents = Mapping[str, str]
"""Place in a folder -> SHA-256; of a file, its name alone."""


@dataclass(frozen=True)
class Look:
    """What files and folders held, by the names that they were looked at under."""

    led: Mapping[str, str] = field(default_factory=dict)
    """Name -> the path that it led to."""
    held: Mapping[str, Contents] = field(default_factory=dict)
    """Path -> what was there."""

    def at(self, name: Path) -> tuple[str, Contents] | None:
        """The path that a name led to, and what was there; ``None`` for one that was not looked at."""
        path = self.led.get(str(name.absolute()), str(name.resolve()))
        return (path, self.held[path]) if path in self.held else None

    def others(self, now: Look) -> list[str]:
        """The names under which something else was found later.

        Args:
            now: the later look. What only one of the two looked at does not count.
        """
        found = []
        for name in map(Path, now.led):
            before, there = self.at(name), now.at(name)
            if before and there and not same(name, before[1], there[1]):
                found.append(str(name))
        return found


def same(path: Path, before: Contents, now: Contents) -> bool:
    """Whether a path holds what it held: a folder the same files, a file the same bytes, by whatever name."""
    return before == now or (path.is_file() and [*before.values()] == [*now.values()])
