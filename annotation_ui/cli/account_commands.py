"""The commands on accounts: ``python -m annotation_ui users add``, ``password``, ``close``, ``qualify`` and others."""

from __future__ import annotations

import getpass
import secrets
import sys
from collections.abc import Callable

from alignment.errors import UserError
from annotation_ui import vocabulary
from annotation_ui.app_settings import AppSettings
from annotation_ui.cli.store_commands import Arguments, open_store, say
from annotation_ui.desk import training_and_test
from annotation_ui.store import accounts
from annotation_ui.store.database import Store
from annotation_ui.store.projects import project_named


def users(settings: AppSettings, arguments: Arguments) -> None:
    """Make, list, close accounts; reset their passwords and tests."""
    _USERS[arguments.what](open_store(settings, arguments.run), arguments)


def _add(store: Store, arguments: Arguments) -> None:
    if arguments.name == vocabulary.LOCAL_USER or vocabulary.is_simulated(arguments.name):
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
        training_and_test.waive(connection, account.id, project_named(connection, arguments.project), "admin")
    say(f"{arguments.name} may work in {arguments.project} without the test")


def _reset_test(store: Store, arguments: Arguments) -> None:
    with store.write() as connection:
        account = accounts.find(connection, arguments.name)
        training_and_test.reset(connection, account.id, project_named(connection, arguments.project))
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
