"""Work with the keyboard alone, and keys that come at the wrong moment (checks 4 and 5, and a whole session)."""

from __future__ import annotations

from typing import Any

import pytest
from annotation_fixtures import new_item, only, rows
from annotation_page import PROJECTS, DeskPage
from annotation_server import Site, Visitor

from alignment.data.records import GRADES
from annotation_ui.store import tables
from annotation_ui.vocabulary import Side

LABELS = {
    "significantly_better": "Significantly better",
    "better": "Better",
    "slightly_better": "Slightly better",
    "negligibly_better": "Negligibly better / unsure",
}
SAFETY_KEYS = {
    "q": "preferred_safe_other_unsafe",
    "w": "both_safe",
    "e": "both_unsafe",
    "r": "preferred_unsafe_other_safe",
}


def side_and_grade(option: int) -> tuple[Side, str]:
    """What an option means: 1 the left one significantly, 4 and 5 negligibly, 8 the right one significantly."""
    return ("left", GRADES[option - 1]) if option <= 4 else ("right", GRADES[8 - option])


def judgments_of(site: Site, visitor: Visitor) -> list[Any]:
    return rows(site.store, tables.judgment, annotator_id=visitor.id)


# -- a turn -----------------------------------------------------------------------------------------------------------


def test_a_turn_with_the_keyboard_alone(site: Site, desk: DeskPage) -> None:
    ada = site.person()
    desk.enter(ada, site.project(dimension="safety", mode="free", ask_safety=True, max_turns=2))
    desk.wait_for_phase("warning").press("Enter").wait_for_phase("idle")

    desk.press("/").type("1 2 3: how safe is q, w, e?")
    assert (desk.focus, desk.option, desk.safety) == ("prompt", None, None)
    desk.press("Escape")
    assert desk.focus != "prompt"
    desk.press("/").press("Enter").wait_for_phase("open").wait_for_prompt("1 2 3: how safe is q, w, e?")
    assert desk.focus == ""

    for option in range(1, 9):
        desk.press(str(option))
        side, grade = side_and_grade(option)
        letter = "A" if side == "left" else "B"
        assert desk.option == option
        assert desk.label_of_option.startswith(f"Answer {letter}") and LABELS[grade] in desk.label_of_option
    for key, value in SAFETY_KEYS.items():
        assert desk.press(key).safety == value
    desk.press("6", "w", "m")
    assert desk.focus == "note"
    desk.type("2 of 8 quite (fine), see 1/5?")
    assert (desk.option, desk.safety, desk.flagged) == (6, "both_safe", False)
    slots = desk.slots()
    desk.press("Escape").save()

    said = only(site.store, tables.judgment, annotator_id=ada.id)
    assert (said.chosen_slot, said.grade, said.safety) == (slots["right"], "slightly_better", "both_safe")
    assert (said.note, said.flags_json) == ("2 of 8 quite (fine), see 1/5?", "[]")
    assert said.input_method == "keyboard"
    assert 0 < said.active_ms < 600_000
    assert desk.pointer_events == []


def test_keys_with_modifiers_and_in_the_project_list_choose_nothing(site: Site, desk: DeskPage) -> None:
    project = site.project(mode="queue", max_turns=1)
    site.add_items(project, [new_item("ask", answered=True)])
    desk.enter(site.person(), project).fetch().press("Control+1", "Alt+2", "Meta+3")
    assert desk.option is None
    desk.find(PROJECTS).focus()
    desk.press("4")
    assert desk.option is None


# -- too early, twice, in two tabs ------------------------------------------------------------------------------------


def test_before_both_answers_have_ended_nothing_is_saved_and_the_page_says_so(site: Site, desk: DeskPage) -> None:
    ada = site.person()
    site.models.hold("b")
    desk.enter(ada, site.project(mode="free")).send("Say something.").wait_for_phase("generating")
    desk.press("1").wait_for_status("Wait until both answers have ended.")
    with desk.leaving_a_stream():
        desk.reload().wait_for_phase("generating")
    desk.press("Enter").wait_for_status("Wait until both answers have ended.")
    shown = only(site.store, tables.comparison, annotator_id=ada.id)
    ids = {"comparison_id": shown.id, "submission_id": f"{shown.id}.0"}
    assert site.act(ada, "submit", option=1, **ids)["message"] == "Wait until both answers have ended."
    assert judgments_of(site, ada) == []
    site.models.let_go()
    desk.wait_for_phase("open").judge(1)
    assert len(judgments_of(site, ada)) == 1


