"""Who may work at the desk when: after the content warning, with an open account, one of many at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from annotation_fixtures import (
    Office,
    Person,
    app_settings,
    change,
    current,
    only,
    rows,
    together,
)
from desk_kit import SAFETY, refusal

from alignment.data.records import GRADES
from annotation_ui.desk.view import View
from annotation_ui.store import accounts, tables
from annotation_ui.store.database import Store
from annotation_ui.store.tables import assignment, comparison, conversation, item, judgment, pair
from annotation_ui.vocabulary import Refused

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
    ada.settled()
    ada.judge(1)
    together([lambda: ada.ask("two")] * 4)
    assert len(rows(office.store, pair)) == 2
