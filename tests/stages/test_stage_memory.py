"""Memory stands in the report stage by stage: what one took is not counted for those after it."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Any

import pytest
from html_outline import outline
from stage_fixtures import reduced_recipe

from alignment.files import read_json
from stages.pipeline import run_stages

pytestmark = pytest.mark.integration

STAGES = ("base", "sft", "annotate", "reward", "rejection", "ppo", "evaluate")
GIB = 2**30


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a process's peak")
def test_a_stage_that_takes_much_is_the_only_one_that_took_it(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run_stages.WORK["sft"]

    def hungry(*given: Any) -> Any:
        with mmap.mmap(-1, GIB) as block:
            for place in range(0, GIB, mmap.PAGESIZE):
                block[place] = 1
        return plain(*given)

    monkeypatch.setitem(run_stages.WORK, "sft", hungry)
    report = run_stages.run(reduced_recipe(files, tmp_path / "run"))
    memory = report["memory_gib"]
    assert all(memory[name] > 0.1 for name in STAGES)
    assert report["peak_memory_gib"] == memory["sft"]
    assert all(memory["sft"] - memory[name] > 0.5 for name in STAGES if name != "sft")
    for name in ("base", "sft"):
        assert memory[name] == read_json(tmp_path / "run" / name / "result.json")["peak_memory_gib"]
    # The page shows each.
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    words = " ".join(word for word in outline(page).data if word.strip())
    for name in STAGES:
        seconds = f"{round(report['timings_s'][name])}\N{NO-BREAK SPACE}s"
        assert f"{name} {seconds} {memory[name]:.1f}" in " ".join(words.split(" ")), name
