"""The lock of a run: one command at a time, taken again by whoever holds it, and let go for a while."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from held_run import held_by_another_process

from alignment.errors import UserError
from alignment.files import read_json
from alignment.run.run_folder import RunFolder


def test_a_second_process_is_kept_out_and_told_to_wait_for_whom(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as other:
        with pytest.raises(UserError) as refused, RunFolder(tmp_path).lock():
            pytest.fail("the lock was given twice")
        message = str(refused.value)
        assert f"in use by {Path(sys.executable).name} -c" in message
        assert f"(process {other.pid} on {socket.gethostname()}, since 20" in message
        assert message.endswith("Wait until it has ended.") and "overwrite" not in message
        other.stdin.close()
        other.wait(timeout=30)
    with RunFolder(tmp_path).lock():
        assert read_json(tmp_path / ".lock.json")["pid"] == os.getpid()


def test_what_a_killed_process_left_keeps_nobody_out(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as other:
        other.kill()
        other.wait(timeout=30)
    assert (tmp_path / ".lock.json").is_file()
    with RunFolder(tmp_path).lock():
        assert read_json(tmp_path / ".lock.json")["pid"] == os.getpid()


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt), folder.lock():
        raise KeyboardInterrupt
    assert not (tmp_path / ".lock.json").exists()
    with held_by_another_process(tmp_path):
        pass


def test_whoever_holds_it_takes_it_again_and_keeps_it_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with RunFolder("run").lock():
        with RunFolder(tmp_path / "run").lock():  # as a stage of a pipeline does
            pass
        assert (tmp_path / "run" / ".lock.json").is_file()
        with pytest.raises(AssertionError), held_by_another_process(tmp_path / "run"):
            pytest.fail("the lock was given twice")
    with held_by_another_process(tmp_path / "run"):
        pass


def test_let_go_others_may_have_it_and_afterwards_it_is_ours(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.lock(), folder.lock():
        with folder.let_go(), held_by_another_process(tmp_path):
            pass
        with pytest.raises(AssertionError), held_by_another_process(tmp_path):
            pytest.fail("the lock was given twice")


def test_whoever_finds_it_taken_after_letting_it_go_is_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(UserError, match="in use by"), ExitStack() as others, folder.lock():
        with folder.let_go():
            others.enter_context(held_by_another_process(tmp_path))
    with folder.lock():
        pass


def test_an_error_while_it_is_let_go_is_not_covered_up(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt), folder.lock(), folder.let_go():
        raise KeyboardInterrupt
    with held_by_another_process(tmp_path):
        pass
