"""A throw-away PostgreSQL server for tests, from the distribution's package; skipped where there is none.

    pytest_plugins = ("postgres",)

    def test_store(postgres_url):                      # a fresh database of the one server of this session
        engine = create_engine(postgres_url)

    def test_durability(postgres, postgres_url):
        postgres.kill_nine()
        postgres.start()                               # on the same data

It listens on a socket in a folder of its own and on no port. It writes to disk as in production (``fsync`` is on).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from child_process import ChildProcess
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

PROGRAMS = ("initdb", "postgres")
USER = "postgres"
LIMIT_SECONDS = 3600.0
"""Of the server, which all tests of a session share."""


def find_binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``: of the newest version that Debian has, else from PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    on_path = shutil.which("initdb")
    candidates = folders[::-1] + ([Path(on_path).resolve().parent] if on_path else [])
    return next((folder for folder in candidates if all((folder / name).exists() for name in PROGRAMS)), None)


def need_binaries() -> Path:
    """The same; where there are none, the test is skipped."""
    folder = find_binaries()
    if folder is None:
        pytest.skip("no PostgreSQL server: install the distribution's package `postgresql`")
    if _is_root() and USER not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip(f"PostgreSQL does not run as root, and there is no user {USER}")
    return folder


def _is_root() -> bool:
    return os.geteuid() == 0


@dataclass
class Postgres:
    """A server on data of its own; it runs as ``postgres`` where the tests run as root, whom it refuses."""

    binaries: Path
    folder: Path
    process: ChildProcess | None = None
    numbers: Iterator[int] = field(default_factory=count)

    def initialise(self) -> None:
        """Make the data folder."""
        if _is_root():
            shutil.chown(self.folder, USER)
        options = (f"--username={USER}", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
        with self._popen("initdb", f"--pgdata={self.folder / 'data'}", *options) as process:
            failed = process.wait()
        if failed:
            raise RuntimeError(f"initdb failed:\n{self.said()}")

    def start(self) -> None:
        """Start it, or start it again on the same data, and wait until it accepts connections."""
        self.process = self._popen("postgres", "-D", f"{self.folder / 'data'}", "-k", f"{self.folder}", "-h", "")
        deadline = time.monotonic() + 60
        while not self._accepts():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start:\n{self.said()}")
            time.sleep(0.02)

    def kill_nine(self) -> None:
        """Kill the server and all its processes at once, so that none of them can finish or write anything."""
        assert self.process is not None
        main = psutil.Process(self.process.pid)
        main.suspend()  # so that it starts none meanwhile
        family = [*main.children(recursive=True), main]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.end()
        psutil.wait_procs(family, timeout=20)
        self.process = None

    def stop(self) -> None:
        """Stop it for good. It is started first if it was killed, to clean up the shared memory that it left behind."""
        if self.process is None:
            self.start()
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        with suppress(subprocess.TimeoutExpired):  # what is left is killed by the next line
            self.process.wait(timeout=60)
        self.process.end()

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{USER}@/{database}?host={self.folder}&port=5432"

    def administer(self, statement: str) -> None:
        """Execute a statement outside any transaction, in the server's own database."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(statement))

    def said(self) -> str:
        """What it printed."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-5000:]

    def _accepts(self) -> bool:
        try:
            self.administer("SELECT 1")
        except OperationalError:
            return False
        return True

    def _popen(self, program: str, *arguments: str) -> ChildProcess:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
        other_user: Any = {"user": USER, "group": USER, "extra_groups": []} if _is_root() else {}
        with (self.folder / "log").open("ab") as log:
            return ChildProcess(
                [str(self.binaries / program), *arguments],
                limit_seconds=LIMIT_SECONDS,
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                **other_user,
            )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server of this session."""
    pytest.importorskip("psycopg", exc_type=ImportError)
    binaries = need_binaries()
    # Not below pytest's own folder: the server's user may not enter that.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = Postgres(binaries, Path(folder))
        server.initialise()
        server.start()
        yield server
        server.stop()


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database, dropped after the test with whatever is still connected to it."""
    if postgres.process is None:
        postgres.start()
    name = f"test_{next(postgres.numbers)}"
    postgres.administer(f"CREATE DATABASE {name}")
    yield postgres.url(name)
    if postgres.process is not None:
        postgres.administer(f"DROP DATABASE {name} WITH (FORCE)")
