"""The whole chain with a person in it: ``stages.pipeline annotate.source=ui`` judged in Chromium, with keys only."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import OpenPage
from playwright.sync_api import Error, Page
from sqlalchemy import select

from alignment.data.records import Comparison, read_jsonl
from alignment.files import read_json
from annotation_ui.schema import comparison
from annotation_ui.store import Store

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300.0
COUNTS = {"helpfulness_pairs": 24, "safety_pairs": 24, "heldout_helpfulness_pairs": 8, "heldout_safety_pairs": 8}


@contextmanager
def pipeline(run: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The pipeline as a person starts it; gives it and the address that it prints."""
    counts = [f"annotate.{name}={count}" for name, count in COUNTS.items()]
    chosen = [f"run_dir={run}", "annotate.source=ui", "annotate.ui_port=0", *counts]
    command = [sys.executable, "-m", "stages.pipeline", "--config", "configs/smoke.yaml", *chosen]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    try:
        for line in process.stderr:
            said += line
            if found := re.search(r"waiting for people: open (\S+)", line):
                yield process, found.group(1)
                return
        raise AssertionError(f"the pipeline ended before it waited: {said}")
    finally:
        process.kill()


def judge(page: Page, process: subprocess.Popen[str], project: str) -> int:
    """Judge all that the queue has; returns how many."""
    address = page.url.split("?")[0]
    page.goto(f"{address}?project={project}")
    page.wait_for_function("() => document.body.innerText.includes('Guidelines')")
    done, deadline = 0, time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        body = page.inner_text("body")
        if "I understand" in body:
            page.keyboard.press("Enter")
        elif "queue has nothing more" in body:
            break
        elif "Both answers are complete" in body or re.search(r"Press 1 to 8", body):
            page.keyboard.press(str(1 + done % 8))
            if project == "safety":
                page.keyboard.press("qwe"[done % 3])
            before = page.inner_text("body")
            page.keyboard.press("Enter")
            page.wait_for_function("before => document.body.innerText !== before", arg=before)
            done += 1
        else:
            page.keyboard.press("n")
        page.wait_for_timeout(150)
    return done


@pytest.mark.slow
def test_people_stand_in_for_the_simulated_annotators(tmp_path: Path, open_page: OpenPage) -> None:
    run = tmp_path / "run"
    with pipeline(run) as (process, url):
        tab = open_page(url)
        tab.page.wait_for_url(re.compile(r"/(\?.*)?$"))
        for project in ("helpfulness", "safety"):
            try:
                judge(tab.page, process, project)
            except Error:  # once enough are there, the pipeline stops its server
                continue
        assert process.wait(SECONDS) == 0
    with Store(run / "annotation" / "annotations.db").read() as connection:
        judged = set(connection.execute(select(comparison.c.id).where(comparison.c.state == "judged")).scalars())
    folder = run / "round-1" / "annotate"
    written = {file.name: read_jsonl(file, Comparison)[0] for file in folder.glob("*comparisons.jsonl")}
    found = [record.collected.comparison_id for records in written.values() for record in records if record.collected]
    assert sorted(found) == sorted(judged)
    train = written["comparisons.jsonl"]
    result = read_json(run / "round-1" / "reward" / "result.json")["models"]
    assert result["helpfulness"]["n_train"] == sum(record.dimension == "helpfulness" for record in train) >= 24
    assert (run / "report.html").is_file()
