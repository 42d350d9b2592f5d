"""Judgments at the desk that are taken back: undone, edited, withdrawn."""

from __future__ import annotations

from dataclasses import replace

from annotation_fixtures import (
    COLOURS,
    Office,
    app_settings,
    change,
    current,
    only,
    rows,
    slot_of,
)
from desk_kit import SAFETY, chosen, refusal

from annotation_ui.desk.view import Draft
from annotation_ui.store.database import Store
from annotation_ui.store.tables import assignment, comparison, item, judgment

# -- taking back ------------------------------------------------------------------------------------------------------


def test_undo_puts_the_last_one_back_on_the_desk(quiet_office: Office) -> None:
    quiet_office.add_items(3)
    store, ada = quiet_office.store, quiet_office.person("ada")
    assert ada.view().undoable is None
    first = ada.fetch()
    second = ada.judge(1)
    ada.judge(2)
    view = ada.undo()
    assert (view.phase, view.comparison_id, view.draft.option) == ("open", second.comparison_id, None)
    assert [grade for _, grade in chosen(store)] == ["significantly_better"]
    view = ada.undo()
    assert view.comparison_id == first.comparison_id
    assert chosen(store) == []
    assert view.progress.total == 0
    assert ada.view().undoable is None
    # What was put aside comes back, in the order in which it was taken up.
    view = ada.judge(3)
    assert view.comparison_id == second.comparison_id
    view = ada.judge(4)
    assert view.prompt == "ask 2"
    assert [grade for _, grade in chosen(store)] == ["slightly_better", "negligibly_better"]
    assert [row.kind for row in rows(store, judgment)] == [*["judgment"] * 2, *["retraction"] * 2, *["judgment"] * 2]
    for row in rows(store, comparison):
        said = rows(store, judgment, comparison_id=row.id)
        assert [each.supersedes for each in said] == [None, *[each.id for each in said]][: len(said)]


def test_undo_asked_for_twice_takes_one_judgment_back(quiet_office: Office) -> None:
    quiet_office.add_items(3)
    ada = quiet_office.person("ada")
    ada.fetch()
    ada.judge(1)
    ada.judge(1)
    last = str(ada.view().undoable)
    once, again = (quiet_office.desk.undo(ada.id, last) for _ in range(2))
    assert once.comparison_id == again.comparison_id == last
    assert len(current(quiet_office.store)) == 1
    assert [row.kind for row in rows(quiet_office.store, judgment)] == ["judgment", "judgment", "retraction"]


def test_only_the_last_thing_said_is_undone(quiet_office: Office) -> None:
    quiet_office.add_items(3)
    ada = quiet_office.person("ada")
    first = str(ada.fetch().comparison_id)
    ada.judge(1)
    ada.judge(1)
    assert "Only what you said last" in refusal(quiet_office.desk.undo, ada.id, first)
    assert len(current(quiet_office.store)) == 2


def test_undo_of_a_skip(quiet_office: Office) -> None:
    quiet_office.add_items(1)
    store, ada = quiet_office.store, quiet_office.person("ada")
    first = ada.fetch()
    assert ada.skip("unclear_prompt").phase == "empty"
    assert only(store, assignment).state == "skipped"
    view = ada.undo()
    assert (view.phase, view.comparison_id) == ("open", first.comparison_id)
    assert (only(store, assignment).state, only(store, item).remaining) == ("leased", 0)
    ada.judge(1)
    assert [row.kind for row in rows(store, judgment)] == ["skip", "retraction", "judgment"]
    assert len(current(store)) == 1
    assert (only(store, assignment).state, only(store, item).remaining) == ("done", 0)


def test_undo_takes_back_what_was_said_last_and_not_what_was_shown_last(quiet_office: Office) -> None:
    quiet_office.add_items(3)
    ada = quiet_office.person("ada")
    first = ada.fetch()
    ada.judge(1)
    ada.judge(1)
    ada.edit(first.comparison_id)
    ada.judge(8)
    assert ada.undo().comparison_id == first.comparison_id


def test_undo_goes_by_the_order_and_not_by_the_clock(quiet_office: Office) -> None:
    quiet_office.add_items(3)
    ada = quiet_office.person("ada")
    first = ada.fetch()
    second = ada.judge(1)
    ada.judge(1)
    # The clock was set back in between: the earlier one seems to be the later one.
    change(quiet_office.store, comparison, {"judged_at": "2998-01-01T00:00:00.000Z"}, id=first.comparison_id)
    assert ada.undo().comparison_id == second.comparison_id


def test_undo_in_a_conversation(office: Office) -> None:
    ada = office.person("ada")
    ada.ask("one")
    ada.judge(1)
    second = ada.ask("two")
    ada.judge(1)
    assert ada.undo().comparison_id == second.comparison_id
    taken = slot_of(second.right)
    ada.judge(7)
    view = ada.ask("three")
    assert view.past[-1].content == f"{COLOURS[taken]} to 3: two"
    assert "gone on" in refusal(ada.undo)


