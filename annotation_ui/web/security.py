"""What stands between the network and the app: who may talk to it, how much they may send, and who they are.

One ASGI layer around everything, Gradio's own routes included, some of which answer without a login (found in 6.31:
``/openapi.json``, ``/gradio_api/cancel``, ``/gradio_api/reset``). It refuses

- a ``Host`` that is not this server's (400): DNS rebinding,
- a request that changes something and comes from another origin (403): cross-site forgery,
- a body above ``MAX_BODY_BYTES`` (413), announced or not,
- whatever is not public without a session (401, or a redirect to the sign-in page for browsers),

and adds headers that keep the page from loading anything from elsewhere.

``local_key`` makes the link that signs in the one person of this machine, where nobody has made accounts.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotation_ui import texts
from annotation_ui.desk import training_and_test
from annotation_ui.store import accounts, projects
from annotation_ui.store.accounts import Account
from annotation_ui.store.database import Store
from annotation_ui.vocabulary import LOCAL_USER

LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "tandem_session"
MAX_BODY_BYTES = 256 * 1024
PUBLIC = frozenset({"/login", "/favicon.ico"})
CLOSED = ("/gradio_api/upload", "/gradio_api/openapi.json", "/openapi.json", "/docs", "/redoc", "/gradio_api/mcp")
"""Gradio's routes that nobody needs here."""
READING = frozenset({"GET", "HEAD"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
        "form-action 'self'; frame-ancestors 'none'; object-src 'none'; base-uri 'self'"
    ),
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send a null origin with the sign-in form
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """The ASGI layer.

    Args:
        app: what it guards.
        hosts: names, without port, by which browsers may reach the server; ``*`` for any.
        whose: session token -> account; called in a thread.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], whose: Callable[[str | None], Account | None]) -> None:
        self.app, self.whose = app, whose
        self.hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is None and scope["type"] == "http" and scope["method"] not in READING:
            receive, refusal = await _whole_body(headers, receive)
        if refusal is None:
            refusal = await self._sign_in_first(scope, headers)
        if scope["type"] == "websocket" and refusal is not None:
            await send({"type": "websocket.close", "code": 1008})
            return
        await (refusal or self.app)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if "*" not in self.hosts and _hostname(host) not in self.hosts:
            return PlainTextResponse(texts.OTHER_HOST, 400)
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in READING
        if changes and origin is not None and origin.partition("://")[2] != host:
            return PlainTextResponse(texts.OTHER_SITE, 403)
        if changes and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return PlainTextResponse(texts.OTHER_SITE, 403)
        if scope["path"].startswith(CLOSED):
            return PlainTextResponse(texts.NO_SUCH_PAGE, 404)
        return None

    async def _sign_in_first(self, scope: Scope, headers: Headers) -> Response | None:
        token = token_in(headers.get("cookie"))
        account = None if token is None else await to_thread.run_sync(self.whose, token)
        scope["account"] = account
        if account is not None or scope["path"] in PUBLIC:
            return None
        if scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        return PlainTextResponse(texts.SIGN_IN_FIRST, 401)


def token_in(cookies: str | None) -> str | None:
    """The session token among the cookies of a request."""
    try:
        morsel = SimpleCookie(cookies or "").get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel is not None else None


def _hostname(host: str) -> str:
    """The name in a ``Host`` header: ``[::1]:80`` -> ``[::1]``, ``name:80`` -> ``name``."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0].lower()


async def _whole_body(headers: Headers, receive: Receive) -> tuple[Receive, Response | None]:
    """Read the body before anything else sees it; too long a one is refused while it is read."""
    too_long = PlainTextResponse(texts.TOO_MUCH, 413)
    announced = headers.get("content-length", "0")
    if not announced.isdigit() or int(announced) > MAX_BODY_BYTES:
        return receive, too_long
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return receive, too_long
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            break
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay, None


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            for name in [name for name in headers if name.startswith("access-control-")]:
                del headers[name]  # Gradio lets any page of this machine read answers
            if "text/html" in headers.get("content-type", ""):
                headers["Cache-Control"] = "no-store"
        await send(message)

    return send_with_headers


@dataclass(frozen=True)
class LocalKey:
    """Signs one account in by a link, on a server that only this machine reaches, as long as there are no accounts."""

    key: str
    annotator_id: str


def local_key(store: Store) -> LocalKey | None:
    """A link for the one person on this machine, where nobody has made accounts; ``None`` where somebody has.

    Their account needs no test: who runs the server decides what counts.
    """
    with store.read() as connection:
        if accounts.has_people(connection):
            return None
        is_new = all(row.username != LOCAL_USER for row in accounts.all_accounts(connection))
    if is_new:
        accounts.add_account(store, LOCAL_USER, "admin", secrets.token_urlsafe(24))
    with store.write() as connection:
        account = accounts.find(connection, LOCAL_USER)
        for project in projects.all_projects(connection):
            if not training_and_test.is_waived(connection, account.id, project):
                training_and_test.waive(connection, account.id, project, LOCAL_USER)
    return LocalKey(secrets.token_urlsafe(16), account.id)
