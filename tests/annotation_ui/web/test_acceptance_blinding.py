"""Nobody can tell who wrote an answer: nothing of it reaches the browser, and the sides are drawn (checks 6 and 7)."""

from __future__ import annotations

import json
import random
import re
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from annotation_fixtures import COLOURS, new_item, only, rows, user
from annotation_page import PANES, SIDES, DeskPage
from annotation_server import MODEL_NAMES, Site

from annotation_ui.store import conversations_and_places, tables
from annotation_ui.store.assignments import lease
from annotation_ui.store.items import NewItem
from annotation_ui.store.pairs import NewAnswer, VariantInfo
from annotation_ui.store.projects import project_on_page
from annotation_ui.vocabulary import Side, Slot

WORDS = ("aardvark", "zeppelin", "checkpoint", "sampling", "left_slot", "chosen_slot", "order_seed")
"""In names of models and of what is stored about them; in no page."""
STREAM = "/queue/data"
GOLD_SECRETS = ("0.123454321", "918273645", "77001", "88002", "zeppelin knows", 'significantly_better\\"]')


# -- nothing that tells -----------------------------------------------------------------------------------------------


NOTE_FETCHED = """
window.fetched = [];
const fetchAsBefore = window.fetch;
window.fetch = async (...asked) => {
  const answer = await fetchAsBefore(...asked);
  const entry = [answer.url, ""];
  window.fetched.push(entry);
  const decoder = new TextDecoder(), keep = (part) => { entry[1] += decoder.decode(part, { stream: true }); };
  answer.clone().body?.pipeTo(new WritableStream({ write: keep })).catch(() => {}); // cut off by the script
  return answer;
};
"""
"""Notes what scripts get, streams included, of which the browser keeps nothing when a script ends them."""


class Received:
    """Everything that a page got: documents, headers, whatever its scripts fetched, and what they made of it."""

    def __init__(self, desk: DeskPage) -> None:
        self.parts: list[tuple[str, str]] = []
        self._desk = desk
        self._finished: list[Any] = []
        desk.page.add_init_script(NOTE_FETCHED)
        desk.page.on("requestfinished", lambda request: self._finished.append(request))

    def read(self) -> list[tuple[str, str]]:
        """Take in what has come; once the page is left, it is gone."""
        self.parts += [(url, body) for url, body in self._desk.page.evaluate("window.fetched")]
        for request in self._finished:
            response = request.response()
            body = response.text() if request.resource_type == "document" and response.status == 200 else ""
            self.parts.append((request.url, f"{response.all_headers()} {body}"))
        self._finished.clear()
        self.parts.append(("document", self._desk.page.content()))
        return self.parts


def gold_item(name: str) -> NewItem:
    wrote = VariantInfo("zeppelin-gold", "aardvark/checkpoint-9", sampling={"temperature": 0.123454321})
    answers: dict[Slot, NewAnswer] = {
        slot: NewAnswer(f"{colour} to {name}", wrote, seed=918273645, n_tokens=77001, generation_ms=88002)
        for slot, colour in COLOURS.items()
    }
    expected = {"choice": "b", "grades": ["significantly_better"], "explanation": "zeppelin knows"}
    return NewItem(name, (user(name),), answers=answers, source="gold", expected=expected)


def secrets_of(site: Site, annotator_id: str) -> set[str]:
    """Every seed behind what somebody was shown."""
    seeds: set[str] = set()
    for shown in rows(site.store, tables.comparison, annotator_id=annotator_id):
        seeds.add(str(shown.order_seed))
        seeds.add(str(only(site.store, tables.pair, id=shown.pair_id).seed))
        seeds |= {str(answer.seed) for answer in rows(site.store, tables.answer, pair_id=shown.pair_id)}
    return seeds - {"None"}


def test_nothing_that_the_browser_gets_tells_who_wrote_an_answer(site: Site, desk: DeskPage) -> None:
    project = site.project(max_turns=2, gold_share=1.0)
    site.add_items(project, [gold_item("ask of gold"), new_item("ask of the queue")])
    ada = site.person()
    desk = desk.another_tab()
    received = Received(desk)
    desk.enter(ada, project).fetch().wait_for_prompt("ask of gold").judge(4)
    desk.press("n").wait_for_prompt("ask of the queue").judge(6)
    site.models["b"].failures = 1
    desk.send("And now?").wait_for_phase("failed")
    received.read()
    site.models.hold()  # so that the answers come in as a stream, however fast they are
    desk.press("Enter").wait_for_phase("generating")
    for pane in PANES.values():
        desk.wait_for_text(pane, "to")
    desk.wait_for("at => window.fetched.some(([url, body]) => url.includes(at) && body.includes('red to'))", STREAM)
    site.models.let_go()
    desk.wait_for_phase("open").judge(8, "f")
    desk.push("edit").wait_for_status("Editing")
    received.read()
    with desk.leaving_a_stream():
        desk.reload()
    parts = received.read()

    streams = [body for url, body in parts if STREAM in url]
    assert any("red to" in body for body in streams), "the stream of the answers was not seen"
    whole_pages = [body for url, body in parts if url.startswith(f"{site.url}/?project=") and "gradio_config" in body]
    assert len(whole_pages) == 2
    assert len([url for url, _ in parts if "/gradio_api/run/" in url]) >= 9, "the answers to actions were not seen"
    assert only(site.store, tables.item, id=f"{project}/ask of gold").source == "gold"
    seeds = secrets_of(site, ada.id) | {str(seed) for slot in COLOURS for seed in site.models[slot].seeds}
    assert len(seeds) >= 9
    for where, body in parts:
        if not where.startswith((f"{site.url}/assets/", f"{site.url}/static/")):  # the same for everybody
            found = [secret for secret in (*WORDS, *seeds, *GOLD_SECRETS) if secret in body.lower()]
            assert not found, f"{found} in {where}"


