"""Whose settings hold: those of whoever serves a store, not those of whoever looks into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from annotation_fixtures import NO_TEST, app_settings, only, rows

from alignment.errors import UserError
from annotation_ui.app_settings import AppSettings
from annotation_ui.cli.store_commands import known_store, open_store
from annotation_ui.desk.training_and_test import keep_projects
from annotation_ui.store import tables
from annotation_ui.store.database import Store
from annotation_ui.web.server import reserved


def settings_of(file: Path, **project: Any) -> AppSettings:
    given = {"name": "helpfulness", "dimension": "helpfulness", **project}
    return app_settings(given, database=str(file), qualification=NO_TEST)


def test_opening_a_store_changes_no_project_of_its_server(tmp_path: Path) -> None:
    file, guidelines = tmp_path / "team.db", tmp_path / "ours.md"
    guidelines.write_text("# Ours")
    team = settings_of(file, title="Team", batch="batch-7", overlap=2, guidelines=str(guidelines))
    keep_projects(Store(file), team)
    (before,) = rows(Store(file), tables.project)
    store = open_store(settings_of(file, title="Other"), None)
    assert rows(store, tables.project) == [before]
    keep_projects(store, settings_of(file, title="Served anew"))
    assert only(store, tables.project).title == "Served anew"


def test_opening_a_store_makes_the_projects_that_it_lacks(tmp_path: Path) -> None:
    store = open_store(settings_of(tmp_path / "new.db", title="First"), None)
    assert only(store, tables.project).title == "First"


def test_a_store_to_be_read_has_to_be_there(tmp_path: Path) -> None:
    file = tmp_path / "nowhere.db"
    with pytest.raises(UserError, match=r"no annotation store .*nowhere\.db.*serve the app first"):
        known_store(settings_of(file), None)
    assert not file.exists()
    Store(file).close()
    assert known_store(settings_of(file), None).file == file.resolve()


def test_a_store_that_is_served_is_refused_before_anything_is_done(store: Store) -> None:
    settings = app_settings(qualification=NO_TEST, port=0)
    assert not store.is_served()
    with reserved(store, settings):
        assert store.is_served()
        if store.file is not None:
            with pytest.raises(UserError, match="is served already"), reserved(Store(store.file), settings):
                pass
    assert not store.is_served()


def test_an_address_is_one_that_a_browser_opens(sqlite_store: Store) -> None:
    with reserved(sqlite_store, app_settings(qualification=NO_TEST, host="::1", port=0)) as address:
        assert address.url == f"http://[::1]:{address.listener.getsockname()[1]}"
