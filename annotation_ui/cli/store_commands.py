"""Which store a command works on, and the commands on the store itself: accounts, backups."""

from __future__ import annotations

import argparse
import getpass
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from alignment.errors import UserError
from annotation_ui.app_settings import AppSettings
from annotation_ui.desk import preparation
from annotation_ui.desk.preparation import keep_projects
from annotation_ui.store import accounts
from annotation_ui.store.database import Store
from annotation_ui.store.projects import project_named

console = Console(stderr=True)
Arguments = argparse.Namespace


def say(message: str) -> None:
    """One line on standard error."""
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def database_of(settings: AppSettings, run: Path | None) -> str:
    """Where the store is: as the settings say, else in the run folder.

    Raises:
        UserError: neither is given, or there is no such run.
    """
    if settings.database is not None:
        return settings.database
    if run is None:
        raise UserError("which store? Give --run RUN, or database=FILE (or a PostgreSQL URL).")
    if not run.is_dir():
        raise UserError(f"no such run folder: {run}. Make one with python -m stages.sft run_dir={run}")
    return str(run / "annotation" / "annotations.db")


def open_store(settings: AppSettings, run: Path | None) -> Store:
    """The store, made where there is none, with the projects of the settings; those that it has stay as they are."""
    store = Store(database_of(settings, run))
    keep_projects(store, settings, change=False)
    return store


def known_store(settings: AppSettings, run: Path | None) -> Store:
    """The store, to be read.

    Raises:
        UserError: there is none.
    """
    database = database_of(settings, run)
    if "://" not in database and not Path(database).is_file():
        raise UserError(f"there is no annotation store {database}: serve the app first, or give its --run or database=")
    return Store(database)


# -- users ------------------------------------------------------------------------------------------------------------


def users(settings: AppSettings, arguments: Arguments) -> None:
    """Make, list, close accounts; reset their passwords and tests."""
    _USERS[arguments.what](open_store(settings, arguments.run), arguments)


def _add(store: Store, arguments: Arguments) -> None:
    if arguments.name == accounts.LOCAL_USER or accounts.is_simulated(arguments.name):
        raise UserError(f"{arguments.name!r} is a name that the app itself uses; choose another")
    password, notice = _new_password(arguments)
    account = accounts.add_account(store, arguments.name, arguments.role, password)
    say(f"added {account.role} {account.username}, pseudonym {account.id}{notice}")


def _password(store: Store, arguments: Arguments) -> None:
    password, notice = _new_password(arguments)
    accounts.set_password(store, arguments.name, password)
    say(f"{arguments.name} has a new password{notice}")


def _new_password(arguments: Arguments) -> tuple[str, str]:
    """The password to set, and how to tell whoever made it up where that was this program."""
    if arguments.password_stdin:
        return sys.stdin.readline().rstrip("\n"), ""
    if sys.stdin.isatty():
        typed = getpass.getpass("Password (empty: make one up): ")
        if typed:
            if getpass.getpass("Once more: ") != typed:
                raise UserError("the two passwords differ; nothing was changed")
            return typed, ""
    password = secrets.token_urlsafe(12)
    return password, f"; password, shown once: {password}"


def _close(store: Store, arguments: Arguments) -> None:
    accounts.set_active(store, arguments.name, False)
    say(f"{arguments.name} cannot sign in any more; their judgments stay")


def _reopen(store: Store, arguments: Arguments) -> None:
    accounts.set_active(store, arguments.name, True)
    say(f"{arguments.name} can sign in again")


def _withdraw(store: Store, arguments: Arguments) -> None:
    identifier = accounts.withdraw(store, arguments.name)
    say(f"{arguments.name} ({identifier}) is withdrawn: in no export from now on. Export again what you train on.")


def _qualify(store: Store, arguments: Arguments) -> None:
    with store.write() as connection:
        account = accounts.find(connection, arguments.name)
        preparation.waive(connection, account.id, project_named(connection, arguments.project), "admin")
    say(f"{arguments.name} may work in {arguments.project} without the test")


def _reset_test(store: Store, arguments: Arguments) -> None:
    with store.write() as connection:
        account = accounts.find(connection, arguments.name)
        preparation.reset(connection, account.id, project_named(connection, arguments.project))
    say(f"{arguments.name} may take the test of {arguments.project} again")


def _list(store: Store, arguments: Arguments) -> None:
    with store.read() as connection:
        for row in accounts.all_accounts(connection):
            state = "withdrawn" if row.withdrawn_at else "active" if row.active else "closed"
            print(f"{row.username}\t{row.role}\t{state}\t{row.id}")


_USERS: dict[str, Callable[[Store, Arguments], None]] = {
    "add": _add,
    "list": _list,
    "password": _password,
    "close": _close,
    "reopen": _reopen,
    "withdraw": _withdraw,
    "qualify": _qualify,
    "reset-test": _reset_test,
}


def backup(settings: AppSettings, arguments: Arguments) -> None:
    """Copy the store while it is in use."""
    store = known_store(settings, arguments.run)
    store.backup(arguments.to)
    say(f"{store.shown_name} is copied to {arguments.to}")
