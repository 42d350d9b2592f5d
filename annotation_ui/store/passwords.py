"""Passwords: how long they have to be, their hashes, and checking one."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from alignment.errors import UserError

MIN_PASSWORD = 8
_COST = {"n": 2**14, "r": 8, "p": 1}
"""Of scrypt: 16 MiB and some 50 ms a guess (RFC 7914)."""


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


def check_password(password: str) -> None:
    """Raise ``UserError`` for a password that is too short."""
    if len(password) < MIN_PASSWORD:
        raise UserError(f"the password needs at least {MIN_PASSWORD} characters")


@cache
def nobodys_hash() -> str:
    """Compared with where there is no such account, so that this takes as long."""
    return hash_password("nobody", bytes(16))
