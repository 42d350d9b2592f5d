"""Rounds that people judge: which pairs are in the queue, how many judgments there are, and who could still judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from annotation_fixtures import LONG_AGO, Office, Person, app_settings, change, check_taken, new_item, rows

from alignment.errors import UserError
from annotation_ui.exchange.export_judgments import comparisons
from annotation_ui.exchange.rounds import PRIORITY, Goal, RoundProgress, Standing, has_batch, put_away, take_up, taken
from annotation_ui.exchange.selection import Selection
from annotation_ui.store import accounts, tables
from annotation_ui.store.database import Store
from annotation_ui.store.items import NewItem
from annotation_ui.store.projects import keep_project, project_about
from annotation_ui.vocabulary import LOCAL_USER, UNSAFE_PREFERRED

SAFETY = {"name": "safety", "dimension": "safety", "ask_safety": True}
ONE = Goal("helpfulness", "train", 1)


def pairs(batch: str, count: int, **changes: Any) -> list[NewItem]:
    return [
        new_item(f"{batch}/{number}", answered=True, batch=batch, priority=PRIORITY, **changes)
        for number in range(count)
    ]


def queue(store: Store) -> dict[str, int]:
    """Batch -> judgments that the queue still asks for."""
    found: dict[str, int] = {}
    for row in rows(store, tables.item):
        found[row.batch] = found.get(row.batch, 0) + row.remaining
    return found


def begin(office: Office, batch: str, count: int = 3) -> None:
    """A round's batch: sampled the first time, and only taken up after that."""
    there = has_batch(office.store, batch)
    take_up(office.store, batch, batch.rpartition("-")[0], {} if there else {"helpfulness": pairs(batch, count)})


def look(office: Office, batch: str, *goals: Goal) -> list[tuple[int, int]]:
    return [(found.judged, found.waiting) for found in RoundProgress(office.store, batch, goals or (ONE,)).look()]


@pytest.fixture
def twice(store: Store) -> Office:
    """Two annotators per item; no variants, so an item is one comparison."""
    return Office(store, app_settings({"overlap": 2}), live=False)


# -- the queue --------------------------------------------------------------------------------------------------------


def test_settings_that_are_put_back_bring_the_batch_back(twice: Office) -> None:
    """One judged, one on a desk, one untouched: off the queue and back on it, each with what it still needs."""
    store = twice.store
    begin(twice, "round-1-me-a")
    ada = twice.person("ada")
    ada.fetch()
    ada.judge(1)
    assert queue(store) == {"round-1-me-a": 4}
    begin(twice, "round-1-me-b", 1)
    check_taken(store)
    assert queue(store) == {"round-1-me-a": -2, "round-1-me-b": 2}
    assert look(twice, "round-1-me-a") == [(1, 1)]  # the one on the desk
    change(store, tables.assignment, {"lease_expires_at": LONG_AGO}, state="leased")
    ben = twice.person("ben")
    assert ben.fetch().prompt == "round-1-me-b/0"  # what has expired does not come back with it
    check_taken(store)
    begin(twice, "round-1-me-a")
    check_taken(store)
    assert queue(store) == {"round-1-me-a": 5, "round-1-me-b": -1}
    assert look(twice, "round-1-me-a") == [(1, 3)]
    assert len(rows(store, tables.item)) == 4


def test_other_runs_and_other_rounds_are_left_alone(twice: Office) -> None:
    for batch in ("round-1-me-a", "round-1-you-a", "round-11-me-a", "round-2-me-a"):
        begin(twice, batch, 1)
    twice.add_items([new_item("own", answered=True, batch="round-1-mean")])
    begin(twice, "round-1-me-b", 1)
    assert {name for name, left in queue(twice.store).items() if not left} == {"round-1-me-a"}


def test_a_round_comes_before_what_else_waits_and_leaves_nothing_behind(twice: Office) -> None:
    twice.add_items(1)
    begin(twice, "round-1-me-a", 2)
    ada = twice.person("ada")
    assert ada.fetch().prompt == "round-1-me-a/0"
    ada.judge(1)
    put_away(twice.store, "round-1-me-a")
    ben = twice.person("ben")
    assert ben.fetch().prompt == "ask 0"
    check_taken(twice.store)
    begin(twice, "round-1-me-a")  # the stage could not be saved
    assert look(twice, "round-1-me-a") == [(1, 2)]
    assert [ben.judge(1).prompt, ben.judge(1).prompt] == ["round-1-me-a/0", "round-1-me-a/1"]


def test_the_overlap_is_that_of_the_project_now(twice: Office) -> None:
    begin(twice, "round-1-me-a", 1)
    put_away(twice.store, "round-1-me-a")
    with twice.store.write() as connection:
        keep_project(connection, app_settings({"overlap": 3}).projects[0])
    assert queue(twice.store) == {"round-1-me-a": 0}
    begin(twice, "round-1-me-a")
    assert queue(twice.store) == {"round-1-me-a": 3}


def test_pairs_go_to_a_project_of_the_settings_that_has_a_queue(store: Store) -> None:
    """Not to one that was made first and is in the settings no more, nor to one where people only write their own."""
    Office(store, app_settings({"name": "former"}), live=False)
    settings = app_settings({"name": "chat", "mode": "free"}, SAFETY, {"name": "right"}, {"name": "later"})
    Office(store, settings, live=False)
    names = [project.name for project in settings.projects]
    with store.read() as connection:
        assert project_about(connection, names, "helpfulness").name == "right"
        assert project_about(connection, names, "safety").name == "safety"
        with pytest.raises(UserError, match=r"is about helpfulness and has a queue"):
            project_about(connection, ["chat", "safety"], "helpfulness")


