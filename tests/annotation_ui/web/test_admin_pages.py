"""The sign-in link, names by which browsers reach the server, and the pages of reviewers."""

from __future__ import annotations

import pytest
from annotation_fixtures import NO_TEST, Office, app_settings, new_item
from fastapi import FastAPI
from fastapi.testclient import TestClient

from alignment.errors import UserError
from annotation_ui.desk.training_and_test import keep_projects
from annotation_ui.quality import flagged_judgments
from annotation_ui.store.accounts import add_account, set_active, withdraw
from annotation_ui.store.database import Store
from annotation_ui.store.sign_ins import whose
from annotation_ui.vocabulary import LOCAL_USER, SIMULATED
from annotation_ui.web.admin_pages import add_pages
from annotation_ui.web.security import COOKIE, Guard, LocalKey, local_key

INVITATION = "Open the link that the terminal shows"


def browser(store: Store, key: LocalKey | None) -> TestClient:
    app = FastAPI()
    add_pages(app, store, app_settings(qualification=NO_TEST), key, secure=False)
    return TestClient(app)


def test_the_link_signs_in_whoever_runs_the_server(sqlite_store: Store) -> None:
    keep_projects(sqlite_store, app_settings(qualification=NO_TEST))
    key = local_key(sqlite_store)
    assert key is not None
    client = browser(sqlite_store, key)
    assert INVITATION in client.get("/login").text
    assert COOKIE not in client.get("/login", params={"key": f"{key.key}x"}).cookies
    account = whose(sqlite_store, client.get("/login", params={"key": key.key}).cookies[COOKIE])
    assert account is not None
    assert (account.username, account.role) == (LOCAL_USER, "admin")


def test_the_link_is_gone_with_the_first_account(sqlite_store: Store) -> None:
    key = local_key(sqlite_store)
    assert key is not None
    client = browser(sqlite_store, key)
    add_account(sqlite_store, "ada", "annotator", "correct horse battery")
    answer = client.get("/login", params={"key": key.key})
    assert (answer.status_code, list(answer.cookies)) == (200, [])
    assert INVITATION not in answer.text
    assert local_key(sqlite_store) is None


def test_simulated_annotators_are_nobody_who_could_sign_in(sqlite_store: Store) -> None:
    add_account(sqlite_store, f"{SIMULATED}ada", "annotator", "correct horse battery")
    assert local_key(sqlite_store) is not None


def test_who_has_withdrawn_is_not_let_in_again(sqlite_store: Store) -> None:
    add_account(sqlite_store, "ada", "annotator", "correct horse battery")
    set_active(sqlite_store, "ada", False)
    set_active(sqlite_store, "ada", True)
    withdraw(sqlite_store, "ada")
    with pytest.raises(UserError, match="nothing they judge would count"):
        set_active(sqlite_store, "ada", True)


@pytest.mark.parametrize("asked", ["annotate.example.org", "ANNOTATE.example.org:443"])
def test_a_name_is_the_same_in_capitals(asked: str) -> None:
    guarded = Guard(FastAPI(), hosts=["Annotate.Example.org"], whose=lambda token: None)
    assert TestClient(guarded).get("/", headers={"Host": asked}).status_code == 401
    assert TestClient(guarded).get("/", headers={"Host": "example.org"}).status_code == 400


def test_all_notes_can_be_read_page_by_page(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flagged_judgments, "PER_PAGE", 2)
    office = Office(sqlite_store, live=False)
    office.add_items([new_item(f"ask {number}", answered=True) for number in range(5)])
    ada = office.person("ada")
    ada.fetch()
    for number in range(5):
        ada.judge(1, note=f"note {number}")
    seen, before = [], None
    while found := flagged_judgments.flagged(sqlite_store, before):
        seen.append([row.note for row in found])
        before = found[-1].id
    assert seen == [["note 4", "note 3"], ["note 2", "note 1"], ["note 0"]]
