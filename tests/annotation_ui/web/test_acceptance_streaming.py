"""Answers that come in, answers that do not, and pages that are loaded again in between (checks 10 and 11)."""

from __future__ import annotations

import pytest
from annotation_fixtures import COLOURS, current, new_item, only, rows, wait_for
from annotation_page import BADGE, CARD, PANES, SIDES, WRITING, DeskPage
from annotation_server import Script, Site

from annotation_ui.store import tables

# -- streaming --------------------------------------------------------------------------------------------------------


def test_both_answers_grow_and_grading_opens_when_both_have_ended(site: Site, desk: DeskPage) -> None:
    ada = site.person()
    site.models.hold()
    desk.enter(ada, site.project(mode="free")).send("How do I bake bread?").wait_for_phase("generating")
    begun = {"red to 1: How ", "blue to 1: How "}
    desk.wait_for("n => document.querySelector(n).innerText.includes('to 1: How')", f"{PANES['left']} .body")
    desk.wait_for("n => document.querySelector(n).innerText.includes('to 1: How')", f"{PANES['right']} .body")
    assert {answer[:9] for answer in desk.answers().values()} == {text[:9] for text in begun}
    assert "bread" not in "".join(desk.answers().values())
    assert rows(site.store, tables.answer, pair_id=_pair(site, ada.id)) == []
    assert not desk.may_judge

    site.models.let_go("a")
    slots = {slot: side for side, slot in desk.slots().items()}
    desk.wait_for_text(PANES[slots["a"]], "red to 1: How do I bake bread?")
    desk.wait_for("where => !document.querySelector(where)", f"{PANES[slots['a']]} {WRITING}")
    assert desk.find(f"{PANES[slots['b']]} {WRITING}").is_visible()
    desk.press("1")
    assert (desk.phase, desk.may_judge, desk.option) == ("generating", False, None)

    site.models.let_go("b")
    desk.wait_for_phase("open").wait_for_prompt("How do I bake bread?")
    assert desk.may_judge
    assert desk.slots() == {side: slot for slot, side in slots.items()}
    assert len(rows(site.store, tables.answer, pair_id=_pair(site, ada.id))) == 2
    desk.judge(1)


def _pair(site: Site, annotator_id: str) -> str:
    return str(only(site.store, tables.comparison, annotator_id=annotator_id).pair_id)


def test_a_cut_off_answer_says_so(site: Site, desk: DeskPage) -> None:
    site.models["b"].finish_reason = "length"
    desk.enter(site.person(), site.project(mode="free")).ask("Go on for ever.")
    badges = {side: desk.find(f"{PANES[side]} {BADGE}").count() for side in SIDES}
    assert {desk.slots()[side]: badge for side, badge in badges.items()} == {"a": 0, "b": 1}


def test_an_answer_is_there_though_it_looks_like_the_one_before(site: Site, desk: DeskPage) -> None:
    """Gradio draws no piece of the page again that is equal to the last one: the script must not have emptied it."""
    site.models.hold("b")
    ada, project = site.person(), site.project(mode="free")
    desk.enter(ada, project)
    whole, form = f"{COLOURS['a']} to 1: How are you?", {"data": [{"project": project}]}
    with desk.streams_held() as held, site.client(ada) as client:
        desk.send("How are you?")
        wait_for(lambda: client.post("/gradio_api/run/view", json=form).text, lambda seen: whole in seen)
        for look in range(1, 4):  # the third finds what the second has drawn
            wait_for(lambda: desk.phase and len(held), look.__eq__)
            if look == 2:
                assert whole in desk.wait_until_drawn().answers().values()
            desk.page.evaluate("tandem.failed('watch')")
        wait_for(lambda: desk.phase and len(held), (4).__eq__)
        assert whole in desk.wait_until_drawn().answers().values()
        site.models.let_go()
    desk.wait_for_phase("open").wait_for_prompt("How are you?")


