"""Who may sign in: accounts with salted scrypt hashes, lock-out after failures, and sessions that end.

A session is a random token in a cookie; the store knows its hash only, so that it survives a restart of the server
and is worth nothing to whoever reads a backup.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from alignment.errors import UserError
from annotation_ui import assignments
from annotation_ui.schema import annotator, login_failure, login_session
from annotation_ui.session import AccountRole, Refused
from annotation_ui.settings import AccountSettings
from annotation_ui.store import Store, in_minutes, new_id, now

_COST = {"n": 2**14, "r": 8, "p": 1}
"""Of scrypt: 16 MiB and some 50 ms a guess (RFC 7914)."""
MIN_PASSWORD = 8
LOCAL_USER = "local"
"""The account of the one person on this machine, while nobody has made others."""
SIMULATED = "sim-"
"""User names of simulated annotators begin with this; nobody else's do."""
_WRONG = "Wrong name or password."
_ACTIVE = select(annotator).where(annotator.c.id == bindparam("wanted"), annotator.c.active)
_SIGNED_IN = (
    select(annotator.c.id, annotator.c.username, annotator.c.role)
    .join(login_session, login_session.c.annotator_id == annotator.c.id)
    .where(
        login_session.c.token_sha256 == bindparam("token"),
        login_session.c.expires_at > bindparam("at"),
        annotator.c.active,
    )
)
_USERNAME = re.compile(r"[\w.@-]{1,64}")


@dataclass(frozen=True)
class Account:
    """Somebody who can sign in; ``id`` is the pseudonym that exports carry."""

    id: str
    username: str
    role: AccountRole


def hash_password(password: str, salt: bytes | None = None) -> str:
    """``scrypt$SALT$HASH``, hexadecimal; a fresh salt each time."""
    salt = salt or secrets.token_bytes(16)
    encoded = password.encode("utf-8", "surrogatepass")
    digest = _hashers().submit(hashlib.scrypt, encoded, salt=salt, **_COST).result()
    return f"scrypt${salt.hex()}${digest.hex()}"


@cache
def _hashers() -> ThreadPoolExecutor:
    """Two threads for all hashing: each thread that has done it once keeps its 16 MiB."""
    return ThreadPoolExecutor(2, thread_name_prefix="password")


def is_password(password: str, stored: str) -> bool:
    """Whether a password is the one of a stored hash, in a time that does not tell how much of it is right."""
    _, salt, _ = stored.split("$")
    return hmac.compare_digest(hash_password(password, bytes.fromhex(salt)), stored)


# -- accounts ---------------------------------------------------------------------------------------------------------


def add_account(store: Store, username: str, role: AccountRole, password: str) -> Account:
    """Make an account.

    Raises:
        UserError: the name is taken or has odd characters, or the password is short.
    """
    if not _USERNAME.fullmatch(username):
        raise UserError(f"{username!r} cannot be a user name: letters, digits and . _ - @, at most 64")
    check_password(password)
    made = Account(new_id("ann"), username, role)
    with store.write() as connection:
        if _row(connection, username) is not None:
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


def check_password(password: str) -> None:
    """Raise ``UserError`` for a password that is too short."""
    if len(password) < MIN_PASSWORD:
        raise UserError(f"the password needs at least {MIN_PASSWORD} characters")


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
        if active and _row(connection, username).withdrawn_at is not None:
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
    row = _row(connection, username)
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


def _row(connection: Connection, username: str) -> Any:
    return connection.execute(select(annotator).where(annotator.c.username == username)).one_or_none()


# -- signing in -------------------------------------------------------------------------------------------------------


def sign_in(store: Store, settings: AccountSettings, username: str, password: str) -> str:
    """Check name and password; returns the token of a new session.

    Raises:
        Refused: they are wrong, or the account is locked after too many failures; an unknown name looks like a
            wrong password.
    """
    if not _USERNAME.fullmatch(username):  # nobody's, and not to be stored
        is_password(password, _nobody())
        raise Refused(_WRONG)
    with store.read() as connection:
        failures = connection.execute(select(login_failure).where(login_failure.c.username == username)).one_or_none()
        row = _row(connection, username)
    _check_unlocked(settings, failures)
    known = row is not None and row.active
    if not (is_password(password, row.password_hash if known else _nobody()) and known):
        _note_failure(store, settings, username)
        raise Refused(_WRONG)
    with store.write() as connection:
        same = login_failure.c.username == username  # others may have guessed while this hash was made
        _check_unlocked(settings, connection.execute(select(login_failure).where(same)).one_or_none())
        connection.execute(delete(login_failure).where(same))
    return begin_session(store, settings, row.id)


def _check_unlocked(settings: AccountSettings, failures: Any | None) -> None:
    if _counted(failures) >= settings.max_failures:
        raise Refused(f"Too many wrong passwords. Try again in {settings.lock_minutes:g} minutes, or ask an admin.")


def begin_session(store: Store, settings: AccountSettings, annotator_id: str) -> str:
    """A new session of an account; returns its token."""
    token = secrets.token_urlsafe(32)
    with store.write() as connection:
        connection.execute(delete(login_session).where(login_session.c.expires_at < now()))
        connection.execute(
            insert(login_session).values(
                token_sha256=_digest(token),
                annotator_id=annotator_id,
                created_at=now(),
                expires_at=in_minutes(60 * settings.session_hours),
            )
        )
    return token


def whose(store: Store, token: str | None) -> Account | None:
    """Whose session a token is, if it has not ended."""
    if not token:
        return None
    with store.read() as connection:
        row = connection.execute(_SIGNED_IN, {"token": _digest(token), "at": now()}).one_or_none()
    return None if row is None else Account(row.id, row.username, row.role)


def sign_out(store: Store, token: str | None) -> None:
    """End a session."""
    with store.write() as connection:
        connection.execute(delete(login_session).where(login_session.c.token_sha256 == _digest(token or "")))


def _counted(failures: Any | None) -> int:
    """How many failures have not been forgotten yet."""
    return int(failures.failures) if failures is not None and (failures.locked_until or "") > now() else 0


def _note_failure(store: Store, settings: AccountSettings, username: str) -> None:
    """Count a failure, whoever's name it was; those that count no longer go, so that no flood of names stays."""
    with store.write() as connection:
        same = login_failure.c.username == username
        row = connection.execute(select(login_failure).where(same)).one_or_none()
        failures = 1 + _counted(row)
        forgotten = login_failure.c.locked_until.is_(None) | (login_failure.c.locked_until < now())
        connection.execute(delete(login_failure).where(same | forgotten))
        until = in_minutes(settings.lock_minutes)
        connection.execute(insert(login_failure).values(username=username, failures=failures, locked_until=until))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@cache
def _nobody() -> str:
    """Compared with where there is no such account, so that this takes as long."""
    return hash_password("nobody", bytes(16))
