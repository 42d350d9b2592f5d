"""A real browser for tests: finds Chromium, opens pages that note what went wrong, and starts servers.

One Chromium serves the whole session; each page has cookies and storage of its own:

    pytest_plugins = ("browser",)

    def test_page(open_page):
        port = free_port()
        with serving([sys.executable, "-m", "annotation_ui", f"port={port}"], port) as server:
            tab = open_page(server.url, viewport=(1280, 800), color_scheme="dark")
            tab.page.get_by_role("button", name="Skip").click()
            assert tab.traffic.problems == []
"""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import child_process
import pytest
from child_process import ChildProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Request

SERVER_LIMIT_SECONDS = 3600.0
"""Of a server that all tests of a session share."""
SYSTEM_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Playwright adds --headless and --no-sandbox. A page that asks for anything outside this machine is found out by its
# request, which reaches nothing: no name is resolved and no proxy asked.
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


def system_chromium() -> str | None:
    """The first browser on PATH that starts; Ubuntu's ``chromium-browser`` may be a script that only says how to."""
    found = (shutil.which(name) for name in SYSTEM_NAMES)
    return next((path for path in found if path and child_process.run([path, "--version"]).returncode == 0), None)


def find_chromium(playwright: Playwright) -> str:
    """The system's Chromium, or Playwright's own; where there is neither, the tests that need one are skipped."""
    own = Path(playwright.chromium.executable_path)
    path = system_chromium() or (str(own) if own.exists() else None)
    if path is None:
        pytest.skip("no Chromium: install the package `chromium`, or run `python -m playwright install chromium`")
    return path


@dataclass
class Traffic:
    """What went wrong in a tab: errors in its console, answers of 400 and above, requests to other origins."""

    console_errors: list[str] = field(default_factory=list)
    failed_responses: list[str] = field(default_factory=list)
    foreign_requests: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """All of them."""
        return self.console_errors + self.failed_responses + self.foreign_requests

    def watch(self, context: BrowserContext, origin: str) -> None:
        """Note what the pages of a context do from now on."""

        def see(url: str) -> None:
            if url.startswith(("http", "ws")) and _origin(url) != origin:
                self.foreign_requests.append(url)

        context.on("request", lambda request: see(request.url))
        context.on("page", lambda page: page.on("websocket", lambda socket: see(socket.url)))
        context.on("weberror", lambda error: self.console_errors.append(str(error.error)))
        context.on("console", lambda line: self.console_errors.append(line.text) if line.type == "error" else None)
        context.on(
            "response",
            lambda response: (
                self.failed_responses.append(f"{response.status} {_described(response.request)}")
                if response.status >= 400
                else None
            ),
        )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme.replace('ws', 'http')}://{parts.netloc}"


def _described(request: Request) -> str:
    return f"{request.method} {request.url}"


@dataclass(frozen=True)
class Tab:
    """A page, the context that holds its cookies and storage, and what went wrong in it."""

    page: Page
    context: BrowserContext
    traffic: Traffic


OpenPage = Callable[..., Tab]


@dataclass(frozen=True)
class Chromium:
    """A running browser. Between tests, Playwright's event loop is taken off the thread.

    While its blocking interface waits for the next call, Playwright leaves its loop marked as the running one, and
    ``asyncio.run`` would refuse to work in every later test.
    """

    browser: Browser
    loop: asyncio.AbstractEventLoop

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Inside, the browser can be used; outside, other event loops."""
        asyncio._set_running_loop(self.loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def open(self, url: str, *, viewport: tuple[int, int], color_scheme: Literal["light", "dark"], **more: Any) -> Tab:
        """A page at an address; ``more`` goes to ``Browser.new_context``."""
        size: Any = dict(zip(("width", "height"), viewport, strict=True))
        context = self.browser.new_context(viewport=size, color_scheme=color_scheme, locale="en-US", **more)
        traffic = Traffic()
        traffic.watch(context, _origin(url))
        page = context.new_page()
        page.goto(url)
        return Tab(page, context, traffic)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """The browser of this session."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(playwright), args=list(FLAGS))
        running = Chromium(browser, asyncio.get_running_loop())
        asyncio._set_running_loop(None)
        yield running
        with running.at_work():
            browser.close()
        asyncio._set_running_loop(running.loop)
    asyncio._set_running_loop(None)


@pytest.fixture
def open_page(chromium: Chromium) -> Iterator[OpenPage]:
    """Opens pages: ``open_page(url, viewport=(1440, 900), color_scheme="light")``; closed after the test."""
    with ExitStack() as stack:
        stack.enter_context(chromium.at_work())

        def open_one(
            url: str,
            *,
            viewport: tuple[int, int] = (1440, 900),
            color_scheme: Literal["light", "dark"] = "light",
            **more: Any,
        ) -> Tab:
            tab = chromium.open(url, viewport=viewport, color_scheme=color_scheme, **more)
            stack.callback(tab.context.close)
            return tab

        yield open_one


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A server process that answers at ``url``; ``log`` takes what it prints."""

    url: str
    process: ChildProcess
    log: IO[bytes]

    def said(self) -> str:
        """What it printed so far, to both outputs."""
        # Not seek and read: the process writes at the same position of the same open file.
        return os.pread(self.log.fileno(), os.fstat(self.log.fileno()).st_size, 0).decode(errors="replace")

    def signal(self, number: int) -> int:
        """Send a signal to the process and its children, and wait for the process to end; returns its exit code."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        return self.process.wait(timeout=20)

    def wait_until_it_answers(self, seconds: float) -> None:
        """Wait for any answer over HTTP; raises where the process ends or the time is over."""
        deadline = time.monotonic() + seconds
        while not _answers(self.url):
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with code {self.process.returncode}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server does not answer at {self.url} after {seconds:g} s")
            time.sleep(0.05)


def _answers(url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    else:
        return True
    finally:
        connection.close()


@contextmanager
def serving(
    command: Sequence[str],
    port: int,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = 60,
) -> Iterator[Server]:
    """Run a server until the block ends. An error inside, or in its start, carries what the server printed."""
    environment = {**os.environ, **(env or {})}
    outputs: dict[str, Any] = {"stderr": subprocess.STDOUT, "env": environment, "cwd": cwd}
    with (
        tempfile.TemporaryFile() as log,
        ChildProcess(command, limit_seconds=SERVER_LIMIT_SECONDS, stdout=log, **outputs) as process,
    ):
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            server.wait_until_it_answers(seconds)
            yield server
        except BaseException as error:
            error.add_note(f"{' '.join(command)} printed:\n{server.said()[-5000:]}")
            raise
        finally:
            with suppress(subprocess.TimeoutExpired):  # what is left is killed when the block ends
                server.signal(signal.SIGTERM)
