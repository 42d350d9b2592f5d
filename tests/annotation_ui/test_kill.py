"""kill -9 while annotators judge: what was acknowledged is on disk, and what was not can be sent again.

Each round kills the server, or the database's, at a random moment while several judgments are on their way, looks at
the disk, and starts it again at the same address. The annotators go on with the cookies of before. Two kills by
default, twenty among the slow tests (slow; ``--log-cli-level=INFO`` says where each kill struck).
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from load_kit import clients, load, served
from postgres import Postgres

from annotation_ui.store.database import Store

PATIENCE_SECONDS = 60.0
AT_ONCE = 6
"""Annotators; while the server is busy, each waits for an answer."""
logger = logging.getLogger(__name__)


@dataclass
class Rounds:
    """A server under load that is killed again and again.

    Attributes:
        server: the app's.
        crowd: the annotators' process.
        chance: of when to kill, and after how long.
        killed: what was killed, and how many judgments were acknowledged by then.
    """

    server: Any
    crowd: Any
    chance: random.Random
    killed: list[tuple[str, int]] = field(default_factory=list)

    def wait_for_progress(self) -> None:
        """Wait for some more judgments, and then for a random part of what one takes.

        By progress rather than by the clock, so that it is killed as often on a machine whose speed changes.
        """
        wanted = len(self.crowd.saved()) + self.chance.randint(1, 8)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.crowd.saved()) < wanted:
            assert self.crowd.at_work(), f"the annotators ended after {self.killed}: {self.crowd.tally()}"
            assert time.monotonic() < deadline, f"no progress after {self.killed}: {self.server.said()}"
            time.sleep(0.005)
        time.sleep(self.chance.uniform(0, 0.05))

    def kill(self, name: str, kill: Callable[[], None]) -> list[Any]:
        """Kill something while annotators wait; returns what had been acknowledged."""
        self.wait_for_progress()
        assert self.crowd.at_work(), "the annotators ended before the kill: give them more to do"
        kill()
        told = self.crowd.saved()
        self.killed.append((name, len(told)))
        return told

    def end(self, store: Store) -> None:
        """Let the annotators finish, and compare everything that they were told with the store."""
        tally = self.crowd.tally()
        compared = load.compare(store, self.crowd.saved())
        logger.info("killed %s; %s; %s", self.killed, tally, compared)
        assert tally["wrong"] == []
        # Several were waiting each time. All of them sent the same again, and nothing is there that nobody knows of.
        assert tally["repeated"] >= len(self.killed)
        assert (compared.is_right, compared.extra) == (True, 0)


@contextmanager
def under_load(folder: Path, database: str, *, judgments: int) -> Iterator[Rounds]:
    """A server with annotators at work."""
    names = served.prepare(database, people=AT_ONCE, items=AT_ONCE * (judgments + 1))
    server = served.Served(folder, "--pairs-only", f"database={database}")
    crowd = None
    try:
        server.start()
        plan = clients.Plan(server.url, names, served.PASSWORD, served.PROJECT, judgments, think_seconds=0.0, seed=1)
        crowd = load.Clients(folder, plan)
        yield Rounds(server, crowd, random.Random(os.environ.get("KILL_SEED", "0")))
    finally:
        server.stop()
        if crowd is not None:
            crowd.process.kill()
            crowd.process.wait()


def check_disk(database: Path, told: list[Any], folder: Path) -> None:
    """Look at what is on disk, in a copy, so that the server finds the files as they were left."""
    folder.mkdir()
    for file in database.parent.glob(f"{database.name}*"):
        if file.suffix in (".db", ".db-wal"):
            shutil.copy(file, folder)
    with closing(sqlite3.connect(folder / database.name)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    check_rows(str(folder / database.name), told)


def check_rows(database: str, told: list[Any]) -> None:
    """Every judgment that was acknowledged is there, as it was given, once."""
    with closing(Store(database)) as store:
        compared = load.compare(store, told)
    assert compared.acknowledged == len(told)
    assert compared.is_right, compared


def kill_on_sqlite(folder: Path, *, kills: int, judgments: int) -> None:
    database = folder / "store" / "annotations.db"
    with under_load(folder, str(database), judgments=judgments) as rounds:
        for number in range(kills):
            told = rounds.kill("app", rounds.server.kill_nine)
            check_disk(database, told, folder / f"after-{number}")
            rounds.server.start()
        with closing(Store(str(database))) as store:
            rounds.end(store)


def kill_on_postgres(folder: Path, postgres: Postgres, url: str, *, kills: int, judgments: int) -> None:
    """In turn: the app, the database under it, and both."""

    def kill_both() -> None:
        postgres.kill_nine()
        rounds.server.kill_nine()

    with under_load(folder, url, judgments=judgments) as rounds:
        victims = {"app": rounds.server.kill_nine, "database": postgres.kill_nine, "both": kill_both}
        for number in range(kills):
            name = list(victims)[number % len(victims)]
            told = rounds.kill(name, victims[name])
            if name != "app":
                postgres.start()
            check_rows(url, told)
            if name != "database":
                rounds.server.start()
        with closing(Store(url)) as store:
            rounds.end(store)


@pytest.mark.integration
def test_two_kills_lose_nothing(tmp_path: Path) -> None:
    kill_on_sqlite(tmp_path, kills=2, judgments=40)


@pytest.mark.slow
def test_ten_kills_lose_nothing(tmp_path: Path) -> None:
    kill_on_sqlite(tmp_path, kills=10, judgments=40)


@pytest.mark.slow
def test_ten_kills_with_postgres_lose_nothing(tmp_path: Path, postgres: Postgres, postgres_url: str) -> None:
    kill_on_postgres(tmp_path, postgres, postgres_url, kills=10, judgments=40)
