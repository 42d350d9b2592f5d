"""What files hold, by SHA-256: to tell whether a stage and what it was made from are still what they were.

A file is read again only where its size, times or inode are others than when it was last read, as git's index does it;
copying or touching changes those, not the contents. A stamp of the last seconds before a reading is never trusted, for
a later change may bear the same.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from alignment.files import write_text

MANIFEST = "manifest.json"
NOT_LOOKED_AT = {MANIFEST, "checkpoints", "__pycache__", ".DS_Store"}
"""Names of files and folders that are no part of what a stage made."""
RECENT_NS = 2 * 10**9
"""Times of files are as coarse as two seconds on some file systems."""


class KnownHashes:
    """Hashes of files that were read before, kept in a file that may be deleted at any time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, list[object]] = {}
        self._is_new = False
        with suppress(OSError, ValueError):
            known = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(known, dict):
                self._known = {key: row for key, row in known.items() if isinstance(row, list) and len(row) == 6}

    def of(self, file: Path, *, read: bool = False) -> str:
        """The hash of a file.

        Args:
            file: to be looked at.
            read: read it, whatever is known of it.
        """
        key, status = str(file.resolve()), file.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        *known, digest, read_at = self._known.get(key, (None, None))
        settled = isinstance(read_at, int) and max(status.st_mtime_ns, status.st_ctime_ns) + RECENT_NS < read_at
        if known == stamp and settled and not read:
            return str(digest)
        read_at = time.time_ns()
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        self._known[key], self._is_new = [*stamp, found, read_at], True
        return found

    def save(self) -> None:
        """Keep what is known of files that are still there; a run that cannot be written to does without."""
        if not self._is_new:
            return
        known = {key: value for key, value in self._known.items() if Path(key).exists()}
        with suppress(OSError):
            write_text(self._file, json.dumps(known))


def contents(path: Path, hashes: KnownHashes, *, read: bool = False) -> dict[str, str]:
    """Hashes of the files in a folder, by their place in it; of a file, under its name; of nothing, none.

    Args:
        path: a file or folder.
        hashes: what is known already, and what is found.
        read: read every byte.
    """
    if path.is_file():
        return {path.name: hashes.of(path, read=read)}
    inside = (file for file in sorted(path.rglob("*")) if file.is_file())
    places = ((file.relative_to(path), file) for file in inside)
    return {
        place.as_posix(): hashes.of(file, read=read)
        for place, file in places
        if not NOT_LOOKED_AT.intersection(place.parts) and file.suffix != ".tmp"
    }


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is another between two looks at a folder: each file, and in which way."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            how = "is gone" if name not in now else "is new" if name not in before else "has changed"
            found.append(f"{name} {how}")
    return found
