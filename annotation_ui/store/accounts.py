"""Accounts: who may sign in, as what, and who they are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from alignment.errors import UserError
from annotation_ui import texts
from annotation_ui.store import assignments, tables
from annotation_ui.store.database import Store, new_id, now
from annotation_ui.store.passwords import check_password, hash_password
from annotation_ui.store.rows import AccountRow
from annotation_ui.vocabulary import LOCAL_USER, AccountRole, Refused, is_simulated

_ACTIVE = select(tables.annotator).where(tables.annotator.c.id == bindparam("wanted"), tables.annotator.c.active)
USERNAME = re.compile(r"[\w.@-]{1,64}")


@dataclass(frozen=True)
class Account:
    """Somebody who can sign in; ``id`` is the pseudonym that exports carry."""

    id: str
    username: str
    role: AccountRole


def add_account(store: Store, username: str, role: AccountRole, password: str) -> Account:
    """Make an account.

    Args:
        store: where.
        username: to sign in with.
        role: what the account may do.
        password: of any characters, long enough.

    Raises:
        UserError: the name is taken or has odd characters, or the password is short.
    """
    if not USERNAME.fullmatch(username):
        raise UserError(f"{username!r} cannot be a user name: letters, digits and . _ - @, at most 64")
    check_password(password)
    made = Account(new_id("ann"), username, role)
    with store.write() as connection:
        if account_by_name(connection, username) is not None:
            raise UserError(f"there is an account {username!r} already")
        connection.execute(
            insert(tables.annotator).values(
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
        account = _known(connection, username)
        values = {"password_hash": hash_password(password)}
        connection.execute(update(tables.annotator).where(tables.annotator.c.id == account.id).values(**values))
        connection.execute(delete(tables.login_failure).where(tables.login_failure.c.username == username))
        connection.execute(delete(tables.login_session).where(tables.login_session.c.annotator_id == account.id))


def set_active(store: Store, username: str, active: bool) -> None:
    """Let an account sign in, or not; one that may not is signed out everywhere at once.

    Raises:
        UserError: there is no such account, or its data was withdrawn, which holds for whatever it would judge.
    """
    with store.write() as connection:
        account = _known(connection, username)
        if active and account.withdrawn_at is not None:
            raise UserError(f"{username} has withdrawn, and nothing they judge would count. Make a new account.")
        connection.execute(update(tables.annotator).where(tables.annotator.c.id == account.id).values(active=active))
        connection.execute(delete(tables.login_session).where(tables.login_session.c.annotator_id == account.id))


def withdraw(store: Store, username: str) -> str:
    """Take somebody's data back: nothing of it is in any later export, and the account is closed; returns the id.

    What they had judged, or had on their desk, goes to others.
    """
    with store.write() as connection:
        account = _known(connection, username)
        values = {"active": False, "withdrawn_at": now()}
        connection.execute(update(tables.annotator).where(tables.annotator.c.id == account.id).values(**values))
        assignments.give_back(connection, account.id)
        connection.execute(delete(tables.login_session).where(tables.login_session.c.annotator_id == account.id))
    return account.id


def find(connection: Connection, username: str) -> Account:
    """The account of that name; raise ``UserError`` listing those there are."""
    known = _known(connection, username)
    return Account(known.id, known.username, known.role)


def _known(connection: Connection, username: str) -> AccountRow:
    account = account_by_name(connection, username)
    if account is None:
        names = [row.username for row in all_accounts(connection)]
        raise UserError(f"there is no account {username!r}; there are: {', '.join(names) or 'none yet'}")
    return account


def find_by_id(connection: Connection, annotator_id: str) -> Account:
    """The active account with that id; raise ``Refused`` where there is none."""
    row = connection.execute(_ACTIVE, {"wanted": annotator_id}).one_or_none()
    if row is None:
        raise Refused(texts.NOT_SIGNED_IN)
    return Account(row.id, row.username, row.role)


def has_people(connection: Connection) -> bool:
    """Whether somebody has made accounts; those of the app itself do not count."""
    return any(name != LOCAL_USER and not is_simulated(name) for name in usernames(connection))


def usernames(connection: Connection) -> list[str]:
    """Names of the accounts that can sign in."""
    query = select(tables.annotator.c.username).where(tables.annotator.c.active).order_by(tables.annotator.c.username)
    return list(connection.execute(query).scalars())


def all_accounts(connection: Connection) -> list[AccountRow]:
    """All accounts, by name."""
    rows = connection.execute(select(tables.annotator).order_by(tables.annotator.c.username))
    return [AccountRow._make(row) for row in rows]


def account_by_name(connection: Connection, username: str) -> AccountRow | None:
    """The account of a name, if there is one."""
    row = connection.execute(select(tables.annotator).where(tables.annotator.c.username == username)).one_or_none()
    return None if row is None else AccountRow._make(row)