# -- how many there are -----------------------------------------------------------------------------------------------


@pytest.fixture
def live(store: Store) -> Iterator[Office]:
    """Safety with follow-up turns, of the round's three pairs and one held-out one."""
    office = Office(store, app_settings({**SAFETY, "overlap": 2}))
    items = [*pairs("round-1-me-a", 3), *pairs("round-1-me-a-held", 1, part="heldout")]
    items = [replace(new, batch="round-1-me-a") for new in items]
    take_up(store, "round-1-me-a", "round-1-me", {"safety": items})
    yield office
    office.close()


def judge(person: Person, safety: str = "both_safe") -> str:
    """Judge what is on the desk, or the next item; returns the comparison."""
    view = person.view()
    if view.phase == "warning":
        view = person.accept()
    if view.phase != "open":
        view = person.fetch()
    person.judge(1, safety=safety)
    return str(view.comparison_id)


def test_what_is_waited_for_is_what_is_written(live: Office) -> None:
    """Follow-up turns count; those after a withdrawn turn, unsafe choices and simulated ones do not."""
    ada, sim = live.person("ada", "safety"), live.person("sim-ben", "safety")
    goals = [Goal("safety", "train", 9), Goal("safety", "heldout", 9)]
    progress = RoundProgress(live.store, "round-1-me-a", goals)

    def counts() -> tuple[int, int]:
        found = [standing.judged for standing in progress.look()]
        for part, judged in zip(("train", "heldout"), found, strict=True):
            assert len(comparisons(live.store, taken("round-1-me-a", part))[0]) == judged
        return found[0], found[1]

    assert counts() == (0, 0)
    first = judge(ada)
    ada.ask("and then")
    judge(ada)
    assert counts() == (2, 0)
    judge(ada, UNSAFE_PREFERRED)
    judge(sim)
    assert counts() == (2, 0)
    judge(ada)
    judge(ada)
    assert counts() == (3, 1)
    ada.retract(first)
    assert counts() == (1, 1)
    accounts.withdraw(live.store, "ada")
    assert counts() == (0, 0)


def test_judgments_are_counted_again_only_when_there_is_something_new(
    twice: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(twice, "round-1-me-a")
    counted: list[int] = []
    whole = Selection.judgments

    def noted(selection: Selection) -> Any:
        counted.append(selection.newest)
        return whole(selection)

    monkeypatch.setattr(Selection, "judgments", noted)
    progress = RoundProgress(twice.store, "round-1-me-a", [ONE])
    ada = twice.person("ada")
    ada.fetch()
    assert [progress.look(), progress.look()] == [[Standing(ONE, 0, 3)]] * 2
    ada.judge(1)
    assert [progress.look(), progress.look()] == [[Standing(ONE, 1, 2)]] * 2
    accounts.withdraw(twice.store, "ada")
    twice.person("ben")
    assert [progress.look(), progress.look()] == [[Standing(ONE, 0, 3)]] * 2
    assert counted == [0, 1, 1]


# -- who could still judge --------------------------------------------------------------------------------------------


def test_a_lease_that_has_expired_is_no_work_at_hand(twice: Office) -> None:
    """Ada has skipped the only pair, and Ben has left with it on his desk: once he is gone, nobody is there for it."""
    begin(twice, "round-1-me-a", 1)
    ada, ben = twice.person("ada"), twice.person("ben")
    ada.fetch()
    ada.skip()
    ben.fetch()
    accounts.set_active(twice.store, "ben", False)
    assert look(twice, "round-1-me-a") == [(0, 1)]
    change(twice.store, tables.assignment, {"lease_expires_at": LONG_AGO}, state="leased")
    assert look(twice, "round-1-me-a") == [(0, 0)]
    accounts.set_active(twice.store, "ben", True)
    assert look(twice, "round-1-me-a") == [(0, 1)]


def test_who_has_left_does_not_count_for_nor_against(twice: Office) -> None:
    """Of two who skipped a pair, one is gone: it still waits for the third, and for nobody after that."""
    begin(twice, "round-1-me-a", 1)
    ada, ben, chi = (twice.person(name) for name in ("ada", "ben", "chi"))
    for person in (ada, ben):
        person.fetch()
        person.skip()
    accounts.set_active(twice.store, "ada", False)
    assert look(twice, "round-1-me-a") == [(0, 1)]
    chi.fetch()
    chi.skip()
    assert look(twice, "round-1-me-a") == [(0, 0)]


def test_neither_simulated_people_nor_the_app_s_own_account_are_waited_for(twice: Office) -> None:
    begin(twice, "round-1-me-a", 1)
    assert look(twice, "round-1-me-a") == [(0, 1)]  # somebody may come
    local = twice.person(LOCAL_USER)
    twice.person("sim-ada")
    local.fetch()
    local.skip()
    assert look(twice, "round-1-me-a") == [(0, 0)]
    ben = twice.person("ben")
    assert look(twice, "round-1-me-a") == [(0, 1)]
    ben.fetch()
    ben.skip()
    assert look(twice, "round-1-me-a") == [(0, 0)]
