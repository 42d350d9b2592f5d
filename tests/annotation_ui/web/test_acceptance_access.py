"""Who gets in, from where, how much they may send, and what somebody else's work is to them (checks 1, 2, 14, 15)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from annotation_fixtures import new_item, only, rows
from annotation_page import ALERT, COUNTER, DeskPage
from annotation_server import MAX_FAILURES, MAX_PROMPT_CHARS, Site, Visitor

from annotation_ui.store import tables

PASSWORD = "correct horse battery"


# -- signing in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/config"),
        ("GET", "/info"),
        ("GET", "/theme.css"),
        ("GET", "/openapi.json"),
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/queue/data?session_hash=x"),
        ("GET", "/gradio_api/file=annotations.db"),
        ("GET", "/gradio_api/file=/etc/hostname"),
        ("GET", "/gradio_api/call/view/1"),
        ("GET", "/gradio_api/heartbeat/x"),
        ("GET", "/gradio_api/startup-events"),
        ("POST", "/gradio_api/call/view"),
        ("POST", "/gradio_api/run/view"),
        ("POST", "/gradio_api/queue/join"),
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/cancel"),
        ("POST", "/gradio_api/reset"),
        ("GET", "/admin"),
        ("GET", "/review"),
        ("GET", "/nothing"),
    ],
)
def test_without_a_session_everything_is_refused(site: Site, method: str, path: str) -> None:
    body = {"data": [{}], "fn_index": 0, "session_hash": "x"} if method == "POST" else None
    with site.client() as client:
        answer = client.request(method, path, json=body)
        assert answer.status_code == 401 or (answer.status_code == 404 and answer.text == "Not found.")
        client.cookies.set("tandem_session", "made-up")
        assert client.request(method, path, json=body).status_code == answer.status_code


def test_a_browser_is_sent_to_the_sign_in_page_and_says_nothing_more_of_the_app(site: Site) -> None:
    with site.client() as client:
        answer = client.get("/", headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert "gradio" not in client.get("/login").text.lower()


def test_a_wrong_password_is_refused_and_after_some_the_right_one_too(site: Site, desk: DeskPage) -> None:
    ada, ben = site.person(password=PASSWORD), site.person(password=PASSWORD)
    for _ in range(MAX_FAILURES):
        desk.sign_in(ada.name, "wrong horse battery")
        assert "Wrong name or password." in desk.text(ALERT)
    desk.sign_in(ada.name, PASSWORD)
    assert "Too many wrong passwords" in desk.text(ALERT)
    assert desk.page.url == f"{site.url}/login"
    desk.sign_in(ben.name, PASSWORD)
    desk.wait_for_phase()
    refused = [f"401 POST {site.url}/login"] * (MAX_FAILURES + 1)
    assert desk.tab.traffic.failed_responses == refused
    desk.tab.traffic.failed_responses.clear()
    desk.tab.traffic.console_errors[:] = [
        error for error in desk.tab.traffic.console_errors if "status of 401" not in error
    ]


def test_signing_out_ends_the_session_and_cookies_are_closed_to_scripts(site: Site, desk: DeskPage) -> None:
    ada = site.person(password=PASSWORD)
    desk.sign_in(ada.name, PASSWORD)
    desk.wait_for_phase()
    (cookie,) = [one for one in desk.tab.context.cookies() if one["name"] == "tandem_session"]
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    with site.client() as client:
        client.cookies.set("tandem_session", cookie["value"])
        assert client.get("/config").status_code == 200
        desk.sign_out()
        assert client.get("/config").status_code == 401


# -- from where, and how much -----------------------------------------------------------------------------------------


def test_only_this_machine_is_listened_to(site: Site) -> None:
    process = psutil.Process(site.server.process.pid)
    listening = [one.laddr for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert [address.ip for address in listening] == ["127.0.0.1"]
    assert [address.port for address in listening] == [httpx.URL(site.url).port]


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    """Somebody who is signed in, by raw HTTP."""
    with site.client(site.person()) as signed_in:
        yield signed_in


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", ""])
def test_another_host_name_is_refused(client: httpx.Client, host: str) -> None:
    assert client.get("/config", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:1", "null", "https://{host}.evil.example"])
def test_a_post_from_another_origin_is_refused(client: httpx.Client, origin: str) -> None:
    origin = origin.format(host=client.base_url.netloc.decode())
    for path in ("/gradio_api/run/view", "/logout", "/login"):
        assert client.post(path, json={"data": [{}]}, headers={"Origin": origin}).status_code == 403
    assert client.get("/config", headers={"Origin": origin}).headers.get("access-control-allow-origin") is None
    assert client.get("/config").status_code == 200  # still signed in


def test_a_post_from_the_page_itself_is_not_refused(client: httpx.Client) -> None:
    origin = str(client.base_url).rstrip("/")
    answer = client.post("/gradio_api/run/view", json={"data": [{}]}, headers={"Origin": origin})
    assert answer.status_code == 200


@pytest.mark.parametrize("announced", [True, False])
def test_a_megabyte_is_refused(client: httpx.Client, announced: bool) -> None:
    body = b'{"data": ["' + b"x" * 2**20 + b'"]}'
    content: Any = body if announced else iter([body[:1000], body[1000:]])
    answer = client.post("/gradio_api/run/view", content=content, headers={"Content-Type": "application/json"})
    assert ("content-length" in answer.request.headers) == announced
    assert answer.status_code == 413


# -- other people's work ----------------------------------------------------------------------------------------------


@pytest.fixture
def judged(site: Site) -> tuple[Visitor, Any]:
    """Somebody, and the comparison that they judged."""
    project = site.project(mode="queue", max_turns=1)
    site.add_items(project, [new_item(f"secret of {project}", answered=True)])
    ada = site.person()
    view = site.act(ada, "fetch", project=project)["view"]
    ids = {name: view[name] for name in ("comparison_id", "submission_id")}
    assert site.act(ada, "submit", option=1, **ids)["level"] == "saved"
    return ada, only(site.store, tables.comparison, annotator_id=ada.id)


def everything(comparison_id: str, project: str) -> dict[str, Any]:
    """What every action of the page could be sent."""
    ids = {"comparison_id": comparison_id, "submission_id": f"{comparison_id}.1", "project": project}
    return {**ids, "option": 8, "reason": "other", "text": "mine"}


def events_of(client: httpx.Client) -> list[int]:
    """The number of every event of the app."""
    return [event["id"] for event in client.get("/config").json()["dependencies"]]


def by_name(client: httpx.Client, name: str, form: Any) -> str:
    """Call an event by its name; returns all that comes back."""
    begun = client.post(f"/gradio_api/call/{name}", json={"data": [form]})
    if begun.status_code != 200:
        return begun.text
    return client.get(f"/gradio_api/call/{name}/{begun.json()['event_id']}").text


def by_number(client: httpx.Client, number: int, form: Any) -> str:
    """Call an event by its number, through the queue; returns all that comes back."""
    session = f"s{number}"
    call = {"data": [form], "fn_index": number, "session_hash": session, "event_data": None, "trigger_id": None}
    joined = client.post("/gradio_api/queue/join", json=call)
    if joined.status_code != 200:
        return joined.text
    said = ""
    with client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as stream:
        for line in stream.iter_lines():
            said += line
            if "process_completed" in line or "close_stream" in line or "unexpected_error" in line:
                break
    return said


NAMES = ["edit", "retract", "skip", "submit", "undo", "retry", "view", "fetch"]


def test_nobody_reads_or_changes_anothers_comparison_by_id(site: Site, judged: tuple[Visitor, Any]) -> None:
    ada, shown = judged
    project = only(site.store, tables.project, id=shown.project_id).name
    ben, form = site.person(), everything(shown.id, project)
    before = rows(site.store, tables.judgment), rows(site.store, tables.comparison, annotator_id=ada.id)
    for name in ("submit", "skip", "edit", "retract"):
        state = site.act(ben, name, **form)
        assert state["message"] == "There is no such comparison of yours. Reload the page."
        assert state.get("view", {}).get("comparison_id") is None  # what is on the desk of the one who asks
    with site.client(ben) as client:
        said = [by_name(client, name, form) for name in NAMES]
        numbers = events_of(client)
        said += [by_number(client, number, form) for number in numbers]
    assert len(numbers) > 20 and all(said)
    assert not [text for text in said if "secret of" in text or shown.id in text]
    assert before == (rows(site.store, tables.judgment), rows(site.store, tables.comparison, annotator_id=ada.id))


def test_a_person_can_do_all_that_with_their_own(site: Site, judged: tuple[Visitor, Any]) -> None:
    """The calls above would have worked for the owner, by each of the three ways."""
    ada, shown = judged
    form = everything(shown.id, only(site.store, tables.project, id=shown.project_id).name)
    assert site.act(ada, "edit", **form)["view"]["editing"]
    with site.client(ada) as client:
        assert "secret of" in by_name(client, "edit", form)
        assert any("secret of" in by_number(client, number, form) for number in events_of(client))
    assert site.act(ada, "submit", **form)["level"] == "saved"
    assert [row.grade for row in rows(site.store, tables.judgment, annotator_id=ada.id)] == ["significantly_better"] * 2


@pytest.mark.parametrize(("role", "seen"), [("annotator", [403, 403]), ("reviewer", [200, 403]), ("admin", [200, 200])])
def test_pages_of_reviewers_and_admins_are_theirs(site: Site, role: Any, seen: list[int]) -> None:
    with site.client(site.person(role)) as client:
        assert [client.get(path).status_code for path in ("/review", "/admin")] == seen
        if role != "admin":  # for admins, it is made in check 3
            assert client.get("/admin/report").status_code == 403


def test_the_app_has_no_event_for_reviewers_or_admins(site: Site) -> None:
    with site.client(site.person("admin")) as admin, site.client(site.person()) as annotator:
        assert events_of(admin) == events_of(annotator)
        names = {event["api_name"] for event in annotator.get("/config").json()["dependencies"]}
    assert not [name for name in names if re.search("admin|review|user|export|report", str(name))]


# -- prompts that are too long, or empty ------------------------------------------------------------------------------


def test_the_prompt_box_stops_at_the_limit(site: Site, desk: DeskPage) -> None:
    desk.enter(site.person(), site.project(mode="free")).press("/")
    desk.paste("x" * (MAX_PROMPT_CHARS - 2)).type("12345")
    assert desk.unsent == "x" * (MAX_PROMPT_CHARS - 2) + "12"
    assert desk.text(COUNTER) == f"{MAX_PROMPT_CHARS} / {MAX_PROMPT_CHARS}"
    desk.press("Enter").wait_for_phase("open")
    assert [len(messages[-1]["content"]) for messages in site.models["a"].asked] == [MAX_PROMPT_CHARS]


def test_an_empty_prompt_is_refused_on_the_page(site: Site, desk: DeskPage) -> None:
    desk.enter(site.person(), site.project(mode="free")).press("/", "Enter").wait_for_status("Write a prompt first.")
    desk.press("Space", "Shift+Enter", "Enter").wait_for_status("Write a prompt first.")
    assert desk.phase == "idle"
    assert site.models["a"].asked == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "x" * (MAX_PROMPT_CHARS + 1),
            f"The prompt has {MAX_PROMPT_CHARS + 1} characters; at most {MAX_PROMPT_CHARS} fit.",
        ),
        ("", "Write a prompt first."),
        (" \n\t ", "Write a prompt first."),
        (None, "The page sent something incomplete. Reload it and try again."),
        ({"a": 1}, "The page sent something incomplete. Reload it and try again."),
    ],
)
def test_the_server_refuses_it_too(site: Site, text: Any, said: str) -> None:
    ada = site.person()
    assert site.act(ada, "ask", project=site.project(mode="free"), text=text)["message"] == said
    assert rows(site.store, tables.comparison, annotator_id=ada.id) == []
    assert site.models["a"].asked == []
