"""Accounts: who may sign in, as what, and who they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from alignment.errors import UserError
from annotation_ui.store import assignments
from annotation_ui.store.database import Store, new_id, now
from annotation_ui.store.passwords import check_password, hash_password
from annotation_ui.store.tables import annotator, login_failure, login_session
from annotation_ui.vocabulary import AccountRole, Refused

LOCAL_USER = "local"
"""The account of the one person on this machine, while nobody has made others."""
SIMULATED = "sim-"
"""User names of simulated annotators begin with this; nobody else's do."""
_ACTIVE = select(annotator).where(annotator.c.id == bindparam("wanted"), annotator.c.active)
USERNAME = re.compile(r"[\w.@-]{1,64}")


@dataclass(frozen=True)
class Account:
    """Somebody who can sign in; ``id`` is the pseudonym that exports carry."""

    id: str
    username: str
    role: AccountRole


# -- accounts ---------------------------------------------------------------------------------------------------------


def add_account(store: Store, username: str, role: AccountRole, password: str) -> Account:
    """Make an account.

    Raises:
        UserError: the name is taken or has odd characters, or the password is short.
    """
    if not USERNAME.fullmatch(username):
        raise UserError(f"{username!r} cannot be a user name: letters, digits and . _ - @, at most 64")
    check_password(password)
    made = Account(new_id("ann"), username, role)
    with store.write() as connection:
        if account_row(connection, username) is not None:
            raise UserError(f"there is an account {username!r} already")
        connection.execute(
            insert(annotator).values(
                id=made.id,
                username=username,
                role=role,
                password_hash=hash_password(password),
                active=True,
                created_at=now(),
            )
        )
    return made


def set_password(store: Store, username: str, password: str) -> None:
    """Give an account another password; it is unlocked, and signed out everywhere."""
    check_password(password)
    with store.write() as connection:
        found = find(connection, username)
        values = {"password_hash": hash_password(password)}
        connection.execute(update(annotator).where(annotator.c.id == found.id).values(**values))
        connection.execute(delete(login_failure).where(login_failure.c.username == username))
        connection.execute(delete(login_session).where(login_session.c.annotator_id == found.id))


def set_active(store: Store, username: str, active: bool) -> None:
    """Let an account sign in, or not; one that may not is signed out everywhere at once.

    Raises:
        UserError: there is no such account, or its data was withdrawn, which holds for whatever it would judge.
    """
    with store.write() as connection:
        found = find(connection, username)
        if active and account_row(connection, username).withdrawn_at is not None:
            raise UserError(f"{username} has withdrawn, and nothing they judge would count. Make a new account.")
        connection.execute(update(annotator).where(annotator.c.id == found.id).values(active=active))
        connection.execute(delete(login_session).where(login_session.c.annotator_id == found.id))


def withdraw(store: Store, username: str) -> str:
    """Take somebody's data back: nothing of it is in any later export, and the account is closed; returns the id.

    What they had judged, or had on their desk, goes to others.
    """
    with store.write() as connection:
        found = find(connection, username)
        values = {"active": False, "withdrawn_at": now()}
        connection.execute(update(annotator).where(annotator.c.id == found.id).values(**values))
        assignments.give_back(connection, found.id)
        connection.execute(delete(login_session).where(login_session.c.annotator_id == found.id))
    return found.id


def find(connection: Connection, username: str) -> Account:
    """The account of that name; raise ``UserError`` listing those there are."""
    row = account_row(connection, username)
    if row is None:
        known = connection.execute(select(annotator.c.username).order_by(annotator.c.username)).scalars().all()
        raise UserError(f"there is no account {username!r}; there are: {', '.join(known) or 'none yet'}")
    return Account(row.id, row.username, row.role)


def find_by_id(connection: Connection, annotator_id: str) -> Account:
    """The active account with that id; raise ``Refused`` where there is none."""
    row = connection.execute(_ACTIVE, {"wanted": annotator_id}).one_or_none()
    if row is None:
        raise Refused("You are not signed in any more. Reload the page.")
    return Account(row.id, row.username, cast(AccountRole, row.role))


def is_simulated(username: str) -> bool:
    """Whether a user name is a simulated annotator's."""
    return username.startswith(SIMULATED)


def has_people(connection: Connection) -> bool:
    """Whether somebody has made accounts; those of the app itself do not count."""
    return any(name != LOCAL_USER and not is_simulated(name) for name in usernames(connection))


def usernames(connection: Connection) -> list[str]:
    """Names of the accounts that can sign in."""
    query = select(annotator.c.username).where(annotator.c.active).order_by(annotator.c.username)
    return list(connection.execute(query).scalars())


def all_accounts(connection: Connection) -> Sequence[Any]:
    """Rows of all accounts, by name."""
    return connection.execute(select(annotator).order_by(annotator.c.username)).all()


def account_row(connection: Connection, username: str) -> Any:
    """The row of an account by name; ``None`` without one."""
    return connection.execute(select(annotator).where(annotator.c.username == username)).one_or_none()
