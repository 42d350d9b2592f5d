"""The processes that tests start: each has a limit, hears Ctrl-C, and takes along what it started."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import child_process
import psutil
import pytest
from child_process import ChildProcess

TESTS = Path(__file__).parents[1]
WAITS = "import time; print('started', flush=True); time.sleep(600)"


def test_one_that_runs_past_its_limit_is_killed_and_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="ran for more than its limit"):
        child_process.run([sys.executable, "-c", WAITS], limit_seconds=0.2)


def test_ctrl_c_is_heard_where_this_process_ignores_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ChildProcess([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None and process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait() == -signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_it_started_ends_with_it() -> None:
    parent = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {WAITS!r}]).pid, flush=True); input()"
    )
    with ChildProcess([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        grandchild = psutil.Process(int(process.stdout.readline()))
    gone, alive = psutil.wait_procs([grandchild], timeout=20)
    assert gone or alive[0].status() == psutil.STATUS_ZOMBIE


def test_what_it_printed_is_told_where_it_has_to_succeed() -> None:
    with pytest.raises(AssertionError, match=r"(?s)code 3:.*so it is"):
        child_process.run([sys.executable, "-c", "print('so it is'); raise SystemExit(3)"], check=True)


def test_no_test_starts_a_process_without_a_limit() -> None:
    starts = re.compile(r"subprocess\.(run|Popen|call|check_call|check_output)\(|os\.(system|fork)\(")
    allowed = {"child_process.py", Path(__file__).name}
    files = [file for file in TESTS.rglob("*.py") if file.name not in allowed]
    assert [file.name for file in files if starts.search(file.read_text(encoding="utf-8"))] == []
