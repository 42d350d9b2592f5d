"""The queue: skips, flags, overlap and leases; and what a session asks of the rest of the world (checks 16 and 3)."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from annotation_fixtures import LONG_AGO, change, new_item, only, rows
from annotation_page import FLAGGED, GUIDELINES, REASON, REASONS, DeskPage
from annotation_server import Models, Site, Visitor, running_site
from browser import OpenPage
from sqlalchemy import select

from annotation_ui import texts
from annotation_ui.store import tables
from annotation_ui.store.items import add_items
from annotation_ui.store.projects import project_named


def queue(site: Site, n_items: int, **settings: Any) -> str:
    """A project with items ``ask 0``, ``ask 1``, ... that were answered before."""
    project = site.project(mode="queue", max_turns=1, **settings)
    site.add_items(project, [new_item(f"ask {number}", answered=True) for number in range(n_items)])
    return project


# -- guidelines -------------------------------------------------------------------------------------------------------


def test_guidelines_that_change_reach_an_open_page_and_judgments_name_what_was_read(
    site: Site, desk: DeskPage, tmp_path: Path
) -> None:
    ada, shown, file = site.person(), {"mode": "queue", "max_turns": 1}, tmp_path / "guidelines.md"
    file.write_text("Be kind.", encoding="utf-8")
    name = queue(site, 3, guidelines=str(file))
    desk.enter(ada, name).fetch()
    assert "Be kind." in desk.text(GUIDELINES)
    desk.judge(1).wait_for_prompt("ask 1")

    file.write_text("Be brief.", encoding="utf-8")
    site.keep_project(name, guidelines=str(file), **shown)
    # Not ``judge``, which waits for "saved": that the guidelines have changed is said in its place, at once.
    desk.press("2", "Enter").wait_for_prompt("ask 2").wait_for_text(GUIDELINES, "Be brief.")
    desk.wait_for_status("The guidelines have changed")
    desk.judge(3).wait_for_phase("empty")

    said = rows(site.store, tables.judgment, annotator_id=ada.id)
    kind, brief = (hashlib.sha256(text.encode()).hexdigest() for text in ("Be kind.", "Be brief."))
    assert [(row.grade, row.guidelines_sha256) for row in said] == [
        ("significantly_better", kind),
        ("better", kind),
        ("slightly_better", brief),
    ]


# -- skips and flags --------------------------------------------------------------------------------------------------


def test_each_reason_for_a_skip_is_kept_and_none_counts(site: Site, desk: DeskPage) -> None:
    ada, project = site.person(), queue(site, len(texts.SKIP_REASONS) + 1)
    desk.enter(ada, project).fetch()
    for number, reason in enumerate(texts.SKIP_REASONS):
        desk.wait_for_prompt(f"ask {number}")
        desk.press("s")
        assert texts.SKIP_REASONS[reason] in desk.find(REASON).nth(number).inner_text()
        desk.press("Escape").skip(number + 1)
    desk.wait_for_prompt(f"ask {len(texts.SKIP_REASONS)}")
    said = rows(site.store, tables.judgment, annotator_id=ada.id)
    assert [(row.kind, row.skip_reason, row.grade) for row in said] == [
        ("skip", one, None) for one in texts.SKIP_REASONS
    ]
    assert desk.progress == (0, 0, 0)
    assert "ask 6 Skipped: another reason" in desk.history[0]
    desk.judge(1, "f").wait_for_phase("empty")
    assert desk.progress == (1, 1, 0)
    assert json.loads(rows(site.store, tables.judgment, annotator_id=ada.id)[-1].flags_json) == ["for_review"]


def test_a_skip_needs_a_reason_and_can_be_called_off(site: Site, desk: DeskPage) -> None:
    ada = site.person()
    desk.enter(ada, queue(site, 1)).fetch().press("s", "Enter").wait_for_status("Choose a reason")
    desk.press("3", "Escape")
    assert not desk.find(REASONS).is_visible()
    desk.press("Enter").wait_for_status("Choose an answer first")
    assert rows(site.store, tables.judgment, annotator_id=ada.id) == []


def test_a_flagged_judgment_is_before_the_reviewers(site: Site, desk: DeskPage) -> None:
    desk.enter(site.person(), queue(site, 1)).fetch().press("2", "f", "m").type("see <b>here</b>").press("Escape")
    desk.save()
    desk.enter(site.person("reviewer"), queue(site, 0))
    desk.page.goto(f"{site.url}/review")
    card = desk.find(FLAGGED).filter(has_text="see <b>here</b>")
    assert "ask 0" in card.inner_text() and "Chosen, better" in card.inner_text()


# -- who gets what ----------------------------------------------------------------------------------------------------


def fetched(site: Site, visitor: Visitor, project: str) -> str | None:
    """Take the next item without a browser; its prompt, or nothing."""
    view = site.act(visitor, "fetch", project=project)["view"]
    if view["phase"] != "open":
        return None
    shown = only(site.store, tables.comparison, id=view["comparison_id"])
    prompt = json.loads(only(site.store, tables.pair, id=shown.pair_id).prompt_json)
    return str(prompt[-1]["content"])


def test_with_overlap_two_each_item_goes_to_two_people_once(site: Site, desk: DeskPage) -> None:
    project = queue(site, 1, overlap=2)
    ada, ben, cleo = site.person(), site.person(), site.person()
    desk.enter(ada, project).fetch().wait_for_prompt("ask 0").judge(1).wait_for_phase("empty")
    assert fetched(site, ada, project) is None
    assert fetched(site, ben, project) == "ask 0"
    desk.enter(cleo, project).wait_for_phase("empty")
    assert fetched(site, cleo, project) is None
    pairs = {row.pair_id for row in rows(site.store, tables.comparison) if row.annotator_id in (ada.id, ben.id)}
    assert len(pairs) == 1


def test_what_is_skipped_goes_to_somebody_else(site: Site, desk: DeskPage) -> None:
    project, ada, ben = queue(site, 1), site.person(), site.person()
    desk.enter(ada, project).fetch()
    assert fetched(site, ben, project) is None
    desk.skip(7).wait_for_phase("empty")
    assert fetched(site, ben, project) == "ask 0"
    assert fetched(site, ada, project) is None


def test_an_expired_lease_goes_to_somebody_else_and_a_late_judgment_is_kept(site: Site, desk: DeskPage) -> None:
    project, ada, ben = queue(site, 1), site.person(), site.person()
    desk.enter(ada, project).fetch().wait_for_prompt("ask 0")
    assert fetched(site, ben, project) is None
    change(site.store, tables.assignment, {"lease_expires_at": LONG_AGO}, annotator_id=ada.id)
    assert fetched(site, ben, project) == "ask 0"
    desk.judge(1)
    assert len(rows(site.store, tables.judgment, annotator_id=ada.id)) == 1


def test_leaving_gives_the_item_back(site: Site, desk: DeskPage) -> None:
    project = queue(site, 1, dimension="safety", ask_safety=True)
    ada, ben = site.person(), site.person()
    desk.enter(ada, project).wait_for_phase("warning").press("Enter").wait_for_phase("idle").fetch()
    desk.push("leave").wait_for_phase("warning")
    assert rows(site.store, tables.judgment, annotator_id=ada.id) == []
    site.act(ben, "accept", project=project)
    assert fetched(site, ben, project) == "ask 0"


# -- the rest of the world --------------------------------------------------------------------------------------------

LOOPBACK = re.compile(r"('127\.0\.0\.1'|'::1'|\b127\.0\.0\.1|\blocalhost|None)")


def foreign(addresses: list[str]) -> list[str]:
    """Those of the addresses that are not this machine's; a path is a socket of this machine."""
    return [
        line for line in addresses if not LOOPBACK.search(line) and not line.partition(" ")[2].startswith(("/", "b'/"))
    ]


