"""The store: SQLite in one file by default, PostgreSQL by URL; transactions, versions, backups, one server a file.

Each write is one transaction that is on disk before it is acknowledged (SQLite: WAL, ``synchronous=FULL``). Writes of
one process stand in line behind a lock, so that none fails because another holds the database.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from secrets import token_hex
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from alignment.errors import UserError
from annotation_ui.store import migrations_and_maintenance

_SERVED = "7265912, hashtext(current_schema())"
"""Key of the PostgreSQL lock that servers of a store share."""
_IS_SERVED = text(
    "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database "
    "WHERE locktype = 'advisory' AND granted AND datname = current_database() AND objsubid = 2 "
    "AND classid = 7265912 AND objid = (hashtext(current_schema())::bigint & 4294967295)::oid)"
)
"""Looks at that lock without taking it, so that two who look do not see each other. Two keys: ``objsubid`` 2."""
_WAIT_MS = 30_000
"""How long a SQLite connection waits for another process that writes."""
_LOOK_SECONDS = 0.2
"""Who looks whether a SQLite file is served holds its lock for a moment, which is not to be taken for a server."""
_WAL_PAGES = 10_000
"""A commit makes a checkpoint itself only where nobody else did for so long (40 MB)."""


def now() -> str:
    """The present moment, ISO 8601 in UTC with milliseconds: text that sorts by time."""
    return in_minutes(0)


def in_minutes(minutes: float) -> str:
    """The moment so many minutes from now, written alike."""
    then = datetime.now(UTC) + timedelta(minutes=minutes)
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_id(kind: str) -> str:
    """An id that nobody can guess, such as ``cmp_9f…``."""
    return f"{kind}_{token_hex(12)}"


def storable(text: str) -> str:
    """Text as every database can hold it: zero bytes and halves of characters become replacement characters."""
    return text.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


class Store:
    """A database with the annotation tables.

    Args:
        database: a SQLite file, made if missing, or an SQLAlchemy URL of PostgreSQL.

    Raises:
        UserError: it cannot be opened, is not an annotation store, or is of a newer version.
    """

    def __init__(self, database: str | os.PathLike[str]) -> None:
        self.name = os.fspath(database)
        self.file = None if "://" in self.name else Path(self.name).resolve()
        self._writing = threading.RLock()
        try:
            self.engine = self._postgres() if self.file is None else _sqlite(self.file)
            with self.write() as connection:
                migrations_and_maintenance.bring_up_to_date(connection)
            if self.file is not None:
                _write_ahead(self.engine)
        except (DBAPIError, sqlite3.Error, ImportError, OSError) as error:
            raise UserError(f"{self.shown_name} cannot be opened as an annotation store: {_reason(error)}") from error

    @property
    def shown_name(self) -> str:
        """The file or URL, without a password."""
        return self.name if self.file else make_url(self.name).render_as_string(hide_password=True)

    def _postgres(self) -> Engine:
        if make_url(self.name).get_backend_name() != "postgresql":
            raise UserError(
                f"{self.shown_name}: give a SQLite file or a URL such as postgresql+psycopg://host/database"
            )
        return create_engine(self.name, pool_size=16, max_overflow=16, pool_pre_ping=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database throughout."""
        with self.engine.connect() as connection:
            if self.file is None:  # SQLite reads are like this anyway
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: committed to disk when the block ends, undone as a whole if it raises."""
        with self._writing if self.file else _no_lock(), self.engine.connect() as connection:
            connection.info["writes"] = True
            try:
                with connection.begin():
                    if self.file is None:
                        connection.execute(text("SELECT pg_advisory_xact_lock(7265911)"))
                    yield connection
            finally:
                connection.info["writes"] = False

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    # -- one server, backups -------------------------------------------------------------------------------------

    @contextmanager
    def serving(self, url: str) -> Iterator[None]:
        """Be the one server of a SQLite file, or one of a PostgreSQL database; ``url`` is told to whoever asks.

        Raises:
            UserError: another server has the file.
        """
        # PostgreSQL may have several: they share a lock.
        if self.file is None:
            with self.engine.connect() as connection:
                connection.execute(text(f"SELECT pg_advisory_lock_shared({_SERVED})"))
                connection.commit()  # the lock is the session's, not the transaction's
                try:
                    with migrations_and_maintenance.statistics(self.engine):
                        yield
                finally:
                    connection.execute(text(f"SELECT pg_advisory_unlock_shared({_SERVED})"))
            return
        # A SQLite file has one server: a lock beside it says so, and a file says where.
        lock = FileLock(f"{self.file}.lock")
        try:
            lock.acquire(timeout=_LOOK_SECONDS)
        except Timeout as error:
            raise UserError(
                f"{self.file} is served already, at {self.server_url() or 'another address'}. One server a file: "
                "use that one, or stop it first."
            ) from error
        place = self.file.with_name(f"{self.file.name}.server.json")
        try:
            place.write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
            with migrations_and_maintenance.checkpoints(self.file):
                yield
        finally:
            place.unlink(missing_ok=True)
            lock.release()

    def is_served(self) -> bool:
        """Whether a server has this store."""
        if self.file is None:
            with self.engine.connect() as connection:
                return bool(connection.execute(_IS_SERVED).scalar_one())
        lock = FileLock(f"{self.file}.lock")
        try:
            lock.acquire(timeout=_LOOK_SECONDS)
        except Timeout:
            return True
        lock.release()
        return False

    def server_url(self) -> str | None:
        """Where this file is served, as far as is known."""
        place = self.file.with_name(f"{self.file.name}.server.json") if self.file else None
        try:
            return str(json.loads(place.read_text(encoding="utf-8"))["url"]) if place else None
        except (OSError, ValueError, KeyError):
            return None

    def backup(self, target: Path) -> None:
        """Copy a SQLite store while it is in use, through SQLite's backup interface; the copy is whole or not there.

        Raises:
            UserError: the store is not SQLite, or ``target`` exists.
        """
        if self.file is None:
            raise UserError("back up PostgreSQL with pg_dump; this command is for SQLite")
        if target.exists():
            raise UserError(f"{target} exists. Name another file.")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        part.unlink(missing_ok=True)
        source, copy = sqlite3.connect(self.file), sqlite3.connect(part)
        try:
            source.backup(copy)
            (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
        except sqlite3.DatabaseError as error:
            verdict = str(error)
        finally:
            source.close()
            copy.close()
        if verdict != "ok":
            raise UserError(f"{self.file} is damaged: {verdict}. {part} is what could be read.")
        os.replace(part, target)


def _sqlite(file: Path) -> Engine:
    file.parent.mkdir(parents=True, exist_ok=True)
    wait = {"timeout": _WAIT_MS / 1000}
    engine = create_engine(URL.create("sqlite", database=str(file)), connect_args=wait, pool_size=16, max_overflow=32)

    @event.listens_for(engine, "connect")
    def set_up(raw: Any, record: Any) -> None:
        raw.isolation_level = None  # transactions begin below, not where the driver thinks
        for setting in (
            "synchronous=FULL",
            "foreign_keys=ON",
            "recursive_triggers=ON",
            f"busy_timeout={_WAIT_MS}",
            f"wal_autocheckpoint={_WAL_PAGES}",
        ):
            raw.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.info.get("writes") else "BEGIN")

    return engine


def _write_ahead(engine: Engine) -> None:
    """Keep a write-ahead log from now on: the file remembers. Only once it is known to be a store, not any database.

    The change wants the file for itself, and where another writes SQLite refuses at once, whatever ``busy_timeout``.
    """
    until = time.monotonic() + _WAIT_MS / 1000
    raw = engine.raw_connection()
    try:
        while True:
            try:
                raw.cursor().execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
    finally:
        raw.close()


@contextmanager
def _no_lock() -> Iterator[None]:
    yield


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "psycopg is not installed; pip install 'tandem-rlhf[postgres]'"
    if isinstance(error, OperationalError | DBAPIError):
        return str(error.orig).strip().splitlines()[0]
    return str(error)


@cache
def app_version() -> str:
    """The version that is written into each row."""
    try:
        return version("tandem-rlhf")
    except PackageNotFoundError:
        return "source"
