"""The whole chain with a person in it: ``stages.pipeline annotate.source=ui`` judged in Chromium, with keys only."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import OpenPage
from child_process import ChildProcess
from playwright.sync_api import Error, Page
from sqlalchemy import select

from alignment.data.jsonl_and_raw_rows import read_jsonl
from alignment.data.records import Comparison
from alignment.files import read_json
from annotation_ui.store.database import Store
from annotation_ui.store.tables import comparison

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 900.0
PATIENCE_MS = 60_000
COUNTS = {"helpfulness_pairs": 24, "safety_pairs": 24, "heldout_helpfulness_pairs": 8, "heldout_safety_pairs": 8}


@contextmanager
def pipeline(run: Path) -> Iterator[tuple[ChildProcess, str]]:
    """The pipeline as a person starts it; gives it and the address that it prints."""
    counts = [f"annotate.{name}={count}" for name, count in COUNTS.items()]
    chosen = [f"run_dir={run}", "annotate.source=ui", "annotate.ui_port=0", *counts]
    command = [sys.executable, "-m", "stages.pipeline", "--config", "configs/smoke.yaml", *chosen]
    log = run.with_name("pipeline.log")
    with (
        log.open("w") as told,
        ChildProcess(command, limit_seconds=LIMIT_SECONDS, cwd=ROOT, stderr=told, stdout=told) as process,
    ):
        while not (found := re.search(r"waiting for people: open (\S+)", log.read_text())):
            assert process.poll() is None, f"the pipeline ended before it waited: {log.read_text()}"
            time.sleep(0.5)
        yield process, found.group(1)


PHASE = "document.documentElement.dataset.phase"
TODAY = "document.querySelector('#progress').innerText"
IS_WRONG = "document.querySelector('#status').dataset.level === 'error'"


def judge(page: Page, project: str) -> None:
    """Judge all that a project's queue has, with keys."""
    page.goto(f"{page.url.split('?')[0]}?project={project}")
    done = 0
    while True:
        page.wait_for_function(f"() => ['warning', 'idle', 'open', 'empty'].includes({PHASE})", timeout=PATIENCE_MS)
        phase, today = page.evaluate(f"[{PHASE}, {TODAY}]")
        if phase == "empty":
            return
        keys = {"warning": ["Enter"], "idle": ["n"], "open": [str(1 + done % 8), "Enter"]}[phase]
        if phase == "open" and project == "safety":
            keys.insert(1, "qwe"[done % 3])
        done += phase == "open"
        for key in keys:
            page.keyboard.press(key)
        change = f"([phase, today]) => {PHASE} !== phase || {TODAY} !== today || {IS_WRONG}"
        page.wait_for_function(change, arg=[phase, today], timeout=PATIENCE_MS)
        if page.evaluate(IS_WRONG):  # not answered in time; where the server is gone, loading raises
            page.reload()


@pytest.mark.slow
def test_people_stand_in_for_the_simulated_annotators(tmp_path: Path, open_page: OpenPage) -> None:
    run = tmp_path / "run"
    with pipeline(run) as (process, url):
        tab = open_page(url)
        tab.page.wait_for_url(re.compile(r"/(\?.*)?$"))
        for project in ("helpfulness", "safety"):
            try:
                judge(tab.page, project)
            except Error:  # once enough are there, the pipeline stops its server
                continue
        assert process.wait() == 0
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