def test_what_counts_as_foreign() -> None:
    here = [
        "socket.connect ('127.0.0.1', 80)",
        "socket.getaddrinfo localhost",
        "socket.connect /run/x",
        "socket.connect ('::1', 1, 0, 0)",
    ]
    there = ["socket.connect ('10.0.0.1', 80)", "socket.getaddrinfo api.gradio.app", "socket.sendto ('8.8.8.8', 53)"]
    assert foreign([*here, *there]) == there


def test_a_session_with_models_talks_to_nobody_else(site: Site, desk: DeskPage) -> None:
    desk.enter(site.person(), site.project(mode="free", max_turns=2)).ask("What is bread?").judge(1)
    desk.ask("And butter?").press("?", "Escape").wait_until_drawn().press("g", "g", "t", "t").judge(5)
    desk.press("n").wait_for_phase("idle")
    with site.client(site.person("admin")) as client:
        assert client.get("/admin/report").status_code == 200  # plots and statistics ask nobody either
    port = site.models.url.split(":")[2].partition("/")[0]
    assert [line for line in site.addresses() if f"127.0.0.1', {port})" in line], "the server's own calls were not seen"
    assert foreign(site.addresses()) == []
    # The page itself is looked at when each test ends.


def test_a_session_with_pairs_only_needs_no_account_no_torch_and_no_network(
    open_page: OpenPage, models: Models, tmp_path: Path
) -> None:
    with running_site(tmp_path, models, "--pairs-only") as site:
        with site.store.write() as connection:
            project = project_named(connection, "first")
            add_items(connection, project, [new_item(f"ask {number}", answered=True) for number in range(4)])
        link = re.search(r"open (\S+)", site.server.said())
        assert link is not None
        tab = open_page(link[1])
        desk = DeskPage(tab, site).wait_for_phase("idle")
        desk.fetch().wait_for_prompt("ask 0").judge(1).wait_for_prompt("ask 1")
        desk.press("8", "f", "m").type("a note").press("Escape").save().wait_for_prompt("ask 2").skip(2)
        desk.wait_for_prompt("ask 3").press("u").wait_for_prompt("ask 2").judge(3).wait_for_prompt("ask 3")
        desk.press("g", "g", "t", "?", "Escape").wait_until_drawn().judge(6).wait_for_phase("empty")
        for path in ("admin", "review"):
            desk.page.goto(f"{site.url}/{path}")
        desk.open("first")
        assert tab.page.evaluate("localStorage.length") == 0
        desk.sign_out()
        assert tab.page.evaluate("localStorage.length") == 0
        assert tab.traffic.problems == []
        assert foreign(site.addresses()) == []
        with site.store.read() as connection:
            assert len(connection.execute(select(tables.current_judgment)).all()) == 4
        assert models["a"].asked == []
        maps = Path(f"/proc/{site.server.process.pid}/maps").read_text(encoding="utf-8")
        assert "libtorch" not in maps


@pytest.mark.parametrize("path", ["gradio_api/run-history/status", "gradio_api/run-history", "openapi.json", "docs"])
def test_nothing_of_gradios_that_is_not_needed_is_there(site: Site, path: str) -> None:
    with site.client(site.person("admin")) as client:
        assert client.get(f"/{path}").status_code == 404
