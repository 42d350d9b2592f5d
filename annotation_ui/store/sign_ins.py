"""Signing in: lock-out after failures, and sessions that end."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from sqlalchemy import bindparam, delete, insert, select

from annotation_ui.app_settings import AccountSettings
from annotation_ui.store.accounts import USERNAME, Account, account_row
from annotation_ui.store.database import Store, in_minutes, now
from annotation_ui.store.passwords import is_password, nobodys_hash
from annotation_ui.store.tables import annotator, login_failure, login_session
from annotation_ui.vocabulary import Refused

_WRONG = "Wrong name or password."
_SIGNED_IN = (
    select(annotator.c.id, annotator.c.username, annotator.c.role)
    .join(login_session, login_session.c.annotator_id == annotator.c.id)
    .where(
        login_session.c.token_sha256 == bindparam("token"),
        login_session.c.expires_at > bindparam("at"),
        annotator.c.active,
    )
)


# -- signing in -------------------------------------------------------------------------------------------------------


def sign_in(store: Store, settings: AccountSettings, username: str, password: str) -> str:
    """Check name and password; returns the token of a new session.

    Raises:
        Refused: they are wrong, or the account is locked after too many failures; an unknown name looks like a
            wrong password.
    """
    if not USERNAME.fullmatch(username):  # nobody's, and not to be stored
        is_password(password, nobodys_hash())
        raise Refused(_WRONG)
    with store.read() as connection:
        failures = connection.execute(select(login_failure).where(login_failure.c.username == username)).one_or_none()
        row = account_row(connection, username)
    _check_unlocked(settings, failures)
    known = row is not None and row.active
    if not (is_password(password, row.password_hash if known else nobodys_hash()) and known):
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
