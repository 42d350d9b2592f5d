"""Who gets which item: leases, overlap, order, gold items; and that the books always balance."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from annotation_fixtures import (
    LONG_AGO,
    Office,
    Person,
    app_settings,
    change,
    check_taken,
    current,
    new_item,
    only,
    rows,
    slot_of,
    together,
)

from annotation_ui.desk.view import View
from annotation_ui.store import assignments
from annotation_ui.store.database import Store
from annotation_ui.store.items import add_items, set_overlap
from annotation_ui.store.projects import keep_project, project_named
from annotation_ui.store.tables import assignment, comparison, conversation, item, judgment, pair
from annotation_ui.vocabulary import Refused


def expire_all(office: Office) -> None:
    """Let an hour pass."""
    change(office.store, assignment, {"lease_expires_at": LONG_AGO}, state="leased")


def remaining(office: Office) -> dict[str, int]:
    return {row.id.partition("/")[2]: row.remaining for row in rows(office.store, item)}


# -- overlap ----------------------------------------------------------------------------------------------------------


def test_an_overlap_of_two_is_two_annotators_on_the_same_pair(store: Store) -> None:
    office = Office(store, app_settings({"overlap": 2, "max_turns": 1}))
    office.add_items(1)
    ada, bob, cem = (office.person(name) for name in ("ada", "bob", "cem"))
    assert ada.fetch().prompt == "ask 0"
    assert remaining(office) == {"ask 0": 1}
    assert bob.fetch().prompt == "ask 0"
    assert remaining(office) == {"ask 0": 0}
    assert cem.fetch().phase == "idle"
    written = only(store, pair)
    assert {row.pair_id for row in rows(store, comparison)} == {written.id}
    assert [len(variant.asked) for variant in office.variants.values()] == [1, 1]
    for person, option in ((ada, 1), (bob, 8)):
        person.judge(option)
        assert person.fetch().phase == "idle"  # once each
    assert cem.fetch().phase == "idle"
    assert {row.annotator_id for row in current(store)} == {ada.id, bob.id}
    office.close()


def test_a_second_annotator_waits_for_the_same_answers(store: Store) -> None:
    office = Office(store, app_settings({"overlap": 2}))
    office.add_items(1)
    ada, bob = office.person("ada"), office.person("bob")
    office.hold()
    office.desk.fetch(ada.id, "helpfulness")
    office.desk.fetch(bob.id, "helpfulness")
    office.let_go()
    one, two = ada.settled(), bob.settled()
    texts = [{slot_of(view.left): view.left, slot_of(view.right): view.right} for view in (one, two)]
    assert texts[0] == texts[1]
    assert len(office.variants["a"].asked) == 1
    assert one.comparison_id != two.comparison_id
    office.close()


def test_fetched_at_the_same_moment_it_is_one_pair(store: Store) -> None:
    office = Office(store, app_settings({"overlap": 2}))
    office.add_items(1)
    people = [office.person(name) for name in ("ada", "bob", "cem")]
    office.hold()
    views = together([partial(office.desk.fetch, person.id, "helpfulness") for person in people])
    assert sorted(view.phase for view in views) == ["generating", "generating", "idle"]
    office.let_go()
    assert sorted(person.settled().phase for person in people) == ["idle", "open", "open"]
    assert len(rows(store, pair)) == 1
    assert len(office.variants["a"].asked) == 1
    office.close()


def test_a_pair_that_failed_for_one_is_tried_again_for_the_next(store: Store) -> None:
    office = Office(store, app_settings({"overlap": 2}))
    office.add_items(1)
    ada, bob = office.person("ada"), office.person("bob")
    office.variants["a"].failures = 1
    assert ada.fetch().phase == "failed"
    assert bob.fetch().phase == "open"
    if ada.view().phase == "failed":
        ada.retry()
    assert ada.view().phase == "open"
    assert len({row.pair_id for row in rows(store, comparison)}) == 1  # else they judge different answers
    office.close()


def test_items_may_have_an_overlap_of_their_own(quiet_office: Office) -> None:
    quiet_office.add_items([new_item("three", answered=True)], overlap=3)
    quiet_office.add_items([new_item("one", answered=True)])
    assert remaining(quiet_office) == {"three": 3, "one": 1}
    people = [quiet_office.person(f"p{number}") for number in range(5)]
    assert [person.fetch().prompt for person in people] == ["three", "three", "three", "one", ""]


def test_the_project_s_overlap_can_be_changed_for_what_waits(store: Store) -> None:
    """Items with a number of their own, and those off the queue, stay as they are; what was judged counts."""
    office = Office(store, app_settings({"overlap": 1}), live=False)
    office.add_items(2)
    office.add_items([new_item("own", answered=True)], overlap=3)
    office.add_items([new_item("off", answered=True), new_item("known", answered=True, source="gold")])
    with store.write() as connection:
        set_overlap(connection, item.c.id == "helpfulness/off", 0)
    ada, ben = office.person("ada"), office.person("ben")
    ada.fetch()
    ada.judge(1)
    assert remaining(office) == {"ask 0": 0, "ask 1": 0, "own": 3, "off": 0, "known": 2**30}
    twice = app_settings({"overlap": 2}).projects[0]
    for change_it, left in ((False, 0), (True, 1), (True, 1)):
        with store.write() as connection:
            keep_project(connection, twice, change=change_it)
        assert remaining(office) == {"ask 0": left, "ask 1": left, "own": 3, "off": 0, "known": 2**30}
    assert [ben.fetch().prompt, ben.judge(1).prompt] == ["ask 0", "ask 1"]
    check_taken(store)
    with store.write() as connection:
        keep_project(connection, app_settings({"overlap": 1}).projects[0])
    assert remaining(office) == {"ask 0": -1, "ask 1": -1, "own": 3, "off": 0, "known": 2**30}


# -- leases -----------------------------------------------------------------------------------------------------------


def test_a_lease_lasts_as_long_as_the_settings_say(store: Store) -> None:
    office = Office(store, app_settings(lease_minutes=90), live=False)
    office.add_items(1)
    office.person("ada").fetch()
    row = only(store, assignment)
    lasts = datetime.fromisoformat(row.lease_expires_at) - datetime.now(UTC)
    assert timedelta(minutes=89) < lasts <= timedelta(minutes=90)
    with store.write() as connection:
        assert assignments.expire(connection) == 0
    expire_all(office)
    with store.write() as connection:
        assert assignments.expire(connection) == 1
        assert assignments.expire(connection) == 0
    assert (only(store, assignment).state, only(store, item).remaining) == ("expired", 1)


def test_an_expired_item_goes_to_somebody_else_and_a_late_judgment_is_kept(quiet_office: Office) -> None:
    office, store = quiet_office, quiet_office.store
    office.add_items(1)
    ada, bob, cem = (office.person(name) for name in ("ada", "bob", "cem"))
    shown = ada.fetch()
    assert bob.fetch().phase == "empty"
    expire_all(office)
    assert bob.fetch().prompt == "ask 0"
    assert cem.fetch().phase == "empty"
    assert ada.view().comparison_id == shown.comparison_id  # still there
    view = ada.judge(2)
    assert view.message.startswith("Saved ")
    assert view.phase == "empty"
    bob.judge(2)
    assert {row.annotator_id for row in current(store)} == {ada.id, bob.id}
    assert {row.state for row in rows(store, assignment)} == {"done"}
    assert cem.fetch().phase == "empty"  # more than enough is not an invitation
    assert rows(store, assignment, annotator_id=cem.id) == []


def test_an_expired_item_comes_back_to_the_same_one_on_the_same_sides(quiet_office: Office) -> None:
    quiet_office.add_items(2)
    ada, bob = quiet_office.person("ada"), quiet_office.person("bob")
    first = ada.fetch()
    ada.leave()
    bob.fetch()
    expire_all(quiet_office)
    again = ada.fetch()
    assert (again.prompt, again.comparison_id, again.left) == ("ask 0", first.comparison_id, first.left)
    ada.judge(1)
    assert len(rows(quiet_office.store, conversation, annotator_id=ada.id)) == 2


@pytest.mark.parametrize("mode", ["queue", "both"])
def test_what_has_expired_can_be_fetched(store: Store, mode: str) -> None:
    office = Office(store, app_settings({"mode": mode}))
    office.add_items(1)
    ada, bob = office.person("ada"), office.person("bob")
    ada.fetch()
    assert bob.view().progress.left_in_queue == 0
    expire_all(office)
    view = bob.view()
    assert view.may_fetch
    assert bob.fetch().prompt == "ask 0"
    office.close()


def test_an_expired_test_question_stays_with_its_annotator(quiet_office: Office) -> None:
    ada, bob = quiet_office.person("ada"), quiet_office.person("bob")
    ada.train()
    expire_all(quiet_office)
    quiet_office.add_items(1)
    assert bob.fetch().prompt == "ask 0"
    assert {row.remaining for row in rows(quiet_office.store, item, source="training")} == {0}
    assert ada.judge(1).phase == "explained"


def test_a_skipped_item_goes_to_others_and_not_to_the_same_one(quiet_office: Office) -> None:
    quiet_office.add_items(1)
    ada, bob, cem = (quiet_office.person(name) for name in ("ada", "bob", "cem"))
    ada.fetch()
    assert ada.skip("no_expertise").phase == "empty"
    assert remaining(quiet_office) == {"ask 0": 1}
    assert ada.fetch().phase == "empty"
    bob.fetch()
    bob.judge(1)
    assert cem.fetch().phase == "empty"
    assert only(quiet_office.store, assignment, annotator_id=ada.id).state == "skipped"
    assert len(current(quiet_office.store)) == 1


def test_a_skip_does_not_count_towards_the_overlap(quiet_office: Office) -> None:
    quiet_office.add_items(1, overlap=2)
    people = [quiet_office.person(f"p{number}") for number in range(4)]
    for person, skips in zip(people, (True, False, True, False), strict=True):
        assert person.fetch().prompt == "ask 0"
        if skips:
            person.skip()
        else:
            person.judge(1)
    assert quiet_office.person("last").fetch().phase == "empty"
    assert len(current(quiet_office.store)) == 2


# -- order ------------------------------------------------------------------------------------------------------------


def test_items_come_by_priority_then_in_order(quiet_office: Office) -> None:
    named = [("late", -1), ("first", 0), ("urgent", 5), ("second", 0), ("urgent too", 5)]
    quiet_office.add_items([new_item(name, answered=True, priority=priority) for name, priority in named])
    quiet_office.add_items([new_item("third", answered=True), new_item("most urgent", answered=True, priority=9)])
    ada = quiet_office.person("ada")
    prompts = [ada.fetch().prompt] + [ada.judge(1).prompt for _ in range(6)]
    assert prompts == ["most urgent", "urgent", "urgent too", "first", "second", "third", "late"]


def test_the_same_items_are_added_once(quiet_office: Office) -> None:
    store = quiet_office.store
    with store.write() as connection:
        project = project_named(connection, "helpfulness")
        items = [new_item("one", answered=True), new_item("two", answered=True), new_item("one", answered=True)]
        assert add_items(connection, project, items) == 2
        assert add_items(connection, project, [*items, new_item("three", answered=True)]) == 1
    assert [row.place for row in rows(store, item)] == [1, 2, 3]
    assert len(rows(store, pair)) == 3


# -- gold items -------------------------------------------------------------------------------------------------------


def gold(count: int) -> list[Any]:
    return [
        new_item(f"gold {number}", answered=True, source="gold", expected={"choice": "a"}) for number in range(count)
    ]


def drawn(office: Office, person: Person, count: int, share: float) -> list[str]:
    """The sources of the next so many items, each judged at once."""
    sources = []
    with office.store.write() as connection:
        project = project_named(connection, "helpfulness")
        for _ in range(count):
            row = assignments.lease_next(
                connection, person.id, project.id, lease_minutes=60, gold_share=share, live=False
            )
            assert row is not None
            assignments.end(connection, person.id, row.id, "done")
            sources.append(row.source)
    return sources


def test_gold_items_come_at_their_share(sqlite_store: Store) -> None:
    office = Office(sqlite_store, live=False)
    office.add_items(100)
    office.add_items(gold(40))
    ada, bob, cem = (office.person(name) for name in ("ada", "bob", "cem"))
    assert drawn(office, ada, 40, 0.0) == ["queue"] * 40
    golds = drawn(office, bob, 60, 0.3).count("gold")
    assert abs(golds - 18) <= 5 * math.sqrt(60 * 0.3 * 0.7)
    assert 0 < golds < 60
    # As long as there are some, once each.
    assert Counter(drawn(office, cem, 50, 1.0)) == {"gold": 40, "queue": 10}
    had = [row.item_id for row in rows(sqlite_store, assignment, annotator_id=cem.id)]
    assert len(set(had)) == 50


def test_gold_items_go_to_everybody(store: Store) -> None:
    office = Office(store, app_settings({"gold_share": 1.0}), live=False)
    office.add_items(gold(2))
    office.add_items(2)
    for name in ("ada", "bob"):
        person = office.person(name)
        prompts = [person.fetch().prompt] + [person.judge(1).prompt for _ in range(2)]
        assert prompts[:2] == ["gold 0", "gold 1"]
        assert prompts[2].startswith("ask")
    assert {row.source for row in rows(store, item) if row.remaining < 0} == set()


def test_giving_an_item_back_does_not_draw_again(sqlite_store: Store) -> None:
    office = Office(sqlite_store, live=False)
    office.add_items(30)
    office.add_items(gold(30))
    ada = office.person("ada")
    how: dict[str, Any] = {"lease_minutes": 60, "gold_share": 0.5, "live": False}
    sources = set()
    with sqlite_store.write() as connection:
        project = project_named(connection, "helpfulness")
        for _ in range(20):
            first = assignments.lease_next(connection, ada.id, project.id, **how)
            assert first is not None
            assignments.end(connection, ada.id, first.id, "returned")
            again = assignments.lease_next(connection, ada.id, project.id, **how)
            assert again is not None
            assert again.id == first.id  # else it shows which of the two is a gold item
            assignments.end(connection, ada.id, again.id, "done")
            sources.add(first.source)
    assert sources == {"queue", "gold"}


def test_no_gold_item_comes_after_the_queue_has_ended(sqlite_store: Store) -> None:
    office = Office(sqlite_store, app_settings({"gold_share": 1.0}), live=False)
    office.add_items(gold(3))
    ada = office.person("ada")
    assert ada.view().phase == "empty"
    assert ada.fetch().phase == "empty"  # else whoever gets one knows what it is


SEED, STEPS = 5, 60


# -- the books balance ------------------------------------------------------------------------------------------------


def check_books(office: Office, person: Person) -> None:
    """What must hold after anything that somebody does."""
    store = office.store
    check_taken(store)
    said: dict[str, list[Any]] = {}
    for row in rows(store, judgment):
        said.setdefault(row.comparison_id, []).append(row)
    held = {row.comparison_id: row for row in current(store)}
    conversations = {row.id: row for row in rows(store, conversation)}
    states = {(row.item_id, row.annotator_id): row.state for row in rows(store, assignment)}
    for row in rows(store, comparison):
        chain = said.get(row.id, [])
        assert [each.supersedes for each in chain] == [None, *[each.id for each in chain]][: len(chain)]
        assert (row.state == "judged") == (row.id in held), row
        assert {each.annotator_id for each in chain} <= {row.annotator_id}
        if row.turn == 1:
            state = states[conversations[row.conversation_id].item_id, row.annotator_id]
            assert (row.state == "judged") == (state == "done"), (row, state)
            assert (row.state == "skipped") == (state == "skipped"), (row, state)
    view = person.view()
    assert view.progress.total == sum(row.annotator_id == person.id for row in held.values())
    check_view(view, {row.id: row for row in rows(store, comparison)})


def check_view(view: View, shown: dict[str, Any]) -> None:
    """That a view says what the store says."""
    if view.comparison_id is None:
        assert view.phase in ("idle", "empty")
        return
    row = shown[view.comparison_id]
    if view.phase == "open":
        assert row.state == ("judged" if view.editing else "open"), (view, row)
        assert (view.draft.option is not None) == view.editing
    else:
        assert (view.phase, row.state) == ("judged", "judged"), (view, row)
    assert view.left is not None
    assert slot_of(view.left) == row.left_slot


def act(rng: random.Random, office: Office, person: Person) -> str:
    """Something that somebody might do, what fits the moment more often than not; what is refused is not done."""
    view = person.view()
    known = [line.comparison_id for line in view.history if line.can_edit or rng.random() < 0.3]
    known.append(view.comparison_id or "cmp_unknown")
    actions: dict[str, Callable[[], Any]] = {
        "fetch": person.fetch,
        "ask": lambda: person.ask(f"prompt {rng.randrange(10**9)}"),
        "judge": lambda: person.judge(rng.randint(1, 8)),
        "skip": lambda: person.skip(rng.choice(["other", "broken"])),
        "undo": person.undo,
        "edit": lambda: person.edit(rng.choice(known)),
        "retract": lambda: person.retract(rng.choice(known)),
        "leave": person.leave,
        "time passes": lambda: expire_all(office),
    }
    fitting = ["judge", "judge", "judge", "skip", "edit"]
    if view.phase != "open":
        fitting = ["fetch", "fetch", "ask", "edit", "retract"]
    name = rng.choice(fitting if rng.random() < 0.6 else list(actions))
    try:
        actions[name]()
    except Refused:
        return f"{name} refused"
    return name


@pytest.mark.parametrize("live", [False, True], ids=["sampled before", "live"])
def test_the_books_balance_whatever_people_do(sqlite_store: Store, live: bool) -> None:
    office = Office(sqlite_store, app_settings({"max_turns": 2}), live=live)
    office.add_items(9, overlap=2)
    people = [office.person(name) for name in ("ada", "bob", "cem")]
    rng = random.Random(SEED)
    trail: list[tuple[str, str]] = []
    for _ in range(STEPS):
        person = rng.choice(people)
        trail.append((person.account.username, act(rng, office, person)))
        try:
            check_books(office, person)
        except AssertionError as error:
            raise AssertionError(f"after {trail[-12:]}") from error
    happened = {name for _, name in trail}
    assert {"fetch", "judge", "skip", "undo", "edit", "retract", "leave", "time passes"} <= happened, Counter(trail)
    office.close()
