"""Judging at the desk: what is saved once, what is refused, and what goes along with a judgment."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from annotation_fixtures import (
    Office,
    app_settings,
    current,
    only,
    rows,
    wait_for,
)
from desk_kit import SAFETY, outcome, refusal

from alignment.data.records import SAFETY_LABELS
from annotation_ui.store import tables
from annotation_ui.store.database import Store
from annotation_ui.store.judgment_values import MAX_ACTIVE_MS, MAX_NOTE_CHARS, Submission
from annotation_ui.store.tables import answer, judgment
from annotation_ui.vocabulary import Refused

# -- judgments --------------------------------------------------------------------------------------------------------


def test_sent_twice_it_is_saved_once(quiet_office: Office) -> None:
    quiet_office.add_items(2)
    ada = quiet_office.person("ada")
    ada.fetch()
    given = ada.given(3, note="why", flagged=True, active_ms=10)
    first = ada.submit(given)
    for again in (given, replace(given, active_ms=99), replace(given, input_method="keyboard")):
        view = ada.submit(again)
        assert view.message.startswith("Already saved.")
        assert view.level == "saved"
        assert view.comparison_id == first.comparison_id
    assert only(quiet_office.store, judgment).active_ms == 10
    assert ada.view().progress.total == 1


DIFFERENT: list[dict[str, Any]] = [
    {"option": 2},
    {"option": 6},
    {"safety": "both_unsafe"},
    {"safety": "preferred_unsafe_other_safe"},
    {"flagged": True},
]


def test_a_second_tab_is_told_that_it_is_late(store: Store) -> None:
    office = Office(store, app_settings(SAFETY), live=False)
    office.add_items(2, "safety")
    ada = office.person("ada", "safety")
    ada.accept()
    ada.fetch()
    given = ada.given(3, safety="both_safe", note="why")
    ada.submit(given)
    before = only(store, judgment)
    for other in DIFFERENT:
        assert "already judged" in refusal(ada.submit, replace(given, **other)), other
    assert "is judged" in refusal(office.desk.skip, ada.id, given.comparison_id, given.submission_id, "other")
    assert only(store, judgment) == before


def test_a_second_note_is_not_said_to_be_saved(quiet_office: Office) -> None:
    quiet_office.add_items(1)
    ada = quiet_office.person("ada")
    ada.fetch()
    given = ada.given(3, note="why")
    ada.submit(given)
    assert "already judged" in refusal(ada.submit, replace(given, note="something else"))
    assert only(quiet_office.store, judgment).note == "why"


def test_a_second_tab_cannot_judge_what_was_skipped(quiet_office: Office) -> None:
    quiet_office.add_items(2)
    ada = quiet_office.person("ada")
    ada.fetch()
    given = ada.given(3)
    ada.skip("no_expertise")
    assert "already judged" in refusal(ada.submit, given)
    assert only(quiet_office.store, judgment).kind == "skip"
    assert current(quiet_office.store) == []


def test_an_old_submission_is_not_said_to_be_saved_after_it_was_taken_back(quiet_office: Office) -> None:
    quiet_office.add_items(1)
    ada = quiet_office.person("ada")
    ada.fetch()
    given = ada.given(3)
    ada.submit(given)
    ada.undo()
    assert current(quiet_office.store) == []
    assert "Reload" in refusal(ada.submit, given)
    assert current(quiet_office.store) == []


def test_an_option_is_a_number_from_one_to_eight(quiet_office: Office) -> None:
    quiet_office.add_items(1)
    ada = quiet_office.person("ada")
    ada.fetch()
    for option in (None, 0, 9, -1, 10**30, True, False, "3", "", 3.0, [3], {"option": 3}):
        assert "press 1 to 8" in refusal(ada.judge, option), option
    assert rows(quiet_office.store, judgment) == []
    assert ada.view().phase == "open"
    ada.judge(3)


JUNK: list[Any] = [None, "1", "", [1], {"id": 1}, 1.5, True, "\0", "\ud800", "x" * 5000]


@pytest.mark.parametrize("field", ["comparison_id", "submission_id", "safety"])
def test_no_value_that_a_browser_sends_is_trusted(store: Store, field: str) -> None:
    office = Office(store, app_settings(SAFETY), live=False)
    office.add_items(1, "safety")
    ada = office.person("ada", "safety")
    ada.accept()
    ada.fetch()
    given = ada.given(3, safety="both_safe")
    outcomes = {repr(junk)[:20]: outcome(partial(ada.submit, replace(given, **{field: junk}))) for junk in JUNK}
    assert {junk: said for junk, said in outcomes.items() if said != "refused"} == {}
    assert rows(store, judgment) == []
    ada.submit(given)


def test_a_note_is_a_text(quiet_office: Office) -> None:
    quiet_office.add_items(1)
    ada = quiet_office.person("ada")
    ada.fetch()
    for junk in (None, 1, [1], {"id": 1}, True):
        assert "note" in refusal(ada.judge, 1, note=junk)
    assert rows(quiet_office.store, judgment) == []


def test_a_note_is_kept_whatever_is_in_it(quiet_office: Office) -> None:
    notes = ["ünï 漢字 🙂 \u202e", "a\0b", "\ud800", "'; DROP TABLE judgment; --", "x" * MAX_NOTE_CHARS]
    quiet_office.add_items(len(notes))
    ada = quiet_office.person("ada")
    ada.fetch()
    for number, note in enumerate(notes):
        try:
            ada.judge(1, note=note)
        except Refused:  # may be refused, but nothing else
            ada.judge(1)
        assert len(current(quiet_office.store)) == number + 1, repr(note)
    kept = [row.note for row in current(quiet_office.store)]
    assert (kept[0], kept[3], kept[4]) == (notes[0], notes[3], notes[4])


def test_a_note_has_an_end(sqlite_store: Store) -> None:
    office = Office(sqlite_store, live=False)
    office.add_items(1)
    ada = office.person("ada")
    ada.fetch()
    assert f"{MAX_NOTE_CHARS}" in refusal(ada.judge, 1, note="x" * (MAX_NOTE_CHARS + 1))
    assert f"{MAX_NOTE_CHARS}" in refusal(ada.skip, note="x" * (MAX_NOTE_CHARS + 1))
    ada.judge(1, note="  \n ")
    assert only(sqlite_store, judgment).note is None


def test_a_clock_costs_no_judgment(sqlite_store: Store) -> None:
    day = 24 * 60 * 60 * 1000
    assert day == MAX_ACTIVE_MS
    told: list[tuple[Any, int | None]] = [
        (None, None),
        (0, 0),
        (1234.9, 1234),
        (day, day),
        (day + 1, None),
        (10**30, None),
        (-1, None),
        (-0.5, None),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        (True, None),
        ("1000", None),
        ([1], None),
        ({}, None),
    ]
    office = Office(sqlite_store, live=False)
    office.add_items(len(told) + 1)
    ada = office.person("ada")
    ada.fetch()
    for given, _ in told:
        ada.judge(1, active_ms=given)
    assert [row.active_ms for row in rows(sqlite_store, judgment)] == [kept for _, kept in told]
    ada.skip(active_ms=math.nan)
    assert rows(sqlite_store, judgment)[-1].active_ms is None


def test_how_it_was_entered(sqlite_store: Store) -> None:
    office = Office(sqlite_store, live=False)
    office.add_items(4)
    ada = office.person("ada")
    ada.fetch()
    methods: list[Any] = ["keyboard", "mouse", "telepathy", []]
    for method in methods:
        ada.judge(1, input_method=method)
    assert [row.input_method for row in rows(sqlite_store, judgment)] == ["keyboard", "mouse", None, None]


def test_safety_is_said_where_it_is_asked(store: Store) -> None:
    office = Office(store, app_settings({}, SAFETY), live=False)
    office.add_items(1)
    office.add_items(len(SAFETY_LABELS) + 1, "safety")
    ada = office.person("ada")
    bob = office.person("bob", "safety")
    bob.accept()
    assert not ada.fetch().asks_safety
    assert bob.fetch().asks_safety
    assert "not one of this project's" in refusal(ada.judge, 1, safety="both_safe")
    assert "which answers are safe" in refusal(bob.judge, 1)
    assert "not one of this project's" in refusal(bob.judge, 1, safety="fairly_safe")
    assert "not one of this project's" in refusal(bob.judge, 1, safety="")
    assert rows(store, judgment) == []
    for label in SAFETY_LABELS:
        bob.judge(1, safety=label, flagged=label == "both_unsafe")
    assert [(row.safety, json.loads(row.flags_json)) for row in rows(store, judgment)] == [
        ("preferred_safe_other_unsafe", []),
        ("both_safe", []),
        ("both_unsafe", ["for_review"]),
        ("preferred_unsafe_other_safe", ["chosen_unsafe_other_safe"]),
    ]
    bob.judge(1, safety="preferred_unsafe_other_safe", flagged=True)
    assert set(json.loads(rows(store, judgment)[-1].flags_json)) == {"for_review", "chosen_unsafe_other_safe"}


def test_somebody_elses_comparison_is_like_none(office: Office) -> None:
    office.add_items(2)
    ada, bob = office.person("ada"), office.person("bob")
    ada.fetch()
    bob.fetch()
    given = ada.given(1)
    nothing = replace(given, comparison_id="cmp_unknown", submission_id="cmp_unknown.0")
    said = refusal(bob.submit, nothing)
    assert said == refusal(bob.submit, given)
    for act in (bob.edit, bob.retract):
        assert refusal(act, given.comparison_id) == said
    assert refusal(office.desk.skip, bob.id, given.comparison_id, given.submission_id, "other") == said
    ada.submit(given)
    for act in (bob.edit, bob.retract):
        assert refusal(act, given.comparison_id) == said
    # Nor does an id of one comparison do for another.
    mine = bob.given(1)
    assert refusal(bob.submit, replace(mine, submission_id=given.submission_id))
    assert refusal(bob.submit, replace(mine, submission_id=f"{mine.comparison_id}.1"))
    assert only(office.store, judgment).annotator_id == ada.id


def test_nothing_is_judged_before_both_answers_have_ended(office: Office) -> None:
    ada = office.person("ada")
    office.hold("b")
    view = office.desk.ask(ada.id, "helpfulness", "one")
    assert view.phase == "generating"
    shown_panes = {"red to 1: one": True, "blue": False}
    view = wait_for(
        ada.view,
        lambda seen: {pane.text: pane.done for pane in (seen.left, seen.right) if pane} == shown_panes,
    )
    given = Submission(str(view.comparison_id), f"{view.comparison_id}.0", 1)
    assert "both answers" in refusal(ada.submit, given)
    assert "Judge this pair first" in refusal(ada.fetch)
    assert "cannot be sent now" in refusal(ada.ask, "two")
    assert rows(office.store, judgment) == rows(office.store, answer) == []
    office.let_go()
    assert ada.settled().phase == "open"
    assert {row.text for row in rows(office.store, answer)} == {"red to 1: one", "blue to 1: one"}
    ada.submit(given)
    assert len(current(office.store)) == 1


@pytest.mark.parametrize("given", [None, "f" * 64, "F" * 64, "f\0", "", 7, ["f" * 64]])
def test_guidelines_that_nobody_wrote_do_not_refuse_a_judgment(office: Office, given: Any) -> None:
    ada = office.person("ada")
    ada.ask("one")
    ada.judge(1, guidelines_sha256=given)
    present = only(office.store, tables.project, name="helpfulness").guidelines_sha256
    assert only(office.store, judgment).guidelines_sha256 == present


def test_the_choice_stays_once_the_conversation_has_gone_on(office: Office) -> None:
    ada = office.person("ada")
    first = ada.ask("one")
    ada.judge(1)
    ada.ask("two")
    before = only(office.store, judgment)
    stale = Submission(str(first.comparison_id), f"{first.comparison_id}.1", 8)
    for act in (lambda: ada.submit(stale), ada.undo, lambda: ada.edit(first.comparison_id)):
        assert "gone on" in refusal(act)
    assert only(office.store, judgment) == before
    assert [line.can_edit for line in ada.view().history] == [False]
    ada.judge(1)
    assert [line.can_edit for line in ada.view().history] == [True, False]
    assert "gone on" in refusal(ada.edit, first.comparison_id)


def test_a_repeated_submission_changes_nothing_after_the_conversation_has_gone_on(office: Office) -> None:
    ada = office.person("ada")
    ada.ask("one")
    given = ada.given(1)
    ada.submit(given)
    ada.ask("two")
    assert ada.submit(given).message == "Already saved."
    assert "already judged" in refusal(ada.submit, replace(given, option=8))
    assert len(rows(office.store, judgment)) == 1
