"""Plant wrong changes one by one, ask tests about each, and note every verdict at once, so that a stop loses only one.

Verdicts:

    caught        a test failed, or the code could no longer be imported or run
    survived      every test that was asked passed
    timed out     the limit came first; not counted as caught
    not reached   no test reaches the line
    gone          the old text is no longer in the function
    unclear       pytest could not do its work, or the test that failed fails without the change, too

This module is also a pytest plugin in the processes that run the tests. It takes the tests to run and their order from
a file, and notes what they say in another.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from mutant_anchors import Mutant
from mutant_copy import Copy
from mutant_server import NO_ANSWER, TestServer

LIMIT_S = 60.0
ASKED_AT, SAID_AT, SOURCE_AT, LIMIT_AT = "MUTANTS_ASKED", "MUTANTS_SAID", "MUTANTS_SOURCE", "MUTANTS_LIMIT_S"
FAILED, STOPPED_AT_IMPORT, BROKEN_PLUGIN, BROKEN_SETUP = 1, 2, 3, 4
"""Exit codes of pytest: a test failed; a test file, a module of fixtures, or a conftest.py could not be imported."""


@dataclass
class Answer:
    """What the tests that were asked about the tree said.

    Attributes:
        code: pytest's exit code, or ``None`` where the limit came first.
        seconds: how long it took.
        passed: how many tests passed.
        failed: the tests, or files of tests, that failed, each with the first line of why.
    """

    code: int | None
    seconds: float
    passed: int
    failed: dict[str, str]


class Bench:
    """A copy of the tree with a process that runs tests in it."""

    def __init__(self, root: Path, folder: Path, packages: Sequence[str]) -> None:
        self.copy, self.server = Copy(root, folder), TestServer(folder, packages)

    def ask(self, module: str, tests: Sequence[str], *, limit_s: float | None, all_of_them: bool = False) -> Answer:
        """Run tests, up to the first that fails.

        Args:
            module: a module that has to come from the copy.
            tests: node ids in their order.
            limit_s: how long they may take together.
            all_of_them: whether to go on after one failed.
        """
        asked, said, output, scratch = (self._beside(name) for name in ("asked", "said", "log", "tmp"))
        asked.write_text("\n".join(tests), encoding="utf-8")
        said.unlink(missing_ok=True)
        variables = {ASKED_AT: str(asked), SAID_AT: str(said), SOURCE_AT: module, LIMIT_AT: str(limit_s or 0)}
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        arguments = ["-q", "--tb=line", "-m", "", "-p", "no:cacheprovider", "-p", "mutant_verdicts"]
        arguments += [f"--basetemp={scratch}", "--continue-on-collection-errors" if all_of_them else "-x", *files]
        self.server.wait_until_ready()
        began = time.monotonic()
        code = self.server.pytest(arguments, variables=variables, limit_s=limit_s, output=output)
        seconds = time.monotonic() - began
        rows = [json.loads(line) for line in said.read_text(encoding="utf-8").splitlines()] if said.exists() else []
        failed = {row["test"]: row["why"] for row in rows if row["failed"]}
        return Answer(code, seconds, sum(not row["failed"] for row in rows), failed)

    def _beside(self, name: str) -> Path:
        return self.copy.folder.with_name(f"{self.copy.folder.name}.{name}")


@dataclass(frozen=True)
class Question:
    """A mutant with the tests to ask, in their order; a planted one with its number, and asked of one named test."""

    mutant: Mutant
    tests: tuple[str, ...]
    number: str = ""

    @property
    def key(self) -> tuple[Mutant, str]:
        return self.mutant, self.number


def verdict(bench: Bench, question: Question, *, limit_s: float) -> dict[str, Any]:
    """The row of one mutant: what it is, what came of it, and who caught it."""
    mutant, tests = question.mutant, question.tests
    row: dict[str, Any] = {**mutant.row(), "number": question.number, "verdict": "not reached"}
    row |= {"seconds": 0.0, "asked": len(tests), "passed": 0}
    if not tests:
        return row
    try:
        with bench.copy.planted(mutant):
            answer = bench.ask(mutant.module, tests, limit_s=limit_s)
    except LookupError:
        return row | {"verdict": "gone"}
    row |= {"seconds": round(answer.seconds, 1), "passed": answer.passed}
    match answer.code:
        case None:
            return row | {"verdict": "timed out"}
        case 0:
            return row | {"verdict": "survived"}
        case code if code in (FAILED, STOPPED_AT_IMPORT, BROKEN_PLUGIN, BROKEN_SETUP) or _crashed(code):
            who, why = next(
                iter(answer.failed.items()), (tests[answer.passed] if answer.passed < len(tests) else "", "")
            )
            return row | {"verdict": "caught", "caught_by": who, "why": why or f"pytest ended with code {code}"}
    return row | {"verdict": "unclear", "why": f"pytest ended with code {answer.code}"}


def _crashed(code: int) -> bool:
    """Whether a signal ended it that stands for a mistake of the program; a machine out of memory kills, too."""
    return code < 0 and -code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGBUS)


class Verdicts:
    """The rows that are known, in a file with one line each; its first line names the tree that they are about.

    Where the tree has changed since, all begins anew, or, with ``again``, all that was not caught.
    """

    def __init__(self, file: Path, tree: str, *, again: bool = False) -> None:
        self.file, self.rows = file, dict[tuple[Mutant, str], dict[str, Any]]()
        self.lock = threading.Lock()
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self.is_new_tree = bool(lines) and _object(lines[0]).get("tree") != tree
        rows = [row for row in map(_object, lines[1:]) if row]  # a line that was cut off by a stop is left out
        if again or not self.is_new_tree:
            latest = {_key(row): row for row in rows}
            self.rows = {key: row for key, row in latest.items() if not again or row["verdict"] == "caught"}
        file.parent.mkdir(parents=True, exist_ok=True)
        text = [json.dumps({"tree": tree}), *map(json.dumps, self.rows.values())]
        new = file.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
        new.replace(file)

    def add(self, row: dict[str, Any]) -> None:
        """Note one more; it is on the disk when this returns."""
        with self.lock, self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
            self.rows[_key(row)] = row


def _key(row: dict[str, Any]) -> tuple[Mutant, str]:
    return Mutant.of(row), row["number"]


def _object(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return {}


def ask_all(
    questions: Iterable[Question],
    verdicts: Verdicts,
    benches: Sequence[Bench],
    *,
    limit_s: float = LIMIT_S,
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
) -> None:
    """Find the verdicts that are missing, one mutant at a time on each bench.

    Args:
        questions: the mutants and whom to ask.
        verdicts: those that are known, and the file that takes the others.
        benches: as many mutants are asked at once.
        limit_s: for each mutant.
        on_row: hears of every new verdict.
    """
    free: SimpleQueue[Bench] = SimpleQueue()
    for bench in benches:
        free.put(bench)
    stopped = threading.Event()

    def one(question: Question) -> None:
        if stopped.is_set():
            return
        bench = free.get()
        try:
            row = verdict(bench, question, limit_s=limit_s)
        finally:
            free.put(bench)
        if not stopped.is_set():
            verdicts.add(row)
            on_row(row)

    with ThreadPoolExecutor(len(benches)) as pool:
        try:
            for waiting in [pool.submit(one, item) for item in questions if item.key not in verdicts.rows]:
                waiting.result()
        except BaseException:  # Ctrl-C among them: nothing new begins, and what is ended has no verdict
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for bench in benches:
                bench.server.end()
            raise


def check_without_changes(rows: Iterable[dict[str, Any]], bench: Bench) -> list[dict[str, Any]]:
    """Run all tests that caught something on the tree as it is; returns the rows of those that fail there, too."""
    caught = [row for row in rows if row["verdict"] == "caught" and row["caught_by"]]
    tests = list(dict.fromkeys(row["caught_by"] for row in caught))
    if not tests:
        return []
    answer = bench.ask(caught[0]["module"], tests, limit_s=None, all_of_them=True)
    if answer.code not in (0, FAILED, STOPPED_AT_IMPORT):
        raise SystemExit(f"the tests do not run without a change, either: pytest ended with code {answer.code}")
    return [row for row in caught if row["caught_by"] in answer.failed]


# -- in the process that runs the tests --------------------------------------------------------------------------------


def pytest_configure() -> None:
    """End with the limit even where nobody waits any more; refuse to test another tree's code."""
    if limit_s := float(os.environ.get(LIMIT_AT, 0)):
        signal.alarm(int(limit_s) + 5)
    top = Path(os.environ[SOURCE_AT]).parts[0]
    from importlib.util import find_spec

    found = find_spec(top.removesuffix(".py"))
    places = [*(found.submodule_search_locations or []), found.origin or ""] if found else []
    if not any(Path(place).is_relative_to(Path.cwd()) for place in places if place):
        pytest.exit(f"{top} would be imported from {places}, not from the copy", returncode=NO_ANSWER)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only what was asked for, in that order. A test that is named without its parameters stands for all of them."""
    named: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        for name in dict.fromkeys([item.nodeid, item.nodeid.partition("[")[0]]):
            named[name].append(item)
    asked = Path(os.environ[ASKED_AT]).read_text(encoding="utf-8").splitlines()
    chosen = list(dict.fromkeys(item for test in asked for item in named[test]))
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note each test that passed or failed."""
    if report.failed or (report.when == "call" and report.passed):
        _note(report.nodeid, report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note each test file that cannot be imported."""
    if report.failed:
        _note(report.nodeid, report)


def _note(test: str, report: pytest.TestReport | pytest.CollectReport) -> None:
    said = report.longreprtext.strip().splitlines()
    errors = [line.removeprefix("E").strip() for line in said if line.startswith("E ")]
    why = (errors or said or [""])[-1 if not errors else 0]
    with open(os.environ[SAID_AT], "a", encoding="utf-8") as file:
        file.write(json.dumps({"test": test, "failed": report.failed, "why": why[:200]}) + "\n")
