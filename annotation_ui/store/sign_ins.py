"""Signing in: lock-out after failures, and sessions that end."""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import Connection, bindparam, delete, insert, select

from annotation_ui import texts
from annotation_ui.app_settings import AccountSettings
from annotation_ui.store import tables
from annotation_ui.store.accounts import USERNAME, Account, account_by_name
from annotation_ui.store.database import Store, in_minutes, now
from annotation_ui.store.passwords import is_password, nobodys_hash
from annotation_ui.store.rows import LoginFailureRow
from annotation_ui.vocabulary import Refused

_FAILURE = select(tables.login_failure).where(tables.login_failure.c.username == bindparam("name"))
_SIGNED_IN = (
    select(tables.annotator.c.id, tables.annotator.c.username, tables.annotator.c.role)
    .join(tables.login_session, tables.login_session.c.annotator_id == tables.annotator.c.id)
    .where(
        tables.login_session.c.token_sha256 == bindparam("token"),
        tables.login_session.c.expires_at > bindparam("at"),
        tables.annotator.c.active,
    )
)


def sign_in(store: Store, settings: AccountSettings, username: str, password: str) -> str:
    """Check name and password; returns the token of a new session.

    Args:
        store: where accounts are.
        settings: when an account is locked, and how long a session lasts.
        username: as it was typed.
        password: as it was typed.

    Raises:
        Refused: they are wrong, or the account is locked after too many failures; an unknown name looks like a
            wrong password.
    """
    if not USERNAME.fullmatch(username):  # nobody's, and not to be stored
        is_password(password, nobodys_hash())
        raise Refused(texts.WRONG_PASSWORD)
    with store.read() as connection:
        _check_unlocked(connection, settings, username)
        account = account_by_name(connection, username)
    is_known = account is not None and account.active
    # A name that nobody has takes as long as one that somebody has.
    is_right = is_password(password, account.password_hash if account and is_known else nobodys_hash())
    if account is None or not is_known or not is_right:
        _note_failure(store, settings, username)
        raise Refused(texts.WRONG_PASSWORD)
    with store.write() as connection:
        _check_unlocked(connection, settings, username)  # others may have guessed while this hash was made
        connection.execute(delete(tables.login_failure).where(tables.login_failure.c.username == username))
    return begin_session(store, settings, account.id)


def _check_unlocked(connection: Connection, settings: AccountSettings, username: str) -> None:
    if _count_failures(connection, username) >= settings.max_failures:
        raise Refused(texts.LOCKED.format(minutes=settings.lock_minutes))


def begin_session(store: Store, settings: AccountSettings, annotator_id: str) -> str:
    """A new session of an account; returns its token."""
    token = secrets.token_urlsafe(32)
    with store.write() as connection:
        connection.execute(delete(tables.login_session).where(tables.login_session.c.expires_at < now()))
        connection.execute(
            insert(tables.login_session).values(
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
        connection.execute(
            delete(tables.login_session).where(tables.login_session.c.token_sha256 == _digest(token or ""))
        )


def _count_failures(connection: Connection, username: str) -> int:
    """How many failures have not been forgotten yet."""
    row = connection.execute(_FAILURE, {"name": username}).one_or_none()
    failure = None if row is None else LoginFailureRow._make(row)
    return failure.failures if failure is not None and (failure.locked_until or "") > now() else 0


def _note_failure(store: Store, settings: AccountSettings, username: str) -> None:
    """Count a failure, whoever's name it was; those that count no longer go, so that no flood of names stays."""
    with store.write() as connection:
        same = tables.login_failure.c.username == username
        failures = 1 + _count_failures(connection, username)
        forgotten = tables.login_failure.c.locked_until.is_(None) | (tables.login_failure.c.locked_until < now())
        connection.execute(delete(tables.login_failure).where(same | forgotten))
        until = in_minutes(settings.lock_minutes)
        connection.execute(
            insert(tables.login_failure).values(username=username, failures=failures, locked_until=until)
        )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
