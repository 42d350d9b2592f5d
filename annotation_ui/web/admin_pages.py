"""The pages that Gradio does not make: sign-in, accounts and quality for admins, flagged judgments for reviewers.

They are plain HTML from templates, made on the server and shown to whoever has the role; nothing of them is in the
annotators' app, whose parts every annotator's browser gets.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from annotation_ui import texts
from annotation_ui.app_settings import AppSettings
from annotation_ui.quality.flagged_judgments import PER_PAGE, flagged
from annotation_ui.quality.stored_judgments import accounts_at_work
from annotation_ui.store import accounts, sign_ins
from annotation_ui.store.database import Store
from annotation_ui.vocabulary import AccountRole, Refused
from annotation_ui.web.page_templates import make_page
from annotation_ui.web.security import COOKIE, LocalKey, token_in

SIGN_INS_AT_ONCE = 4
"""More wait in line, with threads of their own, so that no flood of guesses stops those who are signed in."""


def add_pages(app: FastAPI, store: Store, settings: AppSettings, local: LocalKey | None, *, secure: bool) -> None:
    """Give the server its pages.

    Args:
        app: to add them to.
        store: accounts and judgments.
        settings: of the app.
        local: the link that signs in without a password, if there is one.
        secure: whether browsers reach the server through HTTPS, so that they send the cookie there only.
    """
    at_once = CapacityLimiter(SIGN_INS_AT_ONCE)

    def valid_link() -> LocalKey | None:
        with store.read() as connection:
            return None if accounts.has_people(connection) else local

    def signed_in(token: str) -> Response:
        response = RedirectResponse("/", 303)
        age = round(3600 * settings.accounts.session_hours)
        response.set_cookie(COOKIE, token, max_age=age, httponly=True, samesite="strict", secure=secure)
        return response

    @app.get("/login")
    def login_page(request: Request, key: str = "") -> Response:
        link = valid_link()
        if link is not None and hmac.compare_digest(key.encode(), link.key.encode()):
            # Not a redirect at once: browsers hold a strict cookie back on one that began on another site.
            token = sign_ins.begin_session(store, settings.accounts, link.annotator_id)
            response = signed_in(token)
            response.status_code = 200
            response.headers["Refresh"] = "0; url=/"
            return response
        return _page("login.html.j2", wrong="", name="", local=link is not None)

    @app.post("/login")
    async def login(request: Request) -> Response:
        form = await request.form()
        name, password = str(form.get("username", "")), str(form.get("password", ""))
        try:
            signing_in = partial(sign_ins.sign_in, store, settings.accounts, name, password)
            token = await to_thread.run_sync(signing_in, limiter=at_once)
        except Refused as refused:
            return _page("login.html.j2", status=401, wrong=str(refused), name=name, local=valid_link() is not None)
        return signed_in(token)

    @app.post("/logout")
    def logout(request: Request) -> Response:
        sign_ins.sign_out(store, token_in(request.headers.get("cookie")))
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE)
        return response

    @app.get("/admin")
    def admin(request: Request) -> Response:
        return _only_for(
            request, ("admin",), lambda: _page("admin.html.j2", people=accounts_at_work(store), me=_who(request))
        )

    @app.get("/admin/report")
    def report(request: Request) -> Response:
        return _only_for(request, ("admin",), lambda: HTMLResponse(_report(store)))

    @app.get("/review")
    def review(request: Request, before: int | None = None) -> Response:
        def page() -> Response:
            judgments, me = flagged(store, before), _who(request)
            return _page("review.html.j2", judgments=judgments, before=before, per_page=PER_PAGE, me=me)

        return _only_for(request, ("reviewer", "admin"), page)


def _who(request: Request) -> accounts.Account:
    return request.scope["account"]


def _only_for(request: Request, roles: tuple[AccountRole, ...], make: Callable[[], Response]) -> Response:
    """The page, for those who may see it."""
    if _who(request).role in roles:
        return make()
    return PlainTextResponse(texts.NOT_FOR_YOU, 403)


def _page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(make_page(template, **values), status)


def _report(store: Store) -> str:
    """The quality report; what it takes is imported here, since a server that nobody asks for it needs none of it."""
    from annotation_ui.quality.quality_report import quality_report
    from annotation_ui.quality.stored_judgments import annotator_names
    from annotation_ui.web.quality_page import as_html

    return as_html(quality_report(store), annotator_names(store), back="/admin")
