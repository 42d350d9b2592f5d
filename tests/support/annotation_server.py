"""The annotation app as people run it, for tests: a server process, its store, and two models that a test controls.

    def test_it(site):                              # one server for the whole session
        project = site.project(max_turns=2)         # of this test alone
        ada = site.person()                         # signed in, without a password
        site.models.hold("a")                       # its answer stops halfway until let_go

The models answer over HTTP as any OpenAI-compatible server does. The server process notes every address that it asks a
socket for, so that a test can say where it talked to.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from annotation_fixtures import COLOURS, NO_TEST, PATIENCE_SECONDS, add_person, app_settings
from browser import Server, free_port, serving

from annotation_ui.app_settings import AccountSettings
from annotation_ui.store.accounts import Account, set_password
from annotation_ui.store.database import Store
from annotation_ui.store.items import NewItem, add_items
from annotation_ui.store.projects import keep_project, project_named
from annotation_ui.store.sign_ins import begin_session
from annotation_ui.vocabulary import AccountRole, Slot
from annotation_ui.web.security import COOKIE

ROOT = Path(__file__).resolve().parents[2]
MODEL_NAMES: dict[Slot, str] = {"a": "aardvark-13b", "b": "zeppelin-7b"}
MAX_PROMPT_CHARS = 300
MAX_FAILURES = 3
WATCH_SOCKETS = """
import os, sys

def note(event, details):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"):
        address = details[0] if event.startswith("socket.get") else details[1]
        with open(os.environ["SOCKETS_LOG"], "a") as log:
            log.write(f"{event} {address}\\n")

sys.addaudithook(note)
"""
_numbers = count(1)


# -- models -----------------------------------------------------------------------------------------------------------

Answer = str | Callable[[Sequence[Mapping[str, str]]], str]


@dataclass
class Script:
    """What one model does.

    Attributes:
        colour: what its answers begin with, unless ``answer`` is set.
        answer: its answer, or how it is made from the messages.
        ends: answers stop halfway, and errors wait, until this is set.
        failures: how many times it still answers with an error that names it.
        finish_reason: how its answers end.
        asked: the messages that it was given, each time.
        seeds: the seeds that it was given.
    """

    colour: str
    answer: Answer | None = None
    ends: threading.Event = field(default_factory=threading.Event)
    failures: int = 0
    finish_reason: str = "stop"
    asked: list[list[dict[str, str]]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def text(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Its answer to these messages."""
        if self.answer is None:
            return f"{self.colour} to {len(messages)}: {messages[-1]['content']}"
        return self.answer if isinstance(self.answer, str) else self.answer(messages)