@pytest.mark.parametrize("slot", ["a", "b"])
def test_a_failure_is_shown_nothing_half_is_kept_and_it_can_be_tried_again(
    site: Site, desk: DeskPage, slot: str
) -> None:
    ada = site.person()
    failing = site.models[slot]  # type: ignore[index]
    failing.failures = 2
    desk.enter(ada, site.project(mode="free")).send("Try this.").wait_for_phase("failed")
    card = desk.text(CARD)
    assert "did not answer" in card and "Try this." in card and "Try again" in card
    assert "overloaded" not in card and "13b" not in card and "7b" not in card
    assert rows(site.store, tables.answer, pair_id=_pair(site, ada.id)) == []
    desk.press("1", "2")
    assert desk.option is None

    site.models.hold()
    desk.press("Enter").wait_for_phase("generating")
    site.models.let_go()
    desk.wait_for_phase("failed").press("Enter").wait_for_phase("open").wait_for_prompt("Try this.")
    assert only(site.store, tables.pair, id=_pair(site, ada.id)).state == "complete"
    assert len(rows(site.store, tables.answer, pair_id=_pair(site, ada.id))) == 2
    assert rows(site.store, tables.judgment, annotator_id=ada.id) == []
    desk.judge(8)


@pytest.mark.parametrize("how", ["key", "button"])
def test_what_is_never_answered_can_be_passed_over(site: Site, desk: DeskPage, how: str) -> None:
    ada = site.person()
    desk.enter(ada, site.project(mode="free", max_turns=2)).ask("What is it?").judge(2)
    site.models["a"].failures = 10**6
    desk.send("What else?").wait_for_phase("failed")
    if how == "key":
        desk.press("s")
    else:
        desk.push("pass-over")
    desk.wait_for_phase("idle")
    assert "Skipped" in desk.status
    said = rows(site.store, tables.judgment, annotator_id=ada.id)
    assert [(row.kind, row.skip_reason) for row in said] == [("judgment", None), ("skip", "broken")]


def test_one_persons_answers_do_not_wait_for_anothers(site: Site, desk: DeskPage) -> None:
    ben, project = site.person(), site.project(mode="free")
    site.models.hold()
    desk.enter(site.person(), project).send("First.").wait_for_phase("generating")
    held = site.models.scripts
    wait_for(lambda: [len(script.asked) for script in held.values()], [1, 1].__eq__)
    site.models.scripts = {slot: Script(COLOURS[slot]) for slot in COLOURS}
    site.models.let_go()
    site.act(ben, "ask", project=project, text="Second.")
    wait_for(lambda: site.act(ben, "view", project=project)["view"]["phase"], lambda phase: phase == "open")
    assert desk.phase == "generating"
    for script in held.values():
        script.ends.set()
    desk.wait_for_prompt("First.")


WATCH_PANES = """() => {
  window.strayed = [];
  const look = () => {
    const panes = [...document.querySelectorAll(".pane")].map((pane) => pane.innerText).join();
    const prompt = document.querySelector("[data-part=prompt]")?.innerText ?? "";
    if (panes.includes("Second") && !prompt.includes("Second")) window.strayed.push(panes);
  };
  new MutationObserver(look).observe(document.body, { childList: true, characterData: true, subtree: true });
}"""
"""Notes whenever answers to the second prompt are shown under another one."""


def test_answers_that_come_in_never_stand_under_another_prompt(site: Site, desk: DeskPage) -> None:
    ada = site.person()
    desk.enter(ada, site.project(mode="free", max_turns=1)).ask("First.").judge(1)
    site.models.hold()
    desk.send("Second.").wait_for_phase("generating")
    for side in SIDES:
        desk.wait_for_text(PANES[side], "to")
    desk.press("u").wait_for_status("Taken back").wait_for_prompt("First.")
    desk.page.evaluate(WATCH_PANES)
    site.models.let_go()
    pairs = [row.id for row in rows(site.store, tables.pair) if "Second." in row.prompt_json]
    wait_for(lambda: [rows(site.store, tables.answer, pair_id=each) for each in pairs], lambda found: all(found))
    assert desk.may_judge
    desk.judge(3).wait_for_prompt("Second.")
    assert desk.page.evaluate("window.strayed") == []
    desk.press("4").save()
    kept = [row.grade for row in current(site.store) if row.annotator_id == ada.id]
    assert sorted(kept) == ["negligibly_better", "slightly_better"]


# -- loading the page again -------------------------------------------------------------------------------------------


