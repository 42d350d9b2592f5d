"""A short run of the load benchmark on both databases, and what it would notice: rows lost, doubled, wrong, shared."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import child_process
import pytest
from annotation_fixtures import Office, Person, app_settings, only
from load_kit import BENCHMARKS, clients, load, served
from sqlalchemy import insert

from annotation_ui.store import tables
from annotation_ui.store.database import Store

NOTHING_WRONG = {"lost": 0, "wrong": 0, "doubled": 0, "shared": 0, "extra": 0}


def counts(compared: Any) -> dict[str, int]:
    return {name: getattr(compared, name) for name in NOTHING_WRONG}


# -- the benchmark itself ---------------------------------------------------------------------------------------------


def bench(*options: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / "annotation_load.py"), *options]
    done = child_process.run(command)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.integration
def test_what_is_acknowledged_is_in_the_store_once(database: str) -> None:
    found = bench("--sessions=4", "--judgments=5", "--think-seconds=0.05", "--resend-every=2", f"--database={database}")
    assert {name: found[name] for name in NOTHING_WRONG} == NOTHING_WRONG
    # Two of the five of each are sent twice, of which the first at the same time, and so without a time of its own.
    assert (found["acknowledged"], found["resent"], found["timed"]) == (20, 8, 16)
    assert (found["requests_failed"], found["went_wrong"]) == (0, [])
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert found["outgoing"] == []
    assert found["torch_loaded"] is False
    assert found["database"] == ("PostgreSQL" if "://" in database else "SQLite")


@pytest.mark.integration
def test_asked_to_stop_the_server_leaves_nothing_behind(tmp_path: Path) -> None:
    database = tmp_path / "annotations.db"
    served.prepare(str(database), people=1, items=1)
    server = served.Served(tmp_path, "--pairs-only", f"database={database}")
    server.start()
    process, address = server.process, tmp_path / "annotations.db.server.json"
    assert json.loads(address.read_text())["url"] == server.url
    server.stop()
    assert process is not None and process.returncode == 0
    assert not address.exists()
    assert not database.with_name("annotations.db-wal").exists()


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--postgres",)], ids=["sqlite", "postgresql"])
def test_nothing_is_lost_with_32_sessions(options: tuple[str, ...]) -> None:
    found = bench("--think-seconds=1", *options)
    assert {name: found[name] for name in NOTHING_WRONG} == NOTHING_WRONG
    assert (found["acknowledged"], found["resent"], found["requests_failed"]) == (960, 96, 0)


@pytest.mark.slow
def test_memory_with_32_sessions_of_sampled_pairs() -> None:
    found = bench("--memory")
    assert found["acknowledged"] == 160
    assert found["rss_mb_sessions_open"] < 400
    assert found["rss_mb"] < 400
    assert found["torch_loaded"] is False
    assert found["outgoing"] == []


# -- what it would notice ---------------------------------------------------------------------------------------------


@pytest.fixture
def office(sqlite_store: Store) -> Iterator[Office]:
    """Six items as the benchmark makes them, for two annotators each."""
    opened = Office(sqlite_store, app_settings({"overlap": 2}), live=False)
    opened.add_items([served.new_item(number) for number in range(6)])
    yield opened


def judge(who: Person, *, option: int = 3) -> Any:
    """Judge the next item; returns what an annotator's process would report of it."""
    view = who.view()
    view = view if view.phase == "open" else who.fetch()
    assert view.left is not None
    slot, item = clients.slot_and_item(view.left.text)
    who.judge(option)
    other = {"a": "b", "b": "a"}[slot]
    strengths = ("significantly_better", "better", "slightly_better", "negligibly_better")
    grade = (*strengths, *reversed(strengths))[option - 1]
    chosen = slot if option <= 4 else other
    return clients.Saved(who.account.username, item, str(view.submission_id), slot, chosen, grade, 1.0)


def test_all_is_well(office: Office) -> None:
    ada = office.person("ada")
    saved = [judge(ada, option=option) for option in (1, 4, 5, 8)]
    compared = load.compare(office.store, saved)
    assert (compared.acknowledged, counts(compared)) == (4, NOTHING_WRONG)
    assert compared.is_right