def test_edit_shows_what_was_said_and_replaces_it(store: Store) -> None:
    office = Office(store, app_settings(SAFETY), live=False)
    office.add_items(2, "safety")
    ada = office.person("ada", "safety")
    ada.accept()
    first = ada.fetch()
    second = ada.judge(2, safety="both_safe", note="a note", flagged=True)
    view = ada.edit(first.comparison_id)
    assert (view.phase, view.editing, view.comparison_id) == ("open", True, first.comparison_id)
    assert view.draft == Draft(option=2, safety="both_safe", note="a note", flagged=True)
    assert (view.left, view.right) == (first.left, first.right)
    assert "Take the judgment back first" in refusal(ada.skip)
    assert "cannot be sent" in refusal(ada.ask, "hello")
    view = ada.judge(7, safety="both_unsafe")
    assert (view.comparison_id, view.editing) == (second.comparison_id, False)  # back to what was on the desk
    assert chosen(store) == [(slot_of(first.right), "better")]
    old, new = rows(store, judgment)
    assert (new.supersedes, new.safety, new.note) == (old.id, "both_unsafe", None)
    assert (old.safety, old.note) == ("both_safe", "a note")
    assert view.progress.total == 1


def test_an_edit_can_be_left(quiet_office: Office) -> None:
    quiet_office.add_items(2)
    ada = quiet_office.person("ada")
    first = ada.fetch()
    second = ada.judge(2)
    ada.edit(first.comparison_id)
    assert ada.view().editing  # also after a reload
    view = ada.fetch()
    assert (view.comparison_id, view.editing, view.message) == (second.comparison_id, False, "Left as it was.")
    assert len(rows(quiet_office.store, judgment)) == 1


def test_edited_in_two_tabs_it_is_saved_once(quiet_office: Office) -> None:
    quiet_office.add_items(2)
    ada = quiet_office.person("ada")
    first = ada.fetch()
    ada.judge(2)
    ada.edit(first.comparison_id)
    given = ada.given(5)
    ada.submit(given)
    assert ada.submit(given).message.startswith("Already saved.")
    assert "already judged" in refusal(ada.submit, replace(given, option=6))
    assert [grade for _, grade in chosen(quiet_office.store)] == ["negligibly_better"]
    assert len(rows(quiet_office.store, judgment)) == 2


def test_only_what_holds_can_be_edited_or_withdrawn(quiet_office: Office) -> None:
    quiet_office.add_items(2)
    ada = quiet_office.person("ada")
    first = ada.fetch()
    assert "nothing to edit" in refusal(ada.edit, first.comparison_id)
    assert "nothing to withdraw" in refusal(ada.retract, first.comparison_id)
    ada.skip()
    assert "nothing to edit" in refusal(ada.edit, first.comparison_id)
    second = ada.view()
    ada.judge(1)
    ada.retract(second.comparison_id)
    assert "nothing to edit" in refusal(ada.edit, second.comparison_id)
    assert "nothing to withdraw" in refusal(ada.retract, second.comparison_id)


def test_withdrawing_a_judgment(quiet_office: Office) -> None:
    quiet_office.add_items(2)
    store, ada = quiet_office.store, quiet_office.person("ada")
    first = ada.fetch()
    second = ada.judge(1)
    view = ada.retract(first.comparison_id)
    assert view.comparison_id == second.comparison_id
    assert chosen(store) == []
    assert [line.said for line in view.history] == ["Withdrawn"]
    assert not view.history[0].can_edit
    assert view.progress.total == 0
    assert view.undoable is None
    assert "Only what you said last" in refusal(quiet_office.desk.undo, ada.id, first.comparison_id)
    assert [row.kind for row in rows(store, judgment)] == ["judgment", "retraction"]
    # Somebody else may have the item; the same one may not.
    bob = quiet_office.person("bob")
    assert bob.fetch().prompt == "ask 0"
    ada.judge(1)
    assert ada.view().phase == "empty"


def test_withdrawing_goes_on_after_the_conversation_has(office: Office) -> None:
    ada = office.person("ada")
    first = ada.ask("one")
    ada.judge(1)
    second = ada.ask("two")
    ada.judge(1)
    ada.retract(first.comparison_id)
    assert [row.comparison_id for row in current(office.store)] == [second.comparison_id]
    assert ada.view().comparison_id == second.comparison_id
    assert ada.ask("three").phase == "open"


def test_what_was_withdrawn_for_good_does_not_stay_on_the_desk(office: Office) -> None:
    ada = office.person("ada")
    first = ada.ask("one")
    assert ada.judge(1).phase == "judged"
    view = ada.retract(first.comparison_id)
    assert view.phase == "idle"
    assert view.comparison_id is None
    assert current(office.store) == []


def test_retracting_while_editing(quiet_office: Office) -> None:
    quiet_office.add_items(2)
    ada = quiet_office.person("ada")
    first = ada.fetch()
    second = ada.judge(1)
    ada.edit(first.comparison_id)
    view = ada.retract(first.comparison_id)
    assert (view.comparison_id, view.editing) == (second.comparison_id, False)
    assert chosen(quiet_office.store) == []
