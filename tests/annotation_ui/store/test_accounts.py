"""Signing in: salted hashes, what an attacker learns, lock-out, sessions that end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from annotation_fixtures import LONG_AGO, Office, add_person, change, new_item, only, rows, together
from sqlalchemy import select

from alignment.errors import UserError
from annotation_ui.app_settings import AccountSettings
from annotation_ui.store import accounts, passwords
from annotation_ui.store.accounts import add_account, find, find_by_id, set_active, set_password, usernames, withdraw
from annotation_ui.store.assignments import lease
from annotation_ui.store.database import Store
from annotation_ui.store.passwords import hash_password, is_password
from annotation_ui.store.sign_ins import begin_session, sign_in, sign_out, whose
from annotation_ui.store.tables import annotator, assignment, item, login_failure, login_session, metadata
from annotation_ui.vocabulary import Refused

PASSWORD = "correct horse 7"
SETTINGS = AccountSettings(session_hours=12, max_failures=3, lock_minutes=15)
FIVE, PATIENT = (AccountSettings(session_hours=12, max_failures=n, lock_minutes=15) for n in (5, 99))
WRONG = "Wrong name or password."


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hashes at a thousandth of the cost."""
    monkeypatch.setattr(passwords, "_COST", {"n": 2**4, "r": 8, "p": 1})
    yield
    passwords.nobodys_hash.cache_clear()


@pytest.fixture
def ada(store: Store, cheap: None) -> accounts.Account:
    return add_account(store, "ada", "annotator", PASSWORD)


def refusal(store: Store, name: str, password: str, settings: AccountSettings = SETTINGS) -> str:
    with pytest.raises(Refused) as refused:
        sign_in(store, settings, name, password)
    return str(refused.value)


# -- passwords --------------------------------------------------------------------------------------------------------


def test_a_hash_is_scrypt_with_a_salt_of_its_own() -> None:
    first, second = hash_password("pässword 1"), hash_password("pässword 1")
    assert first != second
    for stored in (first, second):
        name, salt, digest = stored.split("$")
        assert name == "scrypt"
        assert len(bytes.fromhex(salt)) == 16
        # RFC 7914; n, r and p as OWASP recommends for 16 MiB, written out so that weakening them fails here.
        again = hashlib.scrypt("pässword 1".encode(), salt=bytes.fromhex(salt), n=16384, r=8, p=1)
        assert bytes.fromhex(digest) == again
    assert is_password("pässword 1", first)
    assert not is_password("passwörd 1", first)


def test_the_store_has_no_password_and_no_token(store: Store, ada: accounts.Account) -> None:
    token = sign_in(store, SETTINGS, "ada", PASSWORD)
    refusal(store, "ada", "a wrong guess")
    with store.read() as connection:
        kept = [row for table in metadata.sorted_tables for row in connection.execute(select(table))]
    assert len(kept) == 3  # the account, the session and the failure
    for secret in (PASSWORD, token, "a wrong guess"):
        assert secret not in repr(kept)
    assert only(store, login_session).token_sha256 == hashlib.sha256(token.encode()).hexdigest()


def test_accounts_need_a_name_and_a_password_of_some_length(store: Store, ada: accounts.Account) -> None:
    for name in ("", "a b", "a/b", "x" * 65, "a\n", "<b>"):
        with pytest.raises(UserError, match="user name"):
            add_account(store, name, "annotator", PASSWORD)
    with pytest.raises(UserError, match="8 characters"):
        add_account(store, "bob", "annotator", "1234567")
    with pytest.raises(UserError, match="already"):
        add_account(store, "ada", "admin", PASSWORD)
    with pytest.raises(UserError, match="8 characters"):
        set_password(store, "ada", "short")
    add_account(store, "b.o-b_7@example.org", "reviewer", "12345678")
    assert [row.role for row in rows(store, annotator)] == ["annotator", "reviewer"]


def test_an_unknown_account_is_said_with_those_there_are(store: Store, ada: accounts.Account) -> None:
    with store.read() as connection:
        assert find(connection, "ada") == ada
        with pytest.raises(UserError, match=r"no account 'eve'; there are: ada"):
            find(connection, "eve")
        assert usernames(connection) == ["ada"]


# -- what an attacker learns ------------------------------------------------------------------------------------------


