"""The desk: one annotator's way through a conversation, what is refused, what is taken back, and what they see."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from annotation_fixtures import (
    COLOURS,
    VARIANTS,
    Office,
    Person,
    Scripted,
    app_settings,
    assistant,
    change,
    current,
    new_item,
    only,
    rows,
    slot_of,
    together,
    user,
    wait_for,
)

from alignment.data.records import GRADES, SAFETY_LABELS
from annotation_ui import texts
from annotation_ui.desk.view import Draft, Pane, View
from annotation_ui.store import accounts, conversations, tables
from annotation_ui.store.database import Store
from annotation_ui.store.judgments import MAX_ACTIVE_MS, MAX_NOTE_CHARS
from annotation_ui.store.pairs import load_messages
from annotation_ui.store.tables import answer, assignment, comparison, conversation, item, judgment, pair
from annotation_ui.vocabulary import Refused, Slot, Submission, draw_left_slot

OTHER: dict[Slot, Slot] = {"a": "b", "b": "a"}
SAFETY = {"dimension": "safety", "ask_safety": True}


def refusal(action: Callable[..., Any], *given: Any, **named: Any) -> str:
    """What is said when something cannot be done."""
    with pytest.raises(Refused) as refused:
        action(*given, **named)
    return str(refused.value)


def chosen(store: Store) -> list[tuple[Slot, str]]:
    """Slot and grade of each judgment that holds."""
    return [(row.chosen_slot, row.grade) for row in current(store)]


# -- a whole way through ----------------------------------------------------------------------------------------------


def test_a_way_through_a_conversation(office: Office) -> None:
    office.add_items(2)
    ada = office.person("ada")
    view = ada.view()
    assert (view.phase, view.may_fetch, view.may_prompt, view.progress.left_in_queue) == ("idle", True, True, 2)
    view = ada.fetch()
    assert (view.phase, view.prompt, view.past, view.turn) == ("open", "ask 0", (), 1)
    assert view.left and view.right and view.left.done and view.right.done
    assert {view.left.text, view.right.text} == {"red to 1: ask 0", "blue to 1: ask 0"}
    assert view.progress.left_in_queue == 1
    left = slot_of(view.left)
    view = ada.judge(2, note=" short ", active_ms=1500, input_method="keyboard")
    assert (view.phase, view.may_prompt, view.may_fetch, view.level) == ("judged", True, True, "saved")
    assert view.message.startswith("Saved ")
    row = only(office.store, judgment)
    assert (row.kind, row.chosen_slot, row.grade, row.safety) == ("judgment", left, "better", None)
    assert (row.note, row.active_ms, row.input_method, row.supersedes) == ("short", 1500, "keyboard", None)
    (line,) = view.history
    assert (line.prompt, line.said, line.can_edit) == ("ask 0", "A better", True)
    assert (view.progress.today, view.progress.total) == (1, 1)
    view = ada.fetch()
    assert (view.phase, view.prompt) == ("open", "ask 1")
    assert [row.state for row in rows(office.store, conversation)] == ["finished", "active"]


def test_each_option_means_a_side_and_a_grade(quiet_office: Office) -> None:
    quiet_office.add_items(8)
    ada = quiet_office.person("ada")
    expected, said = [], []
    view = ada.fetch()
    for option, side, grade in (
        (1, "left", "significantly_better"),
        (2, "left", "better"),
        (3, "left", "slightly_better"),
        (4, "left", "negligibly_better"),
        (5, "right", "negligibly_better"),
        (6, "right", "slightly_better"),
        (7, "right", "better"),
        (8, "right", "significantly_better"),
    ):
        expected.append((slot_of(view.left if side == "left" else view.right), grade))
        said.append(f"{'A' if side == 'left' else 'B'} {grade.replace('_', ' ')}")
        view = ada.judge(option)
    assert chosen(quiet_office.store) == expected
    assert view.phase == "empty"
    assert len(view.history) >= 5
    assert [line.said for line in view.history] == said[::-1][: len(view.history)]  # the latest first
    assert view.progress.total == 8


def test_what_was_sampled_before_needs_nobody_to_answer(quiet_office: Office) -> None:
    quiet_office.add_items(2)
    ada = quiet_office.person("ada")
    first = ada.fetch()
    assert first.phase == "open"
    second = ada.judge(1)
    assert (second.phase, second.prompt) == ("open", "ask 1")
    assert second.message.startswith("Saved ")
    assert second.comparison_id != first.comparison_id
    last = ada.judge(1)
    assert (last.phase, last.comparison_id, last.left, last.prompt) == ("empty", None, None, "")
    assert {row.state for row in rows(quiet_office.store, conversation)} == {"finished"}


@pytest.mark.parametrize("option", [3, 6])
def test_a_conversation_goes_on_with_the_chosen_answer(office: Office, option: int) -> None:
    ada = office.person("ada")
    view = ada.ask("one")
    history = [user("one")]
    for turn, prompt in enumerate(("two", "three"), start=2):
        taken = slot_of(view.left if option <= 4 else view.right)
        ada.judge(option)
        view = ada.ask(prompt)
        history += [assistant(f"{COLOURS[taken]} to {len(history)}: {history[-1].content}"), user(prompt)]
        assert (view.phase, view.turn, view.prompt) == ("open", turn, prompt)
        assert list(view.past) == history[:-1]
        for variant in office.variants.values():
            assert list(variant.asked[-1]) == history
        stored = [load_messages(row.prompt_json) for row in rows(office.store, pair)]
        assert sorted(stored, key=len)[-1] == tuple(history)
    assert len({row.conversation_id for row in rows(office.store, comparison)}) == 1


def test_a_conversation_ends_at_its_last_turn(store: Store) -> None:
    office = Office(store, app_settings({"max_turns": 2}))
    office.add_items(1)
    ada = office.person("ada")
    ada.fetch()
    assert ada.judge(1).phase == "judged"
    ada.ask("and then?")
    view = ada.judge(1)
    assert (view.phase, view.may_prompt) == ("idle", True)
    assert only(store, conversation).state == "finished"
    view = ada.ask("something else")
    assert (view.past, view.turn) == ((), 1)
    office.close()


def test_projects_are_apart(store: Store) -> None:
    office = Office(store, app_settings({"name": "first"}, {"name": "second"}), live=False)
    office.add_items(1, "first")
    office.add_items([new_item("other", answered=True)], "second")
    ada = office.person("ada", "first")
    assert ada.fetch().prompt == "ask 0"
    assert ada.at("second").fetch().prompt == "other"
    assert ada.at("second").judge(1).progress.total == 1
    assert ada.view().progress.total == 0
    assert ada.view().prompt == "ask 0"
    assert [choice.name for choice in ada.view().projects] == ["first", "second"]
    # Without a name: where one was last.
    assert office.desk.view(ada.id).project == "second"
    ada.judge(1)
    assert office.desk.view(ada.id).project == "first"
    assert "no such project" in refusal(office.desk.view, ada.id, "third")
    assert "no such project" in refusal(office.desk.fetch, ada.id, "third")


# -- sides ------------------------------------------------------------------------------------------------------------


def within_chance(hits: int, draws: int) -> bool:
    """Whether so many hits of a fair coin are within five standard deviations (outside once in two million times)."""
    return abs(hits - draws / 2) <= 5 * math.sqrt(draws) / 2


def test_sides_are_drawn_fairly() -> None:
    assert within_chance(sum(draw_left_slot(seed) == "a" for seed in range(2000)), 2000)
    # One draw says nothing about the next.
    drawn = [draw_left_slot(seed) for seed in range(2000)]
    assert within_chance(sum(one == two for one, two in pairwise(drawn)), 1999)


def test_stored_sides_are_drawn_fairly_for_each_annotator(sqlite_store: Store) -> None:
    office = Office(sqlite_store, live=False)
    office.add_items(100, overlap=2)
    people = [office.person(name) for name in ("ada", "bob")]
    with sqlite_store.write() as connection:
        for item_row in connection.execute(item.select()).all():
            for person in people:
                conversations.begin(connection, person.id, item_row, "work")
    shown = rows(sqlite_store, comparison)
    assert len({row.order_seed for row in shown}) == 200
    assert all(row.left_slot == draw_left_slot(row.order_seed) for row in shown)
    assert within_chance(sum(row.left_slot == "a" for row in shown), 200)
    left = {(row.pair_id, row.annotator_id): row.left_slot for row in shown}
    pairs = {row.pair_id for row in shown}
    assert len(pairs) == 100
    same = sum(left[each, people[0].id] == left[each, people[1].id] for each in pairs)
    assert within_chance(same, 100)


def test_sides_stay(office: Office) -> None:
    ada = office.person("ada")
    first = ada.ask("one")

    def same(view: View) -> bool:
        return (view.comparison_id, view.left, view.right) == (first.comparison_id, first.left, first.right)

    left = only(office.store, comparison).left_slot
    assert slot_of(first.left) == left
    office.close()
    office.desk = office._open()  # another server over the same store
    assert all(same(ada.view()) for _ in range(3))
    ada.judge(7)
    assert same(ada.undo())
    ada.judge(1)
    assert same(ada.edit(first.comparison_id))
    assert only(office.store, comparison).left_slot == left
    assert chosen(office.store) == [(left, "significantly_better")]


# -- what an annotator sees -------------------------------------------------------------------------------------------


def leaves(value: Any) -> Iterator[Any]:
    """All plain values in a view."""
    if is_dataclass(value):
        for field in fields(value):
            yield field.name
            yield from leaves(getattr(value, field.name))
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from leaves(each)
    elif hasattr(value, "model_dump"):
        yield from value.model_dump().values()
    else:
        yield value


def hidden(store: Store) -> set[str]:
    """Everything in the store that would tell who wrote what, or which item is a test."""
    known = {"gold", "variant", "slot", "seed", "checkpoint", "ppo", "temperature", "expected", *VARIANTS.values()}
    known |= {str(row.seed) for row in rows(store, pair) if row.seed is not None}
    known |= {str(row.seed) for row in rows(store, answer) if row.seed is not None}
    known |= {str(row.order_seed) for row in rows(store, comparison)}
    for table in (pair, item, conversation, assignment, tables.project, tables.variant):
        known |= {row.id for row in rows(store, table)}
    known |= {row.checkpoint for row in rows(store, tables.variant) if row.checkpoint}
    return known


def tells(view: View, secrets: set[str]) -> list[tuple[Any, str]]:
    """What in a view gives something away, and what."""
    said = list(leaves(replace(view, guidelines="")))  # guidelines may use any word
    found = [(leaf, word) for leaf in said if isinstance(leaf, str) for word in secrets if word in leaf.lower()]
    found += [(leaf, "a slot") for leaf in said if leaf in ("a", "b")]
    return found + [(leaf, "a number") for leaf in said if len(str(leaf)) > 4 and str(leaf) in secrets]


def test_no_view_tells_who_wrote_what(store: Store) -> None:
    office = Office(store, app_settings({"gold_share": 1.0}, SAFETY))
    office.add_items([new_item("ask g", answered=True, source="gold", expected={"choice": "a"})])
    office.add_items(1)
    ada = office.person("ada")
    office.hold()
    seen = [ada.view(), ada.at("safety").view(), ada.fetch(), ada.judge(1)]
    seen.append(office.desk.fetch(ada.id, "helpfulness"))
    seen.append(wait_for(ada.view, lambda view: view.left is not None and view.left.text != ""))
    office.variants["b"].failures = 1
    office.let_go()
    seen += [ada.settled(), ada.retry(), ada.judge(8, note="x", flagged=True), ada.edit(seen[2].comparison_id)]
    seen += [ada.fetch(), ada.undo(), ada.skip(), ada.leave()]
    assert [view.phase for view in seen] == [
        "idle",
        "warning",
        "open",
        "judged",
        "generating",
        "generating",
        "failed",
        "open",
        "judged",
        "open",
        "judged",
        "open",
        "idle",
        "idle",
    ]
    secrets = hidden(store)
    for view in seen:
        assert tells(view, secrets) == []
    office.close()


def test_the_walk_finds_what_it_looks_for(office: Office) -> None:
    ada = office.person("ada")
    view = ada.ask("one")
    assert view.left is not None
    (shown,), (written,) = rows(office.store, comparison), rows(office.store, pair)
    secrets = hidden(office.store)
    assert tells(view, secrets) == []
    for leak in (VARIANTS["a"], str(shown.order_seed), shown.pair_id, written.item_id, "b"):
        assert tells(replace(view, left=Pane(leak)), secrets), leak
        assert tells(replace(view, message=leak), secrets), leak
    assert tells(replace(view, turn=shown.order_seed), secrets)


def test_a_count_does_not_tell_gold_items_apart(store: Store) -> None:
    office = Office(store, app_settings({"gold_share": 0.5}), live=False)
    office.add_items([new_item(f"gold {n}", answered=True, source="gold", expected={"choice": "a"}) for n in range(20)])
    office.add_items(20)
    ada = office.person("ada")
    view = ada.fetch()
    prompts, left = [view.prompt], [view.progress.left_in_queue]
    for _ in range(19):
        view = ada.judge(1)
        prompts.append(view.prompt)
        left.append(view.progress.left_in_queue)
    assert {"gold" in prompt for prompt in prompts} == {True, False}  # by chance not so in 2 of a million runs
    assert len({before - after for before, after in pairwise(left)}) == 1


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


def outcome(action: Callable[[], Any]) -> str:
    """``refused``, or what happened in its place."""
    try:
        action()
    except Refused:
        return "refused"
    except Exception as error:
        return repr(error)[:80]
    return "accepted"


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
    whole = "red to 1: one"
    view = wait_for(ada.view, lambda seen: seen.left and seen.right and whole in (seen.left.text, seen.right.text))
    panes = {pane.text: pane.done for pane in (view.left, view.right) if pane}
    assert panes == {"red to 1: one": True, "blue": False}
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


# -- skipping and leaving ---------------------------------------------------------------------------------------------


def test_each_reason_to_skip(sqlite_store: Store) -> None:
    office = Office(sqlite_store, live=False)
    office.add_items(len(texts.SKIP_REASONS) + 1)
    ada = office.person("ada")
    ada.fetch()
    for junk in ("", "boring", None, ["other"], 1):
        assert "reason" in refusal(ada.skip, junk)
    assert rows(sqlite_store, judgment) == []
    for reason, words in texts.SKIP_REASONS.items():
        view = ada.skip(reason, note=f"note {reason}", active_ms=5)
        assert view.message.startswith(f"Skipped: {words.lower()}.")
    said = rows(sqlite_store, judgment)
    assert [(row.kind, row.skip_reason, row.note) for row in said] == [
        ("skip", reason, f"note {reason}") for reason in texts.SKIP_REASONS
    ]
    assert {(row.chosen_slot, row.grade, row.active_ms) for row in said} == {(None, None, 5)}
    assert current(sqlite_store) == []
    assert (view.progress.total, view.prompt) == (0, f"ask {len(texts.SKIP_REASONS)}")


def test_skipped_twice_is_skipped_once(quiet_office: Office) -> None:
    quiet_office.add_items(3)
    ada = quiet_office.person("ada")
    first = ada.fetch()
    ids = (str(first.comparison_id), str(first.submission_id))
    quiet_office.desk.skip(ada.id, *ids, "broken")
    view = quiet_office.desk.skip(ada.id, *ids, "broken")
    assert view.prompt == "ask 1"
    assert "already judged" in refusal(quiet_office.desk.skip, ada.id, *ids, "other")
    assert len(rows(quiet_office.store, judgment)) == 1


def test_a_later_turn_can_be_skipped(office: Office) -> None:
    office.add_items(2)
    ada = office.person("ada")
    ada.fetch()
    ada.judge(1)
    second = ada.ask("two")
    view = ada.skip("both_equal")
    assert (view.prompt, view.turn) == ("ask 1", 1)
    assert len(current(office.store)) == 1  # the first turn still counts
    assert [row.state for row in rows(office.store, assignment)] == ["done", "leased"]
    assert sorted(row.state for row in rows(office.store, conversation)) == ["active", "finished"]
    view = ada.undo()
    assert (view.comparison_id, view.turn) == (second.comparison_id, 2)


def test_leaving_gives_the_item_back(quiet_office: Office) -> None:
    quiet_office.add_items(2)
    store, ada, bob = quiet_office.store, quiet_office.person("ada"), quiet_office.person("bob")
    first = ada.fetch()
    view = ada.leave()
    assert (view.phase, view.comparison_id, view.progress.left_in_queue) == ("idle", None, 2)
    assert rows(store, judgment) == []
    assert ada.view().phase == "idle"
    assert bob.fetch().prompt == "ask 0"
    assert ada.fetch().prompt == "ask 1"
    bob.leave()
    ada.judge(1)
    view = ada.view()
    assert (view.comparison_id, view.left) == (first.comparison_id, first.left)  # the same sides as before


def test_leaving_an_empty_desk_and_a_judged_one(office: Office) -> None:
    ada = office.person("ada")
    assert ada.leave().phase == "idle"
    ada.ask("one")
    ada.judge(1)
    view = ada.leave()
    assert view.phase == "idle"
    assert "Nothing was recorded" not in view.message
    assert len(current(office.store)) == 1
    assert only(office.store, conversation).state == "finished"
    assert ada.ask("two").past == ()


def test_training_examples_wait_until_a_later_turn_is_judged(office: Office) -> None:
    ada = office.person("ada")
    ada.ask("one")
    ada.judge(1)
    ada.ask("two")
    assert "Judge this pair first" in refusal(ada.train)
    assert ada.view().prompt == "two"
    ada.judge(1)
    assert ada.train().kind == "training"


def test_leaving_while_answers_are_written(office: Office) -> None:
    office.add_items(1)
    ada, bob = office.person("ada"), office.person("bob")
    office.hold()
    office.desk.fetch(ada.id, "helpfulness")
    assert ada.leave().phase == "idle"
    office.desk.fetch(bob.id, "helpfulness")
    office.let_go()
    assert bob.settled().phase == "open"
    assert len(office.variants["a"].asked) == 1  # the pair that was begun, not another one


# -- prompts of one's own ---------------------------------------------------------------------------------------------


def test_a_prompt_says_something_and_fits(sqlite_store: Store) -> None:
    office = Office(sqlite_store, app_settings(max_prompt_chars=40))
    ada = office.person("ada")
    for nothing in ("", " ", "\n\t \u3000", None, 7, ["one"]):
        assert "Write a prompt first" in refusal(ada.ask, nothing)
    assert "41 characters; at most 40" in refusal(ada.ask, "x" * 41)
    assert rows(sqlite_store, pair) == []
    assert ada.view().max_prompt_chars == 40
    assert ada.ask("🙂" * 40).prompt == "🙂" * 40
    ada.judge(1)
    assert "41 characters" in refusal(ada.ask, "y" * 41)  # the next turn, too
    assert ada.ask(" why? \n").prompt == "why?"
    assert len(rows(sqlite_store, pair)) == 2
    office.close()


def test_a_prompt_that_no_database_holds_is_mended_or_refused(office: Office) -> None:
    ada = office.person("ada")
    for prompt in ("half a character: \ud800", "a zero: \0"):
        if outcome(partial(ada.ask, prompt)) != "refused":
            assert ada.settled().phase == "open", prompt
            ada.judge(1)
            ada.leave()


def test_prompts_are_taken_only_where_they_are_wanted(store: Store) -> None:
    settings = app_settings({"name": "queue", "mode": "queue"}, {"name": "free", "mode": "free"}, {"name": "both"})
    office = Office(store, settings)
    for project in ("queue", "free"):
        office.add_items(1, project)
    office.add_items(2, "both")
    ada = office.person("ada", "queue")
    free, both = ada.at("free"), ada.at("both")
    assert [(each.view().may_prompt, each.view().may_fetch) for each in (ada, free, both)] == [
        (False, True),
        (True, False),
        (True, True),
    ]
    assert "cannot be sent" in refusal(ada.ask, "mine")
    assert free.fetch().phase == "idle"  # nothing is taken from the queue
    assert free.ask("mine").prompt == "mine"
    assert both.ask("mine").prompt == "mine"
    assert "cannot be sent" in refusal(both.ask, "another")
    ada.fetch()
    ada.judge(1)
    assert ada.ask("go on").past[0].content == "ask 0"  # a conversation goes on in any mode
    made = rows(store, item, source="annotator")
    assert len(made) == 2
    assert {row.remaining <= 0 for row in made} == {True}
    office.close()


def test_a_prompt_of_ones_own_goes_to_nobody_else(office: Office) -> None:
    ada, bob = office.person("ada"), office.person("bob")
    ada.ask("private")
    ada.leave()
    assert bob.view().progress.left_in_queue == 0
    assert bob.fetch().phase == "idle"


# -- failures and restarts --------------------------------------------------------------------------------------------


def test_a_variant_that_fails_is_tried_again(office: Office) -> None:
    ada = office.person("ada")
    office.variants["b"].failures = 1
    view = ada.ask("one")
    assert (view.phase, view.message, view.level) == ("failed", texts.MODEL_FAILED, "error")
    assert (view.left, view.right, view.submission_id and "set") in [(None, None, None), (None, None, "set")]
    assert rows(office.store, answer) == []
    assert "both answers" in refusal(ada.submit, Submission(str(view.comparison_id), f"{view.comparison_id}.0", 1))
    assert ada.view().phase == "failed"  # also after a reload
    again = ada.retry()
    assert (again.phase, again.comparison_id) == ("open", view.comparison_id)
    assert len(set(office.variants["a"].seeds)) == 2  # another draw
    assert "nothing to try again" in refusal(ada.retry)
    ada.judge(1)
    assert len(current(office.store)) == 1


def test_there_is_nothing_to_retry_on_an_empty_desk(office: Office) -> None:
    assert "nothing to try again" in refusal(office.person("ada").retry)


def test_a_prompt_is_refused_where_another_tab_has_gone_on(office: Office) -> None:
    ada = office.person("ada")
    about = ada.ask("one").comparison_id
    ada.judge(1)
    ada.fetch()
    ada.ask("something else")
    ada.judge(1)
    with pytest.raises(Refused, match="another tab"):
        office.desk.ask(ada.id, "helpfulness", "more of one", about)
    with pytest.raises(Refused, match="another tab"):
        office.desk.ask(ada.id, "helpfulness", "a new one")
    assert len(rows(office.store, comparison)) == 2
    assert ada.ask("more of something else").past[0].content == "something else"


def test_what_always_fails_can_be_passed_over(store: Store) -> None:
    office = Office(store)
    office.add_items(2)
    office.variants["a"].failures = 10**6
    ada = office.person("ada")
    view = ada.fetch()
    assert (view.phase, view.prompt) == ("failed", "ask 0")
    view = ada.skip("broken")
    assert view.prompt == "ask 1"
    assert only(store, judgment).skip_reason == "broken"
    office.close()


def test_without_variants_only_what_was_answered_is_served(store: Store) -> None:
    office = Office(store, live=False)
    office.add_items([new_item("unanswered"), new_item("answered", answered=True)])
    ada = office.person("ada")
    assert ada.view().progress.left_in_queue == 1
    view = ada.fetch()
    assert (view.phase, view.prompt) == ("open", "answered")
    assert ada.judge(1).phase == "empty"


def test_a_server_that_was_killed_is_taken_over(office: Office) -> None:
    ada = office.person("ada")
    office.hold()
    before = office.desk.ask(ada.id, "helpfulness", "one")
    (written,) = rows(office.store, pair)
    dead, silent = office.desk.generator, office.variants
    assert dead is not None
    office.variants = {"a": Scripted("a"), "b": Scripted("b")}
    office.desk = office._open()  # and the first one says nothing for now
    view = ada.settled()
    assert (view.phase, view.comparison_id, view.prompt) == ("open", before.comparison_id, "one")
    assert only(office.store, pair).id == written.id
    assert [len(variant.asked) for variant in office.variants.values()] == [1, 1]
    ada.judge(1)
    assert len(current(office.store)) == 1
    answers = rows(office.store, answer)
    for variant in silent.values():
        variant.may_end.set()
    dead.close()  # what it had to say comes too late
    assert rows(office.store, answer) == answers
    assert only(office.store, pair).state == "complete"


def test_a_server_that_was_stopped_leaves_nothing_half_done(office: Office) -> None:
    ada = office.person("ada")
    office.hold()
    office.desk.ask(ada.id, "helpfulness", "one")
    office.close()
    assert rows(office.store, answer) == []
    office.desk = office._open()
    view = ada.settled()
    if view.phase == "failed":
        view = ada.retry()
    assert (view.phase, view.prompt) == ("open", "one")


def test_answers_that_a_view_waits_for_are_written_once(office: Office) -> None:
    ada = office.person("ada")
    office.hold()
    office.desk.ask(ada.id, "helpfulness", "one")
    assert {type(view) for view in together([ada.view] * 8)} == {View}
    office.let_go()
    assert ada.settled().phase == "open"
    assert [len(variant.asked) for variant in office.variants.values()] == [1, 1]


# -- the content warning ----------------------------------------------------------------------------------------------


def test_a_safety_project_begins_with_a_warning(store: Store) -> None:
    office = Office(store, app_settings({}, SAFETY))
    office.add_items(2, "safety")
    ada = office.person("ada", "safety")
    for act in (ada.fetch, lambda: ada.ask("one"), ada.train):
        assert "content warning" in refusal(act)
    assert ada.view().phase == "warning"
    assert rows(store, assignment) == []
    assert ada.at("helpfulness").view().phase == "idle"  # no other project has one
    assert ada.accept().phase == "idle"
    shown = ada.fetch()
    assert shown.phase == "open"
    change(store, tables.desk_place, {"warned_until": "2020-01-01T00:00:00.000Z"})
    view = ada.view()
    assert (view.phase, view.prompt, view.left, view.comparison_id) == ("warning", "", None, None)
    assert "content warning" in refusal(ada.fetch)
    view = ada.accept()
    assert (view.phase, view.comparison_id, view.left) == ("open", shown.comparison_id, shown.left)
    office.close()


def test_a_judgment_is_kept_though_the_warning_has_run_out(store: Store) -> None:
    office = Office(store, app_settings(SAFETY), live=False)
    office.add_items(2, "safety")
    ada = office.person("ada", "safety")
    ada.accept()
    ada.fetch()
    given = ada.given(1, safety="both_safe")
    change(store, tables.desk_place, {"warned_until": "2020-01-01T00:00:00.000Z"})
    assert ada.submit(given).phase == "warning"
    assert len(current(store)) == 1


def test_leaving_asks_for_the_warning_again(store: Store) -> None:
    office = Office(store, app_settings(SAFETY), live=False)
    office.add_items(1, "safety")
    ada = office.person("ada", "safety")
    ada.accept()
    ada.fetch()
    assert ada.leave().phase == "warning"
    assert ada.accept().phase == "idle"


# -- closed accounts --------------------------------------------------------------------------------------------------


def test_a_closed_account_can_do_nothing(office: Office) -> None:
    office.add_items(2)
    ada, nobody = office.person("ada"), Person(office, accounts.Account("ann_unknown", "x", "annotator"), "helpfulness")
    first = ada.ask("one")
    ada.judge(1)
    ada.ask("two")
    given = ada.given(1)
    accounts.set_active(office.store, "ada", False)
    before = [rows(office.store, table) for table in (judgment, comparison, assignment, conversation)]
    skip = (given.comparison_id, given.submission_id, "other")
    for who in (ada, nobody):
        actions: list[Callable[[], Any]] = [
            who.view,
            who.accept,
            who.fetch,
            partial(who.ask, "three"),
            partial(who.submit, given),
            partial(office.desk.skip, who.id, *skip),
            who.undo,
            partial(who.edit, first.comparison_id),
            partial(who.retract, first.comparison_id),
            who.retry,
            who.leave,
            who.train,
        ]
        for action in actions:
            assert refusal(action)
    assert [rows(office.store, table) for table in (judgment, comparison, assignment, conversation)] == before
    accounts.set_active(office.store, "ada", True)
    ada.submit(given)
    assert len(current(office.store)) == 2


# -- many at once -----------------------------------------------------------------------------------------------------


def test_each_item_goes_to_one_of_many(store: Store) -> None:
    office = Office(store, live=False)
    office.add_items(40)
    people = [office.person(f"p{number}") for number in range(8)]

    def work(person: Person) -> Callable[[], View]:
        def until_empty() -> View:
            view = person.fetch()
            while view.phase == "open":
                view = person.judge(1)
            return view

        return until_empty

    last = together([work(person) for person in people])
    assert [getattr(view, "phase", view) for view in last] == ["empty"] * 8
    said = current(store)
    assert len(said) == 40
    assert len(rows(store, assignment)) == 40
    assert len({row.item_id for row in rows(store, assignment)}) == 40
    assert {row.remaining for row in rows(store, item)} == {0}
    # Each annotator judged what they had been given.
    theirs = {row.item_id: row.annotator_id for row in rows(store, assignment)}
    shown = {row.id: row for row in rows(store, comparison)}
    begun = {row.id: row.item_id for row in rows(store, conversation)}
    for row in said:
        assert theirs[begun[shown[row.comparison_id].conversation_id]] == row.annotator_id
    assert sum(view.progress.total for view in last) == 40


def test_many_copies_of_one_submission_are_one_row(store: Store) -> None:
    office = Office(store, live=False)
    office.add_items(2)
    ada = office.person("ada")
    ada.fetch()
    given = ada.given(3)
    views = together([lambda: office.desk.submit(ada.id, given)] * 8)
    assert sorted(view.message.partition(" ")[0] for view in views) == ["Already"] * 7 + ["Saved"]
    assert {view.prompt for view in views} == {"ask 1"}
    assert len(rows(store, judgment)) == 1


def test_of_many_different_submissions_one_counts(store: Store) -> None:
    office = Office(store, live=False)
    office.add_items(2)
    ada = office.person("ada")
    ada.fetch()
    given = ada.given(1)
    results = together([partial(ada.submit, replace(given, option=option)) for option in range(1, 9)])
    refused = [result for result in results if isinstance(result, Refused)]
    assert len(refused) == 7
    (won,) = [option for option, result in enumerate(results, start=1) if isinstance(result, View)]
    row = only(store, judgment)
    assert row.grade == GRADES[won - 1 if won <= 4 else 8 - won]


def test_a_double_press_fetches_one_item(store: Store) -> None:
    office = Office(store, live=False)
    office.add_items(8)
    ada = office.person("ada")
    results = together([ada.fetch] * 6)
    assert sum(isinstance(result, View) for result in results) == 1
    assert all(isinstance(result, (View, Refused)) for result in results)
    assert len(rows(store, assignment)) == 1


def test_a_double_press_sends_one_prompt(office: Office) -> None:
    ada = office.person("ada")
    results = together([lambda: ada.ask("one")] * 4)
    assert sum(isinstance(result, View) for result in results) == 1
    assert all(isinstance(result, (View, Refused)) for result in results)
    assert len(rows(office.store, pair)) == 1
    ada.judge(1)
    together([lambda: ada.ask("two")] * 4)
    assert len(rows(office.store, pair)) == 2
