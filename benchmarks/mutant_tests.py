"""Which tests to ask about a wrong change, by the recording of ``mutant_coverage.py``, and in which order.

A change in the body of a function is asked of the tests that reach its statement (of a compound one, its head). Where
the function has changed since the recording, of all that reach the function; so is a change in its head, defaults
among it. What stands outside of functions runs while the module is imported, and is asked of all tests that reach any
function of the module; of one without functions, of those that reach a module beside or below it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mutant_anchors import Mutant, digest, lines_of, place_of, scope_at, statement_at

CLASSES_S = (0.1, 1.0, 10.0)
"""Up to so many seconds a test is of one class; fast classes are asked first."""


class Recording:
    """What was recorded of test files that are still there."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, dict[str, list[tuple[str, dict[int, list[str]]]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        """Module -> function -> for each test file, the function's digest and its lines' tests."""
        self.changed: list[str] = []
        """Test files that have changed since."""
        self.gone: list[str] = []
        """Test files that are no longer there."""
        for file in sorted(folder.glob("*.json")):
            self._add(json.loads(file.read_text(encoding="utf-8")))

    def _add(self, kept: dict[str, Any]) -> None:
        test_file = self.root / kept["test_file"]
        if not test_file.is_file():
            self.gone.append(kept["test_file"])
            return
        if digest(test_file.read_text(encoding="utf-8")) != kept["digest"]:
            self.changed.append(kept["test_file"])
        tests = kept["tests"]
        self.seconds.update(zip(tests, kept["seconds"], strict=True))
        for module, functions in kept["functions"].items():
            for name, function in functions.items():
                lines = {int(line): [tests[number] for number in found] for line, found in function["lines"].items()}
                self.lines[module][name].append((function["digest"], lines))

    def unrecorded(self, test_files: Iterable[str]) -> list[str]:
        """Those test files of which nothing was recorded."""
        known = {test.partition("::")[0] for test in self.seconds}
        return [file for file in test_files if file not in known]

    def tests_for(self, mutant: Mutant, source: str) -> list[str]:
        """The tests that reach a change to ``source``, in the order in which they are to be asked."""
        first = source.count("\n", 0, place_of(mutant, source)) + 1
        last = first + mutant.old.rstrip("\n").count("\n")
        scope = scope_at(source, first)
        if scope is None or scope.is_class:
            beside = f"{Path(mutant.module).parent}/"
            modules = (
                [mutant.module] if mutant.module in self.lines else [m for m in self.lines if m.startswith(beside)]
            )
            found = [test for module in modules for name in self.lines[module] for test in self._tests_of(module, name)]
        elif first < scope.body:
            found = self._tests_of(mutant.module, scope.name)
        else:
            start, end = statement_at(source, first, last)
            lines = range(start - scope.first, end - scope.first + 1)
            found = self._tests_of(mutant.module, scope.name, digest(lines_of(source, scope)), lines)
        return self.in_order(found)

    def _tests_of(self, module: str, function: str, now: str = "", wanted: range | None = None) -> list[str]:
        """The tests that reach a function, or those of its lines that are wanted if it still is what was recorded."""
        return [
            test
            for recorded, lines in self.lines[module][function]
            for line, tests in lines.items()
            if wanted is None or recorded != now or line in wanted
            for test in tests
        ]

    def in_order(self, tests: Iterable[str]) -> list[str]:
        """Each test once: fast ones first, in four classes, and within a class those of a file together."""

        def place(test: str) -> tuple[int, str, float]:
            seconds = self.seconds.get(test, 0.0)
            return sum(seconds > limit for limit in CLASSES_S), test.partition("::")[0], seconds

        return sorted(set(tests), key=place)