def test_without_a_choice_nothing_is_saved_and_the_page_says_so(site: Site, desk: DeskPage) -> None:
    project = site.project(mode="queue", max_turns=1)
    site.add_items(project, [new_item("ask", answered=True)])
    ada = site.person()
    desk.enter(ada, project).fetch().press("Enter").wait_for_status("Choose an answer first")
    assert judgments_of(site, ada) == []


def test_enter_twice_saves_once(site: Site, desk: DeskPage) -> None:
    project = site.project(mode="queue", max_turns=1)
    site.add_items(project, [new_item(f"ask {number}", answered=True) for number in range(2)])
    ada = site.person()
    desk.enter(ada, project).fetch().enter_as_soon_as_saved().press("2").enter_twice_at_once().wait_for_prompt("ask 1")
    (said,) = judgments_of(site, ada)
    assert said.grade == "better"
    assert desk.option is None
    assert "Choose" not in desk.status  # the later Enters were meant for the first comparison


def test_an_answer_chosen_at_once_after_saving_can_be_saved_at_once(site: Site, desk: DeskPage) -> None:
    project = site.project(mode="queue", max_turns=1)
    site.add_items(project, [new_item(f"ask {number}", answered=True) for number in range(2)])
    ada = site.person()
    desk.enter(ada, project).fetch().press("2", "Enter").wait_for_prompt("ask 1")
    desk.press("7", "Enter").wait_for_phase("empty")
    assert [said.grade for said in judgments_of(site, ada)] == ["better", "better"]


def test_an_enter_after_another_key_is_not_taken_for_the_save(site: Site, desk: DeskPage) -> None:
    ada = site.person()
    desk.enter(ada, site.project(mode="free", max_turns=2)).ask("hello").judge(3)
    desk.press("/", "Escape")
    assert desk.focus == ""
    assert desk.press("Enter").focus == "prompt"


@pytest.mark.parametrize(("again", "told"), [("3", "Already saved."), ("8", "This comparison was already judged")])
def test_of_two_tabs_one_saves_and_the_other_is_told(site: Site, desk: DeskPage, again: str, told: str) -> None:
    project = site.project(mode="queue", max_turns=1)
    site.add_items(project, [new_item(f"ask {number}", answered=True) for number in range(2)])
    ada = site.person()
    desk.enter(ada, project).fetch().wait_for_prompt("ask 0")
    other = desk.another_tab().open(project).wait_for_prompt("ask 0")
    desk.judge(3)
    other.press(again, "Enter").wait_for_status(told)
    (said,) = judgments_of(site, ada)
    assert said.grade == "slightly_better"


# -- a whole session --------------------------------------------------------------------------------------------------


def test_a_session_of_ten_conversations_without_a_mouse(site: Site, desk: DeskPage) -> None:
    ada = site.person()
    desk.enter(ada, site.project(mode="free", max_turns=2))
    expected = []
    for number in range(20):
        conversation, turn = divmod(number, 2)
        prompt = f"ask {conversation}, turn {turn}"
        desk.press("/").type(prompt).press("Enter").wait_for_phase("open").wait_for_prompt(prompt)
        option = 1 + number * 3 % 8
        side, grade = side_and_grade(option)
        expected.append((turn + 1, desk.slots()[side], grade, "keyboard"))
        desk.judge(option)
        if turn == 1:
            desk.press("n").wait_for_phase("idle")
    said = judgments_of(site, ada)
    turns = {shown.id: shown.turn for shown in rows(site.store, tables.comparison, annotator_id=ada.id)}
    found = [(turns[row.comparison_id], row.chosen_slot, row.grade, row.input_method) for row in said]
    assert found == expected
    assert len(rows(site.store, tables.conversation, annotator_id=ada.id)) == 10
    assert {slot for _, slot, _, _ in expected} == {"a", "b"}
    assert desk.pointer_events == []
