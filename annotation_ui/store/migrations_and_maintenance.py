"""What keeps the database sound: versions of its tables brought up to date, and what a server does beside serving.

A store of an earlier version is brought up to date when it is opened, in one transaction. What is done while a server
serves is done in a thread of its own, so that nobody's save waits for it.

To change the tables: change ``tables`` and ``rows``, raise ``tables.VERSION``, and add the step that leads there to
``STEPS``.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

from sqlalchemy import Connection, Engine, Integer, MetaData, Table, insert, inspect, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import Column

from alignment.errors import UserError
from annotation_ui.store import tables

STEPS: dict[int, Callable[[Connection], None]] = {}
"""Version -> what makes it out of the version before."""
_store_version = Table("store_version", MetaData(), Column("version", Integer, nullable=False))


def bring_up_to_date(connection: Connection) -> None:
    """Make the tables, or take the steps from the version that is there to the present one.

    Raises:
        UserError: the database is of a newer version, or holds something else.
    """
    there = inspect(connection).get_table_names()
    if _store_version.name not in there:
        if there:
            raise UserError(f"this database holds other tables: {', '.join(sorted(there)[:5])}. Name an empty one.")
        tables.metadata.create_all(connection)
        _store_version.create(connection)
        connection.execute(insert(_store_version).values(version=tables.VERSION))
        return
    version = connection.execute(select(_store_version.c.version)).scalar_one()
    if version > tables.VERSION:
        raise UserError(
            f"this store is of version {version}, made by a newer Tandem; this one reads up to {tables.VERSION}. "
            "Update Tandem."
        )
    for number in range(version + 1, tables.VERSION + 1):
        STEPS[number](connection)
        connection.execute(update(_store_version).values(version=number))


CHECKPOINT_SECONDS = 2.0
FIRST_ANALYZE_SECONDS, LAST_ANALYZE_SECONDS = 2.0, 3600.0
_log = logging.getLogger(__name__)


@contextmanager
def checkpoints(file: Path) -> Iterator[None]:
    """Move what is in SQLite's write-ahead log into the database from time to time: a commit need not."""

    def checkpoint() -> None:
        with closing(sqlite3.connect(file)) as raw:
            raw.execute("PRAGMA wal_checkpoint(PASSIVE)")

    with _again_and_again(checkpoint, lambda number: CHECKPOINT_SECONDS):
        yield


@contextmanager
def statistics(engine: Engine) -> Iterator[None]:
    """Have PostgreSQL look at the tables while they grow: its own look comes too late for a new collection.

    Without it, finding the next item reads everything that an annotator has had for each item of the queue. The time
    between two looks doubles, as what they find out changes ever less.
    """

    def analyze() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"ANALYZE {', '.join(tables.metadata.tables)}"))

    with _again_and_again(analyze, lambda number: min(FIRST_ANALYZE_SECONDS * 2**number, LAST_ANALYZE_SECONDS)):
        yield


@contextmanager
def _again_and_again(do: Callable[[], None], pause: Callable[[int], float]) -> Iterator[None]:
    """Do something in the background, ``pause(n)`` seconds before each time; what fails is logged and tried again."""
    over = threading.Event()

    def run() -> None:
        for number in count():
            if over.wait(pause(min(number, 60))):
                return
            try:
                do()
            except (sqlite3.Error, SQLAlchemyError) as error:
                _log.warning("upkeep of the annotation store: %s", error)

    thread = threading.Thread(target=run, name="upkeep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
