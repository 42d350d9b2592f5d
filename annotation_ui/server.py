"""The server: the store, the desk, the page and what guards them, in one process."""

from __future__ import annotations

import gc
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread

import uvicorn
from fastapi import FastAPI, Request

from alignment.errors import UserError
from annotation_ui import accounts, conversations, preparation
from annotation_ui.desk import Desk
from annotation_ui.items import keep_project
from annotation_ui.pages import LocalKey, add_pages
from annotation_ui.qualification import exercises, questions_for
from annotation_ui.security import Guard
from annotation_ui.settings import AppSettings
from annotation_ui.store import Store

LOCAL_USER = "local"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def keep_projects(store: Store, settings: AppSettings) -> None:
    """Make the projects of the settings, or bring them up to date; checks that their tests can be held.

    Raises:
        UserError: a project was worked on as another one, guidelines cannot be read, or questions are too few.
    """
    with store.write() as connection:
        for project in settings.projects:
            keep_project(connection, project)
            if settings.qualification.required:
                questions_for("", 1, exercises(project.dimension, "qualification"), settings.qualification.questions)


def local_key(store: Store) -> LocalKey | None:
    """A link for the one person on this machine, where nobody has made accounts; ``None`` where somebody has.

    Their account needs no test: who runs the server decides what counts.
    """
    with store.read() as connection:
        known = accounts.usernames(connection)
    if known not in ([], [LOCAL_USER]):
        return None
    if not known:
        accounts.add_account(store, LOCAL_USER, "admin", secrets.token_urlsafe(24))
    with store.write() as connection:
        account = accounts.find(connection, LOCAL_USER)
        for project in conversations.all_projects(connection):
            if not preparation.is_waived(connection, account.id, project):
                preparation.waive(connection, account.id, project, LOCAL_USER)
    return LocalKey(secrets.token_urlsafe(16), account.id)


def check_reach(store: Store, host: str, *, allow_remote: bool) -> None:
    """Refuse to listen to other machines without accounts and without being asked to in so many words.

    Raises:
        UserError: one of the two is missing.
    """
    if host in LOOPBACK:
        return
    if not allow_remote:
        raise UserError(f"host={host} lets other machines in. If that is meant, add --allow-remote.")
    with store.read() as connection:
        known = accounts.usernames(connection)
    if known in ([], [LOCAL_USER]):
        raise UserError(
            f"host={host} needs accounts. Make them first: python -m annotation_ui users add NAME --role annotator"
        )


def make_app(desk: Desk, *, hosts: tuple[str, ...], local: LocalKey | None, secure: bool = False) -> Guard:
    """The ASGI application: sign-in, admin pages and the annotation page, behind the guard.

    Args:
        desk: what annotators do.
        hosts: names by which browsers may reach the server.
        local: the sign-in link, if there is one.
        secure: whether browsers come through HTTPS.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    import gradio

    from annotation_ui.app import PAGE, build

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    add_pages(app, desk.store, desk.settings, local, secure=secure)

    def who(request: Request) -> str | None:
        account = request.scope.get("account")
        return None if account is None else str(account.id)

    closed = {"openapi_url": None, "docs_url": None, "redoc_url": None}
    gradio.mount_gradio_app(app, build(desk), path="/", auth_dependency=who, app_kwargs=closed, **PAGE)
    return Guard(app, hosts=hosts, whose=partial(accounts.whose, desk.store))


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; port 0 takes any free one. Raise ``UserError`` if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, port))
        except (OSError, OverflowError) as error:
            raise UserError(f"cannot listen on {host}:{port}: {error}. Choose another with port=NUMBER.") from error
        made.listen(128)
        yield made


@contextmanager
def ready(
    desk: Desk, *, allow_remote: bool = False, secure: bool = False
) -> Iterator[tuple[str, uvicorn.Server, socket.socket]]:
    """Everything set up to serve: the address to open, the server that has not begun, and its socket.

    Args:
        desk: what annotators do.
        allow_remote: listen to other machines if the settings say so.
        secure: whether browsers come through HTTPS (a proxy before this server).

    Raises:
        UserError: the address cannot be listened on, the store is served already, or accounts are missing.
    """
    settings, store = desk.settings, desk.store
    check_reach(store, settings.host, allow_remote=allow_remote)
    local = local_key(store) if settings.host in LOOPBACK else None
    with listening(settings.host, settings.port) as made:
        url = f"http://{settings.host}:{made.getsockname()[1]}"
        hosts = ("127.0.0.1", "localhost", "[::1]", settings.host, *settings.allowed_hosts)
        with store.serving(url):
            app = make_app(desk, hosts=hosts, local=local, secure=secure)
            config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
            gc.collect()
            gc.freeze()  # what was imported stays: a collection that goes through it stops everybody for long
            yield url if local is None else f"{url}/login?key={local.key}", uvicorn.Server(config), made


@contextmanager
def serving_in_background(desk: Desk) -> Iterator[str]:
    """Serve from a thread of this process while the block runs; gives the address to open."""
    with ready(desk) as (url, server, made):
        thread = Thread(target=server.run, kwargs={"sockets": [made]}, name="annotation server", daemon=True)
        thread.start()
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join()