def test_every_phase_comes_back_as_it_was(site: Site, desk: DeskPage) -> None:
    ada, project = site.person(), site.project(max_turns=2)
    site.add_items(project, [new_item("ask the queue")])
    desk.enter(ada, project)
    assert desk.reload().phase == "idle"

    site.models.hold()
    desk.press("n").wait_for_phase("generating")
    for side in SIDES:
        desk.wait_for_text(PANES[side], "to 1:")
    before = desk.slots()
    with desk.leaving_a_stream():
        desk.reload().wait_for_phase("generating")
    for side in SIDES:
        desk.wait_for_text(PANES[side], "to 1:")
    assert desk.slots() == before
    site.models.let_go()
    desk.wait_for_phase("open").wait_for_prompt("ask the queue")

    whole = desk.answers()
    desk.press("7", "f", "m").type("so far").press("Escape")
    with desk.leaving_a_stream():
        desk.reload().wait_for_prompt("ask the queue")
    assert (desk.answers(), desk.slots()) == (whole, before)
    assert (desk.option, desk.flagged, desk.note) == (7, True, "so far")
    assert desk.may_judge

    desk.press("7").save().wait_for_phase("judged")
    history = desk.history
    assert len(history) == 1
    desk.reload().wait_for_phase("judged").wait_for_prompt("ask the queue")
    assert (desk.answers(), desk.history, desk.option) == (whole, history, 7)
    assert not desk.may_judge

    desk.ask("And then?")
    past, whole, before, history = desk.past, desk.answers(), desk.slots(), desk.history
    assert "ask the queue" in past
    with desk.leaving_a_stream():
        desk.reload().wait_for_prompt("And then?")
    assert (desk.past, desk.answers(), desk.slots(), desk.history) == (past, whole, before, history)
    desk.judge(2)
    assert [len(script.asked) for script in site.models.scripts.values()] == [2, 2]  # nothing was drawn again
    assert len(rows(site.store, tables.judgment, annotator_id=ada.id)) == 2


def test_an_unsent_prompt_comes_back_and_is_only_the_writers(site: Site, desk: DeskPage) -> None:
    project = site.project(mode="free")
    desk.enter(site.person(), project).press("/").type("Half a thou")
    desk.reload()
    assert desk.unsent == "Half a thou"
    desk.enter(site.person(), project)
    assert desk.unsent == ""


def test_what_was_not_sent_comes_back_with_its_pair(site: Site, desk: DeskPage) -> None:
    ada, project, other = site.person(), site.project(mode="both", max_turns=1), site.project(mode="free")
    site.add_items(project, [new_item("ask", answered=True), new_item("another", answered=True)])
    desk.enter(ada, project).fetch().judge(1).wait_for_prompt("another")
    desk.press("7", "f", "m").type("half a note").press("Escape")
    desk.push("edit").wait_for_status("Editing")
    assert (desk.option, desk.note, desk.flagged) == (1, "", False)
    desk.press("3", "n").wait_for_prompt("another")
    assert (desk.option, desk.note, desk.flagged) == (7, "half a note", True)
    desk.push("edit").wait_for_status("Editing")
    assert desk.option == 1  # what was said, not what was left as it was
    desk.press("n").wait_for_prompt("another")

    desk.page.select_option("select.project", other)
    desk.wait_for_phase("idle").press("/").type("Half a thou").press("Escape")
    desk.page.select_option("select.project", project)
    desk.wait_for_prompt("another")
    assert (desk.option, desk.note, desk.flagged) == (7, "half a note", True)
    desk.page.select_option("select.project", other)
    desk.wait_for_phase("idle")
    assert desk.unsent == "Half a thou"


def test_a_page_that_was_wrong_is_put_right_by_what_is_refused(site: Site, desk: DeskPage) -> None:
    ada, project = site.person(), site.project(mode="queue", max_turns=1)
    site.add_items(project, [new_item("ask", answered=True)])
    desk.enter(ada, project)
    site.act(ada, "fetch", project=project)  # in another tab, say
    desk.press("n").wait_for_status("Judge this pair first").wait_for_prompt("ask")
    desk.judge(1)


def test_another_browser_shows_the_same(site: Site, desk: DeskPage) -> None:
    """As after a crash: nothing is needed of the page that was lost."""
    ada, project = site.person(), site.project(mode="queue", max_turns=1)
    site.add_items(project, [new_item("ask", answered=True), new_item("another", answered=True)])
    desk.enter(ada, project).fetch().wait_for_prompt("ask")
    before = desk.answers()
    desk.page.evaluate("sessionStorage.clear()")
    other = desk.another_tab()
    other.open(project).wait_for_prompt("ask")
    assert other.answers() == before
    assert set(other.slots().values()) == set(COLOURS)
