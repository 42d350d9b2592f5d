"""The server: the store, the desk, the page and what guards them, in one process."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn
from fastapi import FastAPI, Request

from alignment.errors import UserError
from annotation_ui.app_settings import AppSettings
from annotation_ui.desk.desk import Desk
from annotation_ui.store import accounts, sign_ins
from annotation_ui.store.database import Store
from annotation_ui.web.admin_pages import add_pages
from annotation_ui.web.security import LOOPBACK, Guard, LocalKey, local_key


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

    from annotation_ui.web.gradio_app import PAGE, build

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    add_pages(app, desk.store, desk.settings, local, secure=secure)

    def who(request: Request) -> str | None:
        account = request.scope.get("account")
        return None if account is None else str(account.id)

    closed = {"openapi_url": None, "docs_url": None, "redoc_url": None}
    gradio.mount_gradio_app(app, build(desk), path="/", auth_dependency=who, app_kwargs=closed, **PAGE)
    return Guard(app, hosts=hosts, whose=partial(sign_ins.whose, desk.store))


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; port 0 takes any free one. Raise ``UserError`` if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            raise UserError(f"cannot listen on {host}:{port}: {error}. Choose another with port=NUMBER.") from error
        listener.listen(128)
        yield listener


@dataclass(frozen=True)
class ServerAddress:
    """An address that is ours: nobody else serves the store or listens there."""

    url: str
    listener: socket.socket


@contextmanager
def reserved(store: Store, settings: AppSettings, *, allow_remote: bool = False) -> Iterator[ServerAddress]:
    """Take the store and the address while the block runs, before anything slow is done.

    Args:
        store: to be served.
        settings: of the app.
        allow_remote: listen to other machines if the settings say so.

    Raises:
        UserError: the address cannot be listened on, the store is served already, or accounts are missing.
    """
    check_reach(store, settings.host, allow_remote=allow_remote)
    with listening(settings.host, settings.port) as listener:
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{name}:{listener.getsockname()[1]}"
        with store.serving(url):
            yield ServerAddress(url, listener)


def make_server(desk: Desk, address: ServerAddress, *, secure: bool = False) -> tuple[str, uvicorn.Server]:
    """The address to open, and the server, which has not begun.

    Args:
        desk: what annotators do.
        address: where it will listen.
        secure: whether browsers come through HTTPS (a proxy before this server).
    """
    settings = desk.settings
    local = local_key(desk.store) if settings.host in LOOPBACK else None
    hosts = ("127.0.0.1", "localhost", "[::1]", settings.host, *settings.allowed_hosts)
    app = make_app(desk, hosts=hosts, local=local, secure=secure)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
    return address.url if local is None else f"{address.url}/login?key={local.key}", uvicorn.Server(config)


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
        if accounts.has_people(connection):
            return
    raise UserError(
        f"host={host} needs accounts. Make them first: python -m annotation_ui users add NAME --role annotator"
    )


def collect_rarely() -> None:
    """What was imported stays, and a collection that goes through it would stop everybody for long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
