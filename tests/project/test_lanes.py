"""What `make test-fast` leaves out is little."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_nine_tenths_of_the_tests_are_fast(collected: list[pytest.Item]) -> None:
    """Seen only where all tests were found: looking for them takes longer than any test may."""
    if not {item.path for item in collected} >= set((ROOT / "tests").rglob("test_*.py")):
        pytest.skip("only some of the test files were collected")
    [fast] = re.findall("^FAST := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    left_out = {word.removeprefix("not ") for word in fast.split(" and ")}
    assert {"slow", "gpu"} < left_out
    markers = [{mark.name for mark in item.iter_markers()} for item in collected]
    ordinary = [found for found in markers if not found & {"slow", "gpu"}]
    fast_ones = [found for found in ordinary if not found & left_out]
    assert len(fast_ones) >= 0.9 * len(ordinary), f"{len(fast_ones)} of {len(ordinary)} are fast"
