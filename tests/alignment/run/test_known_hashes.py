"""Hashes of files: read again where a stamp is another or too recent, and only there."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from alignment.run.manifest import RECENT_NS, KnownHashes, contents, differences

LONG_AGO_NS = time.time_ns() - 100 * RECENT_NS


class Reads:
    """How many files were read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        plain = hashlib.file_digest

        def counted(*arguments: Any) -> Any:
            self.count += 1
            return plain(*arguments)

        monkeypatch.setattr(hashlib, "file_digest", counted)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clock of the readings: an hour after whatever the tests write."""
    clock = [time.time_ns() + 3600 * 10**9]
    monkeypatch.setattr(time, "time_ns", lambda: clock[0])
    return clock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "data.jsonl"
    file.write_text("one\n")
    return file


def known(file: Path) -> KnownHashes:
    """As the next command finds it."""
    return KnownHashes(file.parent / ".hashes.json")


def look(file: Path, *, read: bool = False) -> str:
    hashes = known(file)
    found = hashes.of(file, read=read)
    hashes.save()
    return found


def test_the_hash_is_sha256_of_the_bytes(file: Path) -> None:
    assert look(file) == hashlib.sha256(b"one\n").hexdigest()


@pytest.mark.usefixtures("now")
def test_an_untouched_file_is_read_once(file: Path, reads: Reads) -> None:
    assert look(file) == look(file) == look(file)
    assert reads.count == 1
    look(file, read=True)
    assert reads.count == 2


@pytest.mark.usefixtures("now")
def test_a_touched_file_is_read_again_and_is_the_same(file: Path, reads: Reads) -> None:
    before = look(file)
    os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert look(file) == before
    assert reads.count == 2


@pytest.mark.usefixtures("now")
def test_a_change_of_equal_size_and_time_is_seen_by_its_inode_or_the_time_of_the_change(file: Path) -> None:
    os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
    before = look(file)
    file.write_text("two\n")
    os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
    assert look(file) != before


def test_a_recent_stamp_is_not_trusted(file: Path, reads: Reads, now: list[int]) -> None:
    """A later change within the same tick of the clock would bear the same stamp."""
    now[0] = max(file.stat().st_mtime_ns, file.stat().st_ctime_ns)
    look(file)
    look(file)
    assert reads.count == 2


def test_trust_begins_two_seconds_after_the_stamp(file: Path, reads: Reads, now: list[int]) -> None:
    stamp = max(file.stat().st_mtime_ns, file.stat().st_ctime_ns)
    now[0] = stamp + RECENT_NS
    look(file)
    look(file)
    assert reads.count == 2
    now[0] = stamp + RECENT_NS + 1
    look(file)
    look(file)
    assert reads.count == 3


@pytest.mark.parametrize("content", ["", "not json", "[1, 2]", '{"a": 3}'])
def test_what_is_known_may_be_lost_or_damaged(file: Path, content: str) -> None:
    before = look(file)
    (file.parent / ".hashes.json").write_text(content)
    assert look(file) == before


def test_what_is_gone_is_forgotten(file: Path) -> None:
    look(file)
    other = file.with_name("other.jsonl")
    other.write_text("x")
    file.unlink()
    look(other)
    assert str(file) not in (file.parent / ".hashes.json").read_text()


def test_every_file_of_a_folder_counts_whatever_its_suffix(tmp_path: Path) -> None:
    names = ["chat_template.jinja", "tokenizer.model", "vocab.tiktoken", "modeling_own.py", "merges", "a/b.safetensors"]
    for name in names:
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text(name)
    for name in ("manifest.json", "checkpoints/step-1/state", "x.tmp", "a/__pycache__/x.pyc"):
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text("")
    found = contents(tmp_path / "model", KnownHashes(tmp_path / "known"))
    assert found == {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    assert contents(tmp_path / "copy", KnownHashes(tmp_path / "known")) == found


def test_a_file_alone_and_nothing(file: Path) -> None:
    assert list(contents(file, known(file))) == ["data.jsonl"]
    assert contents(file.with_name("nothing"), known(file)) == {}


def test_differences_are_named_with_their_kind() -> None:
    assert differences({"a": "1", "b": "2", "c": "3"}, {"b": "2", "c": "4", "d": "5"}) == [
        "a is gone",
        "c has changed",
        "d is new",
    ]
