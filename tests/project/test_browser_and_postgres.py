"""The helpers of other tests: a page's misbehaviour is noted, servers are started and killed, PostgreSQL keeps data."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import browser
import postgres as postgres_server
import pytest
from browser import Chromium, OpenPage, find_chromium, free_port, serving
from postgres import Postgres
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError


def files_server(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]


def test_a_tab_notes_what_goes_wrong(open_page: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<title>fine</title><link rel=icon href=data:,>", encoding="utf-8")
    (tmp_path / "wrong.html").write_text(
        "<link rel=icon href=data:,><img src=http://example.com/a.png><img src=missing.png>"
        "<script>console.error('said'); throw Error('thrown')</script>",
        encoding="utf-8",
    )
    port = free_port()
    with serving(files_server(tmp_path, port), port) as server:
        tab = open_page(server.url, viewport=(1024, 700), color_scheme="dark")
        assert tab.page.evaluate("[innerWidth, innerHeight]") == [1024, 700]
        assert tab.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        assert tab.traffic.problems == []
        other = tab.context.new_page()
        other.goto(f"{server.url}/wrong.html")
        elsewhere = f"ws://localhost:{port}/x"
        other.evaluate("url => new Promise(closed => { new WebSocket(url).onclose = () => closed() })", elsewhere)
        assert tab.traffic.foreign_requests == ["http://example.com/a.png", elsewhere]
        assert tab.traffic.failed_responses == [f"404 GET {server.url}/missing.png"]
        assert any("said" in error for error in tab.traffic.console_errors)
        assert any("thrown" in error for error in tab.traffic.console_errors)
        assert open_page(server.url).traffic.problems == []


def test_other_event_loops_run_beside_the_browser(chromium: Chromium) -> None:
    assert chromium.browser.is_connected()
    assert asyncio.run(asyncio.sleep(0, "ran")) == "ran"


def test_without_chromium_the_test_is_skipped_and_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(browser, "system_chromium", lambda: None)
    playwright: Any = SimpleNamespace(chromium=SimpleNamespace(executable_path=str(tmp_path / "none")))
    with pytest.raises(pytest.skip.Exception, match="no Chromium: install"):
        find_chromium(playwright)


def test_without_postgresql_the_test_is_skipped_and_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_server, "find_binaries", lambda: None)
    with pytest.raises(pytest.skip.Exception, match="no PostgreSQL server: install"):
        postgres_server.need_binaries()


def test_a_server_that_ends_or_fails_shows_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with code 1") as caught:
        with serving([sys.executable, "-c", "raise SystemExit('no such option')"], free_port()):
            raise AssertionError("it never answered")
    assert "no such option" in caught.value.__notes__[0]
    port = free_port()
    with pytest.raises(AssertionError, match="a check failed") as failed:
        with serving(files_server(tmp_path, port), port) as server:
            raise AssertionError("a check failed")
    assert "GET / HTTP/1.1" in failed.value.__notes__[0]
    assert server.process.poll() == -signal.SIGTERM


def test_a_server_can_be_killed_and_started_again(tmp_path: Path) -> None:
    port = free_port()
    for _ in range(2):
        with serving(files_server(tmp_path, port), port) as server:
            assert server.signal(signal.SIGKILL) == -signal.SIGKILL


@pytest.mark.parametrize("time", ["first", "second"])
def test_each_test_has_an_empty_database(postgres_url: str, time: str) -> None:
    with create_engine(postgres_url, poolclass=NullPool).begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar() == 0
        assert connection.execute(text("SHOW fsync")).scalar() == "on"
        connection.execute(text("CREATE TABLE note (said text)"))


def test_what_was_committed_survives_a_kill(postgres: Postgres, postgres_url: str) -> None:
    engine = create_engine(postgres_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE note (said text)"))
        connection.execute(text("INSERT INTO note VALUES ('kept')"))
    open_transaction = engine.connect()
    open_transaction.execute(text("INSERT INTO note VALUES ('lost')"))
    postgres.kill_nine()
    with pytest.raises(OperationalError):
        engine.connect()
    postgres.start()
    with engine.begin() as connection:
        assert connection.execute(text("SELECT said FROM note")).scalars().all() == ["kept"]
    open_transaction.invalidate()
