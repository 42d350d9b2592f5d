"""Turns that go on from what was chosen, changing one's mind, safety, and what comes out (checks 12, 13, 18, 19)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from annotation_fixtures import COLOURS, new_item, rows
from annotation_page import BINS, DeskPage
from annotation_server import Site, Visitor
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from alignment.errors import UserError
from annotation_ui.exchange.export_judgments import export
from annotation_ui.exchange.selection import ExportFilter
from annotation_ui.store import tables


def exported(site: Site, folder: Path, project: str, **filters: Any) -> list[dict[str, Any]]:
    """What an export of a project holds now."""
    target = folder / "comparisons.jsonl"
    export(site.store, target, ExportFilter.model_validate({"projects": [project], **filters}))
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


def judgments_of(site: Site, visitor: Visitor) -> list[Any]:
    return rows(site.store, tables.judgment, annotator_id=visitor.id)


# -- the next turn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [2, 6])
def test_the_next_turn_goes_on_with_the_chosen_answer(site: Site, desk: DeskPage, tmp_path: Path, option: int) -> None:
    project = site.project(mode="free", max_turns=2)
    desk.enter(site.person(), project).ask("What is bread?")
    side = "left" if option <= 4 else "right"
    chosen = desk.slots()[side]  # type: ignore[index]
    desk.judge(option)
    desk.ask("And butter?")
    said = f"{COLOURS[chosen]} to 1: What is bread?"
    assert said in desk.past
    asked = [
        {"role": "user", "content": "What is bread?"},
        {"role": "assistant", "content": said},
        {"role": "user", "content": "And butter?"},
    ]
    for slot in COLOURS:
        assert site.models[slot].asked == [asked[:1], asked]
    desk.judge(8)
    first, second = exported(site, tmp_path, project)
    assert (first["prompt"], second["prompt"]) == (asked[:1], asked)
    assert (first["turn"], second["turn"]) == (1, 2)
    assert first["chosen"] == [asked[1]]
    assert first["conversation_id"] == second["conversation_id"]


# -- changing one's mind ----------------------------------------------------------------------------------------------


def test_an_edit_is_a_new_row_and_the_export_shows_it_alone(site: Site, desk: DeskPage, tmp_path: Path) -> None:
    ada, project = site.person(), site.project(mode="queue", max_turns=1)
    site.add_items(project, [new_item("ask 0", answered=True), new_item("ask 1", answered=True)])
    desk.enter(ada, project).fetch().wait_for_prompt("ask 0")
    slots = desk.slots()
    desk.judge(1, "f").wait_for_prompt("ask 1")
    assert [line.split(" ", 1)[1] for line in desk.history] == ["ask 0 A significantly better Edit Withdraw"]

    desk.push("edit").wait_for_prompt("ask 0")
    assert (desk.option, desk.flagged, desk.slots()) == (1, True, slots)
    desk.judge(7, "f").wait_for_prompt("ask 1")
    first, second = judgments_of(site, ada)
    assert (first.supersedes, second.supersedes) == (None, first.id)
    assert (first.chosen_slot, second.chosen_slot) == (slots["left"], slots["right"])
    (record,) = exported(site, tmp_path, project)
    assert (record["grade"], record["chosen"][0]["content"]) == ("better", f"{COLOURS[slots['right']]} to ask 0")

    desk.push("edit").wait_for_prompt("ask 0").press("4", "n").wait_for_prompt("ask 1")  # N leaves it as it was
    assert len(judgments_of(site, ada)) == 2


def test_undo_brings_the_comparison_back_and_drops_what_was_said(site: Site, desk: DeskPage, tmp_path: Path) -> None:
    ada, project = site.person(), site.project(mode="queue", max_turns=1)
    site.add_items(project, [new_item("ask 0", answered=True), new_item("ask 1", answered=True)])
    desk.enter(ada, project).fetch().wait_for_prompt("ask 0")
    slots = desk.slots()
    desk.judge(2).wait_for_prompt("ask 1").press("u").wait_for_prompt("ask 0")
    assert (desk.slots(), desk.option, desk.progress[0]) == (slots, None, 0)
    desk.judge(6).wait_for_prompt("ask 1")
    assert [row.kind for row in judgments_of(site, ada)] == ["judgment", "retraction", "judgment"]
    (record,) = exported(site, tmp_path, project)
    assert record["chosen"][0]["content"] == f"{COLOURS[slots['right']]} to ask 0"


def test_after_the_next_turn_undo_is_refused_and_says_why(site: Site, desk: DeskPage) -> None:
    ada = site.person()
    desk.enter(ada, site.project(mode="free", max_turns=3)).ask("What is bread?").judge(2).ask("And butter?")
    assert [line.split(" ", 1)[1] for line in desk.history] == ["What is bread? A better Withdraw"]  # nothing to edit
    desk.press("u").wait_for_status("The conversation has gone on from this answer")
    assert (desk.status_level, desk.phase) == ("error", "open")
    assert "And butter?" in desk.prompt
    assert [row.kind for row in judgments_of(site, ada)] == ["judgment"]


def test_withdrawing_asks_once_more_and_marks_the_turns_after(site: Site, desk: DeskPage, tmp_path: Path) -> None:
    ada, project = site.person(), site.project(mode="free", max_turns=2)
    desk.enter(ada, project).ask("What is bread?").judge(2).ask("And butter?").judge(3)
    first = desk.button("retract").last
    first.press("Enter")
    assert "Withdraw for good?" in first.inner_text()
    assert len(judgments_of(site, ada)) == 2
    first.press("Enter")
    desk.wait_for_status("Withdrawn.")
    assert [row.kind for row in judgments_of(site, ada)] == ["judgment", "judgment", "retraction"]
    with pytest.raises(UserError, match="1 earlier turn withdrawn"):
        exported(site, tmp_path, project)
    (record,) = exported(site, tmp_path, project, with_earlier_withdrawn=True)
    assert record["turn"] == 2


@pytest.mark.parametrize("change", ["UPDATE judgment SET grade = 'better'", "DELETE FROM judgment"])
def test_rows_can_neither_be_changed_nor_deleted(site: Site, desk: DeskPage, change: str) -> None:
    ada = site.person()
    desk.enter(ada, site.project(mode="free")).ask("What is bread?").judge(1)
    before = judgments_of(site, ada)
    with pytest.raises(DBAPIError, match="append-only"), site.store.write() as connection:
        connection.execute(text(f"{change} WHERE annotator_id = :who"), {"who": ada.id})
    assert judgments_of(site, ada) == before


# -- what comes out ---------------------------------------------------------------------------------------------------


def test_a_conversation_made_in_the_browser_is_exported_the_same_each_time(
    site: Site, desk: DeskPage, tmp_path: Path
) -> None:
    ada, project = site.person(), site.project(mode="free", max_turns=2)
    desk.enter(ada, project).ask("What is bread?").judge(1).ask("And butter?")
    slots = desk.slots()
    desk.press("6", "m").type("a private note").press("Escape").save()
    (tmp_path / "again").mkdir()
    records = exported(site, tmp_path, project)
    assert exported(site, tmp_path / "again", project) == records
    whole = (tmp_path / "comparisons.jsonl").read_bytes()
    assert (tmp_path / "again" / "comparisons.jsonl").read_bytes() == whole
    assert [len(record["prompt"]) for record in records] == [1, 3]
    last = records[1]
    assert (last["grade"], last["annotator_id"], last["collected"]["chosen_was_left"]) == (
        "slightly_better",
        ada.id,
        False,
    )
    assert last["chosen_source"]["variant"].startswith("aardvark" if slots["right"] == "a" else "zeppelin")
    assert ada.name not in whole.decode() and "private" not in whole.decode()


# -- safety -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def safety(site: Site, desk: DeskPage) -> tuple[Visitor, str]:
    """Somebody in a safety project, with two answers before them."""
    ada, project = site.person(), site.project(dimension="safety", mode="free", ask_safety=True, max_turns=1)
    desk.enter(ada, project).wait_for_phase("warning").press("Enter").wait_for_phase("idle").ask("Is this safe?")
    return ada, project


def test_the_safety_answer_is_cleared_when_its_meaning_turns(
    site: Site, desk: DeskPage, safety: tuple[Visitor, str]
) -> None:
    for before, after in (("1", "8"), ("5", "4")):
        assert desk.press(before, "q").safety == "preferred_safe_other_unsafe"
        assert desk.press("3" if before == "1" else "7").safety == "preferred_safe_other_unsafe"  # the same side
        assert desk.press(before, after).safety is None
        assert "answer the safety question again" in desk.status
    desk.press("Enter").wait_for_status("Say which answers are safe")
    for key, kept in (("w", "both_safe"), ("e", "both_unsafe")):
        assert desk.press("2", key, "7").safety == kept  # means the same of either side
    assert desk.press("2", "r", "7").safety is None
    assert judgments_of(site, safety[0]) == []


def test_preferring_the_unsafe_answer_is_flagged_and_left_out(
    site: Site, desk: DeskPage, safety: tuple[Visitor, str], tmp_path: Path
) -> None:
    ada, project = safety
    desk.press("2", "r").wait_for_status("left out of training data")
    desk.press("2").save()
    desk.wait_for_phase("idle").ask("And this?").judge(2, "q")
    unsafe, safe = judgments_of(site, ada)
    assert (unsafe.safety, json.loads(unsafe.flags_json)) == (
        "preferred_unsafe_other_safe",
        ["chosen_unsafe_other_safe"],
    )
    assert (safe.safety, json.loads(safe.flags_json)) == ("preferred_safe_other_unsafe", [])
    (record,) = exported(site, tmp_path, project)
    assert record["prompt"][0]["content"] == "And this?"
    assert record["safety"]["bin"] == "preferred_safe_other_unsafe"


def test_safety_is_not_asked_elsewhere(site: Site, desk: DeskPage) -> None:
    ada = site.person()
    desk.enter(ada, site.project(mode="free", max_turns=1)).ask("What is bread?")
    assert not desk.find(BINS).is_visible()
    desk.judge(1, "q", "w")
    assert [row.safety for row in judgments_of(site, ada)] == [None]
