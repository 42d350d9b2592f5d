"""Record which tests reach which lines, for ``mutants.py``: make mutants-coverage, or

    python benchmarks/mutant_coverage.py -n 2 --dist loadfile             # all tests, as in ``make test``
    python benchmarks/mutant_coverage.py tests/alignment/rl/test_ppo.py   # those of one file again

All arguments are pytest's, but only whole test files are recorded. The tests run on a copy of the working tree. What
they reach is kept in ``.mutants/recording``, one file for each test file, so that recording some again leaves the
others.

A test reaches the lines that run while it is set up, called and torn down, and those that ran while a fixture that it
shares with others was set up, whose seconds count for it, too. What runs while a module is imported is nobody's, and so
is what runs in processes that a test starts. Only tests that pass are kept. A line is counted from the start of its
function, which is kept with a digest, so that a function that has moved is found again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mutant_anchors import digest, lines_of, scopes
from mutant_copy import Copy, end_like_ctrl_c
from mutant_server import environment

if TYPE_CHECKING:
    from coverage import Coverage

ROOT = Path(__file__).resolve().parents[1]
STATE = ".mutants"
"""The folder of recording, copies and verdicts, which git ignores."""
MEASURED = (
    "alignment/masks_padding_logprobs.py",
    "alignment/data/",
    "alignment/models/",
    "alignment/reward/",
    "alignment/rl/",
    "stages/",
)
RECORDING_AT = "MUTANTS_RECORDING"
PLACES = "MUTANTS_MEASURED"
Line = tuple[str, int]


def recording_file(folder: Path, test_file: str) -> Path:
    """Where the recording of a test file stands."""
    return folder / f"{test_file.replace('/', '.')}.json"


@cache
def functions_by_line(file: Path) -> dict[int, tuple[str, int, str]]:
    """Line -> name, first line and digest of the innermost function around it."""
    source = file.read_text(encoding="utf-8")
    found = {}
    for scope in scopes(source):  # inner ones come later
        owner = None if scope.is_class else (scope.name, scope.first, digest(lines_of(source, scope)))
        found.update(dict.fromkeys(range(scope.first, scope.last + 1), owner))
    return {line: owner for line, owner in found.items() if owner}


class Recorder:
    """A pytest plugin that measures lines in the process that runs the tests, under pytest-xdist in each worker."""

    def __init__(self, root: Path, folder: Path, places: Sequence[str]) -> None:
        from coverage import Coverage

        self.root, self.folder = root, folder
        include = [str(root / (f"{place}*" if place.endswith("/") else place)) for place in places]
        self.coverage: Coverage = Coverage(data_file=None, include=include, config_file=False)
        self.seconds: dict[str, float] = defaultdict(float)
        self.outcomes: dict[str, str] = {}
        self.shared: dict[str, list[str]] = {}
        """Test -> names of the contexts of the fixtures that it shares."""
        self.fixtures: dict[tuple[str, str], str] = {}
        """(name, node id) of each shared fixture that was set up -> its context."""
        self.fixtures_of: dict[str, frozenset[str]] = {}
        self.contexts: list[str] = []
        self.setup_seconds: dict[str, float] = {}
        """Context of a shared fixture -> how long its own setup took, without those that it asked for."""

    def pytest_sessionstart(self) -> None:
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.fixtures_of[item.nodeid] = frozenset(getattr(item, "fixturenames", ()))
        self.shared[item.nodeid] = []
        self.contexts = [item.nodeid]
        self.coverage.switch_context(item.nodeid)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: pytest.FixtureRequest) -> Iterator[None]:
        if fixturedef.scope == "function" or not self.contexts:
            return (yield)
        context = f"{request.node.nodeid} shares {fixturedef.argname}"
        self.fixtures[fixturedef.argname, request.node.nodeid] = context
        self.shared[self.contexts[0]].append(context)
        self.contexts.append(context)
        self.coverage.switch_context(context)
        before, began = sum(self.setup_seconds.values()), time.perf_counter()
        try:
            return (yield)
        finally:
            inner = sum(self.setup_seconds.values()) - before
            self.setup_seconds[context] = time.perf_counter() - began - inner
            self.contexts.pop()
            self.coverage.switch_context(self.contexts[-1])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.when == "call" or report.outcome != "passed":
            before = self.outcomes.get(report.nodeid, "passed")
            self.outcomes[report.nodeid] = report.outcome if before == "passed" else before

    def pytest_sessionfinish(self) -> None:
        self.coverage.stop()
        reached = self.reached()
        self.folder.mkdir(parents=True, exist_ok=True)
        for test_file in sorted({test.partition("::")[0] for test in self.outcomes}):
            text = json.dumps(self.recording(test_file, reached))
            recording_file(self.folder, test_file).write_text(text, encoding="utf-8")

    def reached(self) -> dict[str, set[Line]]:
        """Context -> the lines that ran in it."""
        data, found = self.coverage.get_data(), defaultdict(set)
        for file in data.measured_files():
            module = Path(file).relative_to(self.root).as_posix()
            for line, contexts in data.contexts_by_lineno(file).items():
                for context in contexts:
                    found[context].add((module, line))
        return found

    def recording(self, test_file: str, reached: dict[str, set[Line]]) -> dict[str, Any]:
        """What is kept of one test file."""
        tests = [test for test in self.outcomes if test.partition("::")[0] == test_file]
        passed = [test for test in tests if self.outcomes[test] == "passed"]
        functions: dict[str, Any] = defaultdict(dict)
        for number, test in enumerate(passed):
            for module, line in sorted(set().union(*(reached.get(name, ()) for name in self.contexts_of(test)))):
                if found := functions_by_line(self.root / module).get(line):
                    name, first, text = found
                    kept = functions[module].setdefault(name, {"digest": text, "lines": {}})
                    kept["lines"].setdefault(str(line - first), []).append(number)
        return {
            "test_file": test_file,
            "digest": digest((self.root / test_file).read_text(encoding="utf-8")),
            "tests": passed,
            "seconds": [round(self.seconds_of(test), 3) for test in passed],
            "failed": [test for test in tests if self.outcomes[test] == "failed"],
            "functions": functions,
        }

    def seconds_of(self, test: str) -> float:
        """How long a test takes alone: every shared fixture counts, whichever test it was set up for."""
        others = set(self.contexts_of(test)) - set(self.shared.get(test, ()))
        return self.seconds[test] + sum(self.setup_seconds.get(context, 0.0) for context in others)

    def contexts_of(self, test: str) -> list[str]:
        """The contexts whose lines a test reaches."""
        names = self.fixtures_of.get(test, frozenset())
        by_name = [
            context
            for (name, node), context in self.fixtures.items()
            if name in names and (not node or test == node or test.startswith((f"{node}::", f"{node}/")))
        ]
        return [test, *by_name, *self.shared.get(test, ())]


def pytest_configure(config: pytest.Config) -> None:
    """Where this module is a plugin: measure, but not in the process that only hands tests to others."""
    hands_out = bool(getattr(config.option, "numprocesses", None)) and not hasattr(config, "workerinput")
    if RECORDING_AT in os.environ and not hands_out:
        places = os.environ[PLACES].split(os.pathsep)
        config.pluginmanager.register(Recorder(config.rootpath, Path(os.environ[RECORDING_AT]), places))


def main(arguments: Sequence[str], root: Path = ROOT, places: Sequence[str] = MEASURED) -> int:
    """Record, and say what could not be."""
    if any("::" in argument or argument.startswith("-k") for argument in arguments):
        raise SystemExit("whole test files are recorded: a part of one would replace what is known of the rest")
    folder = root / STATE / "recording"
    copy = Copy(root, root / STATE / "copies" / "recorded")
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*.json")}
    variables = {RECORDING_AT: str(folder), PLACES: os.pathsep.join(places), "COVERAGE_CORE": "ctrace"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "mutant_coverage", *arguments]
    code = subprocess.run(command, cwd=copy.folder, env={**environment(copy.folder), **variables}).returncode
    new = [
        json.loads(file.read_text()) for file in folder.glob("*.json") if file.stat().st_mtime_ns != before.get(file)
    ]
    failed = [test for item in new for test in item["failed"]]
    print(f"recorded {sum(len(item['tests']) for item in new)} tests of {len(new)} files in {folder}")
    for test in failed:
        print(f"not recorded, since it failed: {test}")
    return int(code != 0 or not new)


if __name__ == "__main__":
    end_like_ctrl_c()
    sys.exit(main(sys.argv[1:]))
