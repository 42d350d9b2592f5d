"""Manifests: what each finished stage made and was made from, file by file, and whether that is still so.

``manifest.json`` in a stage's folder holds ``files`` (place in the folder -> SHA-256, ``result.json`` included),
``inputs`` (path of a file or folder outside the run -> the same of what it held), ``named`` (further files that the
stage's settings name, so that they are known again where they have moved) and ``paths`` (relative path of a setting ->
where it led). What the stage read of the run itself
is in ``made_from`` of its result. Stages are named by their place in the run: ``sft``, ``round-1/ppo``.

A file is read again only where its size, times or inode are others than when it was last read, as git's index does it;
copying or touching changes those, not the contents. A stamp of the last seconds before a reading is never trusted, for
a later change may bear the same.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.files import json_text, read_object, resolve, write_json, write_text
from alignment.run.look import Look, same

RESULT = "result.json"
"""Written last, and atomically: a stage folder with one is finished."""
MANIFEST = "manifest.json"
NOT_LOOKED_AT = {MANIFEST, "checkpoints", "__pycache__", ".DS_Store"}
"""Names of files and folders that are no part of what a stage made."""
RECENT_NS = 2 * 10**9
"""Times of files are as coarse as two seconds on some file systems."""


class Manifests:
    """The manifests of a run's stages."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def of(self, stage: str) -> dict[str, Any] | None:
        """A stage's manifest; ``None`` for one that is not finished, or from a version that wrote none."""
        file = self.root / stage / MANIFEST
        is_there = file.is_file() and (self.root / stage / RESULT).is_file()
        return read_object(file, "files", "inputs") if is_there else None

    def edited(self, stage: str, *, read: bool = False) -> list[str]:
        """Which files of a stage have changed since it made them, are gone or are new; in words.

        Args:
            stage: its place in the run.
            read: read every byte, even of files whose size, times and inode are the same.
        """
        manifest = self.of(stage)
        if manifest is None:
            return []
        hashes = self._hashes()
        found = differences(manifest["files"], contents(self.root / stage, hashes, read=read))
        hashes.save()
        return found

    def check_unedited(self, stage: str) -> None:
        """Raise ``UserError`` where a finished stage, or one that it was made from, is no longer as it was made."""
        made_from = read_object(self.root / stage / RESULT).get("made_from", {})
        for place in (*made_from, stage):
            if found := self.edited(place):
                raise UserError(
                    f"{self.root / place} is not what its stage made: {', '.join(found)}. Put that back; or take it as "
                    f"meant: python -m stages.doctor --run {self.root} --accept {place}; or make the stage again with "
                    "overwrite=true."
                )

    def changed_inputs(self, stage: str, *, read: bool = False) -> list[str]:
        """The files and folders outside the run that a stage was made from, and that hold something else now.

        Those that are no longer where they were do not count.

        Args:
            stage: its place in the run; it has a manifest.
            read: read every byte.
        """
        hashes, changed = self._hashes(), []
        for name, before in (self.of(stage) or {"inputs": {}})["inputs"].items():
            path = Path(name)
            now = self._outside_the_run(path, hashes, read=read) if path.exists() else before
            if not same(path, before, now):
                found = differences(before, now)
                changed.append(name if path.is_file() else f"{name} ({', '.join(found)})")
        hashes.save()
        return changed

    def hold_the_same(self, stage: str, before: object, now: object) -> bool:
        """Whether two settings name a file or folder that a stage was made from, and another that holds the same.

        What the stages before it were made from counts too: reward models know the base by what SFT made of it.
        """
        if not (isinstance(before, str) and isinstance(now, str) and self.of(stage)):
            return False
        led = (self.of(stage) or {}).get("paths", {}).get(before, str(resolve(before).resolve()))
        held, there = self._outside(stage).get(led), resolve(now)
        return held is not None and there.exists() and self._holds(there, held)

    def leading_elsewhere(self, stage: str, texts: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Which relative paths of a stage's settings name another file than they did, since they are read elsewhere.

        Returns:
            Path -> where it led when the stage was made, where it leads now. Not those that lead to the same, or to
            what holds the same, or to nothing; none of a stage that did not write down where its paths led.
        """
        led = (self.of(stage) or {}).get("paths", {})
        now = {text: resolve(text).resolve() for text in texts if text in led}
        others = {text: there for text, there in now.items() if there.exists() and str(there) != led[text]}
        known = self._outside(stage) if others else {}
        return {
            text: (led[text], str(there))
            for text, there in others.items()
            if led[text] in known and not self._holds(there, known[led[text]])
        }

    def _outside(self, stage: str) -> dict[str, dict[str, str]]:
        """What a stage and those that it was made from read outside the run, and what their settings name."""
        made_from = read_object(self.root / stage / RESULT).get("made_from") or {}
        found: dict[str, dict[str, str]] = {}
        for place in (*made_from, stage):
            manifest = self.of(place) or {"inputs": {}}
            found |= {**manifest.get("named", {}), **manifest["inputs"]}
        return found

    def _holds(self, path: Path, held: Mapping[str, str]) -> bool:
        """Whether a file, by whatever name, or a folder holds just that."""
        hashes = self._hashes()
        found = self._outside_the_run(path, hashes)
        hashes.save()
        return same(path, held, found)

    def _outside_the_run(self, path: Path, hashes: KnownHashes, *, read: bool = False) -> dict[str, str]:
        """What a file or folder holds; of a folder that the run lies in, a model's, say, what is not the run's."""
        run, there = self.root.resolve(), path if path.is_file() else path.resolve()
        return contents(there, hashes, read=read, but=run if there in run.parents else None)

    def missing_inputs(self, stage: str) -> list[str]:
        """The files and folders outside the run that a stage was made from, and that are not there to be looked at."""
        return [name for name in (self.of(stage) or {"inputs": {}})["inputs"] if not Path(name).exists()]

    def look_at(self, files: Iterable[Path]) -> Look:
        """What is there now, at the names of files and folders."""
        hashes = self._hashes()
        led = {str(file.absolute()): file.resolve() for file in files}
        held = {str(path): self._outside_the_run(path, hashes) for path in dict.fromkeys(led.values())}
        hashes.save()
        return Look({name: str(path) for name, path in led.items()}, held)

    def write(
        self,
        folder: Path,
        result: Mapping[str, Any],
        *,
        inputs: Sequence[Path],
        named: Sequence[Path] = (),
        paths: Mapping[str, str] | None = None,
        begun_with: Look,
    ) -> None:
        """Finish a stage: write its manifest and, last of all, its result.

        Args:
            folder: where the stage was made.
            result: what ``result.json`` is to hold.
            inputs: files and folders outside the run that it was made from.
            named: further files that its settings name.
            paths: relative path that its settings name -> where it leads.
            begun_with: what files held when the stage began, which counts where they have changed since.
        """
        given, others = (
            dict(begun_with.at(path) or (str(path.resolve()), now.held[str(path.resolve())]) for path in paths)
            for paths, now in ((inputs, self.look_at(inputs)), (named, self.look_at(named)))
        )
        self._write(folder, result, {"inputs": given, "named": others, "paths": paths or {}}, self._hashes())

    def accept(self, stage: str) -> list[str]:
        """Take a stage's files as they are now; stages made from it are out of date then.

        Returns:
            Which were others, in words.

        Raises:
            UserError: there is no such finished stage, or it is from a version that wrote no manifest.
        """
        manifest = self.of(stage)
        if manifest is None:
            raise UserError(f"{self.root / stage}: no finished stage with a manifest; name one as round-1/ppo")
        found = self.edited(stage, read=True)
        if found:
            hashes, folder = self._hashes(), self.root / stage
            output = hashlib.sha256(json.dumps(contents(folder, hashes)).encode()).hexdigest()[:16]
            outside: dict[str, object] = {key: manifest[key] for key in ("inputs", "named", "paths") if key in manifest}
            self._write(folder, {**read_object(folder / RESULT), "output": output}, outside, hashes)
        return found

    def _write(
        self, folder: Path, result: Mapping[str, Any], outside: Mapping[str, object], hashes: KnownHashes
    ) -> None:
        text = json_text(result)
        files = contents(folder, hashes) | {RESULT: hashlib.sha256(text.encode()).hexdigest()}
        hashes.save()
        write_json(folder / MANIFEST, {"version": 1, "files": files, **outside})
        write_text(folder / RESULT, text)

    def _hashes(self) -> KnownHashes:
        return KnownHashes(self.root / ".hashes.json")


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


def contents(path: Path, hashes: KnownHashes, *, read: bool = False, but: Path | None = None) -> dict[str, str]:
    """Hashes of the files in a folder, by their place in it; of a file, under its name; of nothing, none.

    Args:
        path: a file or folder.
        hashes: what is known already, and what is found.
        read: read every byte.
        but: a folder whose files do not count.
    """
    if path.is_file():
        return {path.name: hashes.of(path, read=read)}
    inside = (file for file in sorted(path.rglob("*")) if file.is_file() and but not in file.parents)
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
