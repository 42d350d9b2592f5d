"""The desk where nothing is judged: skipping, leaving, one's own prompts, failures and restarts."""

from __future__ import annotations

from functools import partial

import pytest
from annotation_fixtures import (
    Office,
    Scripted,
    app_settings,
    current,
    new_item,
    only,
    rows,
    together,
    wait_for,
)
from desk_kit import outcome, refusal

from annotation_ui import texts
from annotation_ui.desk.view import View
from annotation_ui.store.database import Store
from annotation_ui.store.judgment_values import Submission
from annotation_ui.store.tables import answer, assignment, comparison, conversation, item, judgment, pair
from annotation_ui.vocabulary import Refused

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
    office.hold("b")
    office.variants["b"].failures = 1
    office.desk.ask(ada.id, "helpfulness", "one")
    wait_for(lambda: len(office.variants["a"].seeds), (1).__eq__)  # else the failure of b may stop a before it begins
    office.let_go()
    view = ada.settled()
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
