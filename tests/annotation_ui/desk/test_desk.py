"""The desk: one annotator's way through a conversation, on which sides answers stand, and what annotators see."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from annotation_fixtures import (
    COLOURS,
    VARIANTS,
    Office,
    app_settings,
    assistant,
    new_item,
    only,
    rows,
    slot_of,
    user,
    wait_for,
)
from desk_kit import SAFETY, chosen, refusal

from annotation_ui.desk.view import View
from annotation_ui.store import conversations_and_places, tables
from annotation_ui.store.database import Store
from annotation_ui.store.pairs import load_messages
from annotation_ui.store.tables import answer, assignment, comparison, conversation, item, judgment, pair
from annotation_ui.vocabulary import Pane, draw_left_slot

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
                conversations_and_places.begin(connection, person.id, item_row, "work")
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