class Models:
    """Two models behind one address: slot -> ``Script``."""

    def __init__(self) -> None:
        self.scripts: dict[Slot, Script] = {}
        self.reset()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Endpoint, self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def __getitem__(self, slot: Slot) -> Script:
        return self.scripts[slot]

    @property
    def url(self) -> str:
        """Base address of the API."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def reset(self) -> None:
        """Let whatever is held go, and forget what a test has set."""
        self.let_go()
        self.scripts = {slot: Script(colour) for slot, colour in COLOURS.items()}
        self.let_go()

    def hold(self, *slots: Slot) -> None:
        """Have answers stop halfway."""
        for slot in slots or COLOURS:
            self[slot].ends.clear()

    def let_go(self, *slots: Slot) -> None:
        """Have answers end."""
        for slot in slots or tuple(self.scripts):
            self[slot].ends.set()

    def close(self) -> None:
        """Stop answering."""
        self.let_go()
        self._server.shutdown()
        self._server.server_close()


class _Endpoint(BaseHTTPRequestHandler):
    """``POST /v1/chat/completions`` with ``stream=true``."""

    def __init__(self, models: Models, *connection: Any) -> None:
        self.models = models
        super().__init__(*connection)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        slot = next(slot for slot, name in MODEL_NAMES.items() if name == asked["model"])
        script = self.models[slot]
        script.asked.append(asked["messages"])
        script.seeds.append(asked["seed"])
        if script.failures:
            script.failures -= 1
            script.ends.wait(PATIENCE_SECONDS)
            self.send_error(503, f"{asked['model']} is overloaded")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        with suppress(OSError):  # nobody listens any more
            self._write(script, script.text(asked["messages"]))

    def _write(self, script: Script, text: str) -> None:
        half = max(len(script.colour), len(text) // 2)
        self._event({"content": text[:half]})
        script.ends.wait(PATIENCE_SECONDS)
        self._event({"content": text[half:]}, script.finish_reason)
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, delta: Mapping[str, str], finish_reason: str | None = None) -> None:
        data = {"choices": [{"delta": delta, "finish_reason": finish_reason}]}
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *unused: Any) -> None:
        """Stay quiet."""


# -- the site ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Visitor:
    """Somebody with an account and a session; ``token`` is its cookie."""

    account: Account
    token: str

    @property
    def id(self) -> str:
        return self.account.id

    @property
    def name(self) -> str:
        return self.account.username


@dataclass
class Site:
    """A running server, its store, which the test may look at and change, and who answers."""

    server: Server
    store: Store
    models: Models
    sockets: Path

    @property
    def url(self) -> str:
        return self.server.url

    def project(self, **settings: Any) -> str:
        """A new project of one test; returns its name. Nobody has to pass a test before."""
        name = f"p{next(_numbers)}"
        self.keep_project(name, **settings)
        return name

    def keep_project(self, name: str, **settings: Any) -> None:
        """Make a project, or change it as a server does that starts."""
        (kept,) = app_settings({"name": name, "title": f"Project {name}", **settings}).projects
        with self.store.write() as connection:
            keep_project(connection, kept)

    def person(self, role: AccountRole = "annotator", *, password: str | None = None) -> Visitor:
        """Somebody new, signed in."""
        account = add_person(self.store, f"person-{next(_numbers)}", role)
        if password is not None:
            set_password(self.store, account.username, password)
        return Visitor(account, begin_session(self.store, AccountSettings(), account.id))  # type: ignore[call-arg]

    def add_items(self, project: str, items: Sequence[NewItem]) -> None:
        """Put items into a project's queue."""
        with self.store.write() as connection:
            add_items(connection, project_named(connection, project), items)

    def client(self, visitor: Visitor | None = None) -> httpx.Client:
        """Raw HTTP, signed in or not. Without certificates, which take longer to load than all that is asked."""
        cookies = {} if visitor is None else {COOKIE: visitor.token}
        return httpx.Client(base_url=self.url, cookies=cookies, timeout=PATIENCE_SECONDS, verify=False)

    def act(self, visitor: Visitor, name: str, **form: Any) -> dict[str, Any]:
        """Do something as the page does, without the page; returns the state that the page would get."""
        with self.client(visitor) as client:
            answer = client.post(f"/gradio_api/run/{name}", json={"data": [form]})
        answer.raise_for_status()
        state: dict[str, Any] = answer.json()["data"][0]
        return state

    def addresses(self) -> list[str]:
        """Every address that the server process asked a socket for, one line each."""
        return self.sockets.read_text().splitlines() if self.sockets.exists() else []


def endpoint_variants(models: Models) -> list[dict[str, Any]]:
    """Settings under which the two models answer."""
    return [{"endpoint": models.url, "endpoint_model": name} for name in MODEL_NAMES.values()]


@contextmanager
def running_site(
    folder: Path, models: Models, *options: str, people: Sequence[str] = (), **settings: Any
) -> Iterator[Site]:
    """Start ``python -m annotation_ui`` over a new store in a folder.

    Args:
        folder: for the store, the settings and what the server notes.
        models: who answers, unless ``options`` say that nobody does.
        options: of the command line.
        people: who has an account when the server starts; where nobody has, it prints a link that signs in.
        settings: of the app, beyond the models.
    """
    (folder / "sitecustomize.py").write_text(WATCH_SOCKETS, encoding="utf-8")
    first = {"name": "first", "title": "First", "dimension": "helpfulness"}
    whole = {"projects": [first], "qualification": NO_TEST, "variants": endpoint_variants(models), **settings}
    (folder / "settings.yaml").write_text(json.dumps(whole), encoding="utf-8")  # JSON is YAML
    port, sockets = free_port(), folder / "sockets.txt"
    paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "SOCKETS_LOG": str(sockets)}
    database = folder / "annotations.db"
    command = [sys.executable, "-m", "annotation_ui", "serve", "--config", str(folder / "settings.yaml"), *options]
    command += [f"database={database}", f"port={port}"]
    with closing(Store(database)) as store:
        for name in people:
            add_person(store, name)
        with serving(command, port, env=environment, cwd=folder) as server:
            yield Site(server, store, models, sockets)


@pytest.fixture(scope="session")
def models() -> Iterator[Models]:
    """Two models that answer at once, unless a test says otherwise."""
    answering = Models()
    yield answering
    answering.close()


@pytest.fixture(scope="session")
def shared_site(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server with models for all tests."""
    folder = tmp_path_factory.mktemp("site")
    settings = {"max_prompt_chars": MAX_PROMPT_CHARS, "accounts": {"max_failures": MAX_FAILURES}}
    with running_site(folder, models, people=["somebody"], **settings) as site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """The shared server, whose models do as they did at first."""
    shared_site.models.reset()
    yield shared_site
    shared_site.models.reset()