def test_wrong_name_wrong_password_and_closed_account_look_alike(
    store: Store, ada: accounts.Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_account(store, "closed", "annotator", PASSWORD)
    set_active(store, "closed", False)
    hashed: list[bytes] = []
    scrypt = hashlib.scrypt

    def counted(password: bytes, **how: Any) -> bytes:
        hashed.append(password)
        return scrypt(password, **how)

    monkeypatch.setattr(hashlib, "scrypt", counted)
    passwords.nobodys_hash()
    for name, password in (("ada", "wrong guess"), ("eve", PASSWORD), ("closed", PASSWORD)):
        hashed.clear()
        said = [refusal(store, name, password) for _ in range(3)]
        assert said == [WRONG] * 3, name
        assert len(hashed) == 3, name  # the same work, so that the time tells nothing
        locked = refusal(store, name, PASSWORD)
        assert locked.startswith("Too many wrong passwords"), name
        assert "15 minutes" in locked
        assert len(hashed) == 3
    assert rows(store, login_session) == []


def test_odd_names_and_passwords_are_wrong_ones(store: Store, ada: accounts.Account) -> None:
    for name in ("", "ADA", "ada ", "ada' OR 1=1 --", "ädä", "x" * 10_000, "a\0da"):
        assert refusal(store, name, PASSWORD) == WRONG, name
    for password in ("", PASSWORD.upper(), f"{PASSWORD} ", "x" * 10_000, "a\0b"):
        assert refusal(store, "ada", password, PATIENT) == WRONG, password


def test_surrogates_from_a_form_are_a_wrong_password(store: Store, ada: accounts.Account) -> None:
    assert refusal(store, "ada", "\ud800 from a form") == WRONG
    assert refusal(store, "ada\ud800", PASSWORD) == WRONG


def test_a_longer_name_is_another_name(store: Store, cheap: None) -> None:
    add_account(store, "x" * 64, "annotator", PASSWORD)
    assert refusal(store, "x" * 65, PASSWORD) == WRONG


# -- lock-out ---------------------------------------------------------------------------------------------------------


def test_too_many_failures_lock_even_the_right_password_out(store: Store, ada: accounts.Account) -> None:
    add_account(store, "bob", "annotator", PASSWORD)
    for _ in range(2):
        assert refusal(store, "ada", "wrong guess") == WRONG
    sign_in(store, SETTINGS, "ada", PASSWORD)  # in time: the count begins anew
    for _ in range(3):
        assert refusal(store, "ada", "wrong guess") == WRONG
    assert "Too many" in refusal(store, "ada", PASSWORD)
    assert "Too many" in refusal(store, "ada", "wrong guess")
    sign_in(store, SETTINGS, "bob", PASSWORD)  # nobody else is locked out


def test_the_lock_ends_and_the_count_begins_anew(store: Store, ada: accounts.Account) -> None:
    for _ in range(3):
        refusal(store, "ada", "wrong guess")
    assert only(store, login_failure).failures == 3
    assert "Too many" in refusal(store, "ada", PASSWORD)
    change(store, login_failure, {"locked_until": LONG_AGO})
    assert refusal(store, "ada", "wrong guess") == WRONG
    assert only(store, login_failure).failures == 1
    assert whose(store, sign_in(store, SETTINGS, "ada", PASSWORD)) == ada
    assert rows(store, login_failure) == []


def test_failures_are_forgotten_after_a_while_whoevers_name_it_was(store: Store, ada: accounts.Account) -> None:
    for name in ("ada", "ada", "nobody", "nobody-else"):
        refusal(store, name, "wrong guess")
    change(store, login_failure, {"locked_until": LONG_AGO})
    assert refusal(store, "ada", "wrong guess") == WRONG
    assert only(store, login_failure).failures == 1
    sign_in(store, SETTINGS, "ada", PASSWORD)


def test_waiting_does_not_make_a_lock_longer(store: Store, ada: accounts.Account) -> None:
    for _ in range(3):
        refusal(store, "ada", "wrong guess")
    until = only(store, login_failure).locked_until
    refusal(store, "ada", "wrong guess")
    assert only(store, login_failure).locked_until == until


def test_a_new_password_unlocks(store: Store, ada: accounts.Account) -> None:
    old = sign_in(store, SETTINGS, "ada", PASSWORD)
    for _ in range(3):
        refusal(store, "ada", "wrong guess")
    set_password(store, "ada", "another horse 8")
    assert whose(store, old) is None
    assert whose(store, sign_in(store, SETTINGS, "ada", "another horse 8")) == ada
    assert refusal(store, "ada", PASSWORD) == WRONG


def test_failures_at_the_same_moment_are_all_counted(store: Store, ada: accounts.Account) -> None:
    results = together([lambda: sign_in(store, FIVE, "ada", "wrong guess")] * 5)
    assert [str(result) for result in results] == [WRONG] * 5
    assert only(store, login_failure).failures == 5
    assert "Too many" in refusal(store, "ada", PASSWORD)


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_says_whose_it_is_until_it_is_ended(store: Store, ada: accounts.Account) -> None:
    first, second = (sign_in(store, SETTINGS, "ada", PASSWORD) for _ in range(2))
    assert first != second
    assert min(len(first), len(second)) >= 43  # 32 random bytes
    assert whose(store, first) == whose(store, second) == ada
    sign_out(store, first)
    assert whose(store, first) is None
    assert whose(store, second) == ada
    sign_out(store, None)
    sign_out(store, "unknown")
    assert whose(store, second) == ada
    for nothing in (None, "", "unknown", second[:-1], second.swapcase()):
        assert whose(store, nothing) is None


def test_a_session_expires(store: Store, ada: accounts.Account) -> None:
    token = sign_in(store, SETTINGS, "ada", PASSWORD)
    row = only(store, login_session)
    lasts = datetime.fromisoformat(row.expires_at) - datetime.fromisoformat(row.created_at)
    assert timedelta(hours=12) <= lasts < timedelta(hours=12, minutes=1)
    change(store, login_session, {"expires_at": LONG_AGO})
    assert whose(store, token) is None
    begin_session(store, SETTINGS, ada.id)
    assert only(store, login_session).token_sha256 != row.token_sha256  # the old one is cleared away


def test_a_session_outlives_the_server(database: str, cheap: None) -> None:
    before = Store(database)
    ada = add_account(before, "ada", "admin", PASSWORD)
    token = sign_in(before, SETTINGS, "ada", PASSWORD)
    before.close()
    after = Store(database)
    assert whose(after, token) == ada
    after.close()


@pytest.mark.parametrize("close", [lambda store: set_active(store, "ada", False), lambda store: withdraw(store, "ada")])
def test_a_closed_account_is_signed_out_everywhere(store: Store, ada: accounts.Account, close: Any) -> None:
    tokens = [sign_in(store, SETTINGS, "ada", PASSWORD) for _ in range(2)]
    bob = add_person(store, "bob")
    other = begin_session(store, SETTINGS, bob.id)
    close(store)
    assert [whose(store, token) for token in tokens] == [None, None]
    assert whose(store, other) == bob
    assert refusal(store, "ada", PASSWORD) == WRONG
    with store.read() as connection:
        assert usernames(connection) == ["bob"]
        with pytest.raises(Refused):
            find_by_id(connection, ada.id)
    # A session that was begun for it all the same is worth nothing.
    assert whose(store, begin_session(store, SETTINGS, ada.id)) is None


def test_an_account_that_is_opened_again_has_to_sign_in_again(store: Store, ada: accounts.Account) -> None:
    token = sign_in(store, SETTINGS, "ada", PASSWORD)
    set_active(store, "ada", False)
    set_active(store, "ada", True)
    assert whose(store, token) is None
    assert whose(store, sign_in(store, SETTINGS, "ada", PASSWORD)) == ada


def test_who_withdraws_gives_back_what_they_had(quiet_office: Office) -> None:
    """One judged and one on the desk go to others, a gold item too; to themselves nothing ever comes again."""
    office, store = quiet_office, quiet_office.store
    office.add_items([new_item("known", answered=True, source="gold", expected={"choice": "a"})])
    office.add_items(2)
    ada, ben = office.person("ada"), office.person("ben")
    ada.fetch()
    assert ada.judge(1).phase == "open"
    with store.write() as connection:
        lease(connection, ada.id, "helpfulness/known", lease_minutes=9)
    assert ben.fetch().phase == "empty"
    withdraw(store, "ada")
    assert {row.state for row in rows(store, assignment, annotator_id=ada.id)} == {"skipped"}
    assert {row.id: row.remaining for row in rows(store, item)} == {
        "helpfulness/known": 2**30,
        "helpfulness/ask 0": 1,
        "helpfulness/ask 1": 1,
    }
    assert [ben.fetch().prompt, ben.judge(1).prompt] == ["ask 0", "ask 1"]
    withdraw(store, "ada")  # twice is once
    assert {row.remaining for row in rows(store, item, source="queue")} == {0}


def test_withdrawing_is_noted_and_keeps_the_rows(quiet_office: Office) -> None:
    quiet_office.add_items(1)
    ada = quiet_office.person("ada")
    ada.fetch()
    ada.judge(1)
    assert withdraw(quiet_office.store, "ada") == ada.id
    row = only(quiet_office.store, annotator)
    assert row.withdrawn_at is not None
    assert not row.active
    assert len(rows(quiet_office.store, metadata.tables["judgment"])) == 1