def test_training_examples_keep_their_key_until_they_are_judged(site: Site, desk: DeskPage) -> None:
    ada, project = site.person(), site.project()
    desk = desk.another_tab()
    received = Received(desk)
    desk.enter(ada, project)
    desk.push("train").wait_for_phase("open")
    (example,) = rows(site.store, tables.comparison, annotator_id=ada.id)
    conversation = only(site.store, tables.conversation, id=example.conversation_id)
    key = json.loads(only(site.store, tables.item, id=conversation.item_id).expected_json)
    plain = max(re.findall(r"[A-Za-z ,]+", key["explanation"]), key=len)
    assert len(plain) > 20
    assert not [where for where, body in received.read() if plain in body]
    desk.press("1", "Enter").wait_for_phase("explained")
    assert [where for where, body in received.read() if plain in body]


# -- sides ------------------------------------------------------------------------------------------------------------

SHOWINGS, IN_BROWSER = 200, 12


@pytest.fixture
def shown_in_order(site: Site, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """Somebody with 200 comparisons before them, whose sides are drawn from seeds that count up."""
    project = site.project(mode="queue", max_turns=1)
    site.add_items(project, [new_item(f"ask {number}", answered=True) for number in range(SHOWINGS)])
    ada, seeds = site.person(), count()
    monkeypatch.setattr(conversations_and_places, "secrets", SimpleNamespace(randbits=lambda bits: next(seeds)))
    with site.store.write() as connection:
        project_id = project_on_page(connection, project).id
        for item in sorted(rows(site.store, tables.item, project_id=project_id), key=lambda row: row.place):
            lease(connection, ada.id, item.id, lease_minutes=60)
            conversations_and_places.begin(connection, ada.id, item, "work")
    return ada, project


def sides_in_html(sent: list[Any]) -> dict[Side, str]:
    """The answers in what the server sends for the page: its state, the conversation, left, right, ..."""
    panes = zip(SIDES, sent[2:4], strict=True)
    return {side: next(colour for colour in COLOURS.values() if f"{colour} to" in html) for side, html in panes}


def test_sides_are_drawn_evenly_and_stored_as_they_were_shown(
    site: Site, desk: DeskPage, shown_in_order: tuple[Any, str]
) -> None:
    ada, project = shown_in_order
    seen: list[dict[Side, str]] = []
    desk.enter(ada, project).fetch()
    for number in range(IN_BROWSER):
        desk.wait_for_prompt(f"ask {number}")
        seen.append({side: COLOURS[slot] for side, slot in desk.slots().items()})
        desk.judge(1 + number % 8)
    with site.client(ada) as client:
        sent = client.post("/gradio_api/run/view", json={"data": [{"project": project}]}).json()["data"]
        for number in range(IN_BROWSER, SHOWINGS):
            assert f"ask {number}" in sent[1]
            seen.append(sides_in_html(sent))
            form = {name: sent[0]["view"][name] for name in ("comparison_id", "submission_id")}
            form = {"data": [{**form, "option": 1 + number % 8}]}
            sent = client.post("/gradio_api/run/submit", json=form).json()["data"]
            assert sent[0]["level"] == "saved"

    shown = sorted(rows(site.store, tables.comparison, annotator_id=ada.id), key=lambda row: row.order_seed)
    assert len({row.order_seed for row in shown}) == SHOWINGS
    assert [COLOURS[row.left_slot] for row in shown] == [panes["left"] for panes in seen]
    assert all(panes["left"] != panes["right"] for panes in seen)
    on_the_left = [row.left_slot == "a" for row in shown]
    assert on_the_left == [random.Random(row.order_seed).random() < 0.5 for row in shown]
    assert 0.4 <= sum(on_the_left) / SHOWINGS <= 0.6
    said = {row.comparison_id: row for row in rows(site.store, tables.judgment, annotator_id=ada.id)}
    chosen = [said[row.id].chosen_slot for row in shown]
    assert [COLOURS[slot] for slot in chosen] == [
        panes["left" if number % 8 < 4 else "right"] for number, panes in enumerate(seen)
    ]


def test_no_two_showings_have_the_same_seed(site: Site) -> None:
    """The seeds are drawn anew for each showing, whoever it is shown to."""
    project = site.project(mode="queue", max_turns=1, overlap=40)
    site.add_items(project, [new_item("ask", answered=True)])
    for _ in range(40):
        site.act(site.person(), "fetch", project=project)
    shown = rows(site.store, tables.comparison, project_id=only(site.store, tables.project, name=project).id)
    assert len({row.order_seed for row in shown}) == len(shown) == 40
    assert {row.left_slot for row in shown} == {"a", "b"}  # by chance all alike: once in 2^39


def test_the_names_of_the_models_are_in_the_store(site: Site, desk: DeskPage) -> None:
    """What is kept from the browser is kept for the export."""
    ada = site.person()
    desk.enter(ada, site.project(mode="free")).ask("Who wrote this?").judge(2)
    (shown,) = rows(site.store, tables.comparison, annotator_id=ada.id)
    stored = {answer.slot: answer for answer in rows(site.store, tables.answer, pair_id=shown.pair_id)}
    for slot, name in MODEL_NAMES.items():
        assert only(site.store, tables.variant, id=stored[slot].variant_id).name.startswith(name)
        assert stored[slot].text == f"{COLOURS[slot]} to 1: Who wrote this?"
        assert stored[slot].seed == site.models[slot].seeds[-1]
