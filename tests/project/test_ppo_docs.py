"""docs/ppo.md points at what it says it points at."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from stage_fixtures import ROOT

PAGE = ROOT / "docs" / "ppo.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINKS = sorted(set(re.findall(r"\]\(\.\./([\w/.]+)#L(\d+)\)", TEXT)))


@pytest.mark.parametrize(("file", "number"), LINKS)
def test_line_links_lead_to_a_definition(file: str, number: str) -> None:
    line = (ROOT / file).read_text(encoding="utf-8").splitlines()[int(number) - 1]
    assert re.match(r"\s*(def|class|for|CHECKS)\b", line), line


def test_there_are_links_for_all_six_steps() -> None:
    lines = (ROOT / "alignment" / "rl" / "ppo.py").read_text(encoding="utf-8").splitlines()
    for step in ("sample", "score", "gate", "token_rewards", "advantages", "update"):
        number = next(place for place, line in enumerate(lines, 1) if f"def {step}(" in line)
        assert ("alignment/rl/ppo.py", str(number)) in LINKS, step


def test_every_test_of_the_trap_table_exists() -> None:
    table = TEXT.partition("## Traps")[2]
    for name in re.findall(r"`(tests/\w+\.py)(?:::\w+)?`", table):
        assert (ROOT / name).is_file(), name
    tests = (Path(__file__).parents[1] / "alignment" / "rl" / "test_ppo_invariants.py").read_text(encoding="utf-8")
    for number in re.findall(r"\bI(\d\d)\b", table):
        assert f"class TestInvariant{number}" in tests