def test_a_row_that_is_not_there_is_lost(office: Office) -> None:
    saved = judge(office.person("ada"))
    other = replace(saved, submission_id="cmp_unknown.0")
    compared = load.compare(office.store, [saved, other])
    assert counts(compared) == {**NOTHING_WRONG, "lost": 1}
    assert not compared.is_right


def test_a_row_that_nobody_was_told_of_is_extra_and_no_fault(office: Office) -> None:
    ada = office.person("ada")
    judge(ada)
    compared = load.compare(office.store, [judge(ada)])
    assert counts(compared) == {**NOTHING_WRONG, "extra": 1}
    assert compared.is_right


@pytest.mark.parametrize("field", ["name", "item", "left", "chosen", "grade"])
def test_a_row_that_says_something_else_is_wrong(office: Office, field: str) -> None:
    saved = judge(office.person("ada"))
    other = {"name": "bea", "item": saved.item + 1, "grade": "better"}
    swapped = {name: {"a": "b", "b": "a"}[getattr(saved, name)] for name in ("left", "chosen")}
    changed = replace(saved, **{field: {**other, **swapped}[field]})
    compared = load.compare(office.store, [changed])
    assert counts(compared) == {**NOTHING_WRONG, "wrong": 1}
    assert not compared.is_right


def test_a_second_judgment_of_the_same_pair_is_doubled(office: Office) -> None:
    saved = judge(office.person("ada"))
    row = only(office.store, tables.judgment)
    again = {**row._mapping, "id": row.id + 1, "submission_id": f"{row.submission_id}x", "supersedes": row.id}
    with office.store.write() as connection:
        connection.execute(insert(tables.judgment).values(**again))
    compared = load.compare(office.store, [saved])
    assert counts(compared) == {**NOTHING_WRONG, "doubled": 1, "extra": 1}
    assert not compared.is_right


def test_one_submission_reported_as_saved_twice_is_doubled(office: Office) -> None:
    saved = judge(office.person("ada"))
    assert counts(load.compare(office.store, [saved, saved])) == {**NOTHING_WRONG, "doubled": 1}


def test_an_item_that_two_people_got_is_shared(office: Office) -> None:
    saved = [judge(office.person(name)) for name in ("ada", "bea")]
    assert counts(load.compare(office.store, saved)) == {**NOTHING_WRONG, "shared": 1}


def test_percentiles_by_hand() -> None:
    values = [40.0, 10.0, 30.0, 20.0]
    assert [load.percentile(values, share) for share in (0.25, 0.26, 0.5, 0.95, 1)] == [10.0, 20.0, 20.0, 40.0, 40.0]
    assert load.percentile(list(range(1, 101)), 0.95) == 95
    assert load.percentile([], 0.5) is None


# -- what goes beyond this machine ------------------------------------------------------------------------------------

SENDS = """
import socket
from contextlib import suppress
def attempt(call, *arguments):
    with suppress(OSError):
        call(*arguments)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket(socket.AF_UNIX) as file:
    attempt(socket.getaddrinfo, "localhost", 80)
    attempt(socket.getaddrinfo, "127.0.0.1", 80)
    attempt(udp.connect, ("127.0.0.1", 9))
    attempt(file.connect, "/no/such/socket")
    attempt(socket.getaddrinfo, "198.51.100.1", 80)
    attempt(udp.connect, ("198.51.100.2", 9))
    attempt(socket.gethostbyname, "198.51.100.3")
"""


def test_attempts_to_leave_this_machine_are_noted(tmp_path: Path) -> None:
    log = tmp_path / "outgoing.log"
    watched = {"PYTHONPATH": str(BENCHMARKS / "outgoing"), "OUTGOING_LOG": str(log)}
    child_process.run([sys.executable, "-c", SENDS], env={**os.environ, **watched}, check=True)
    assert log.read_text().splitlines() == [
        "socket.getaddrinfo 198.51.100.1",
        "socket.connect 198.51.100.2",
        "socket.gethostbyname 198.51.100.3",
    ]
