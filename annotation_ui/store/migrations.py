"""Versions of the tables: a store of an earlier version is brought up to date when it is opened, in one transaction.

To change the tables: change ``tables`` and ``rows``, raise ``tables.VERSION``, and add the step that leads there to
``STEPS``.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, Integer, MetaData, Table, insert, inspect, select, update
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
