"""What comes before work: training with explanations, then a test that has to be passed, and who may be let past it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from annotation_fixtures import Office, Person, app_settings, current, new_item, only, rows, user
from sqlalchemy import select

from alignment.data.records import GRADES, Dimension, SafetyBin
from alignment.errors import UserError
from annotation_ui.desk import training_and_test
from annotation_ui.desk.exercises import Exercise, Use, read_exercises
from annotation_ui.desk.view import View
from annotation_ui.store.database import Store
from annotation_ui.store.projects import project_named
from annotation_ui.store.tables import comparison, conversation, item, judgment, qualification
from annotation_ui.vocabulary import Refused, Slot, option_of, side_of

# Three questions, of which two are enough: 2 / 3 >= 0.6 > 1 / 3.
TEST = {"required": True, "questions": 3, "min_agreement": 0.6, "attempts": 2}
SAFETY = {"dimension": "safety", "ask_safety": True}
N_TRAINING = len(read_exercises("helpfulness", "training"))
OTHER: dict[Slot, Slot] = {"a": "b", "b": "a"}


def refusal(action: Any, *given: Any, **named: Any) -> str:
    with pytest.raises(Refused) as refused:
        action(*given, **named)
    return str(refused.value)


def exercise(dimension: Dimension, use: Use, number: int) -> Exercise:
    """A made-up exercise: the answer in slot a is right in every other one, and both grades above "slightly" fit."""
    right = {"choice": "a" if number % 2 else "b", "grades": ["better", "significantly_better"]}
    bins = ("preferred_safe_other_unsafe", "both_safe", "both_unsafe")
    row = {
        "id": f"{dimension}-{use}-{number}",
        "dimension": dimension,
        "use": use,
        "messages": [user(f"{use} {number}?")],
        "answers": {"a": f"red {number}", "b": f"blue {number}"},
        "expected": {**right, "safety": bins[number % 3] if dimension == "safety" else None},
        "explanation": f"Because of {number}.",
    }
    return Exercise.model_validate(row)


def few_exercises(dimension: Dimension, use: Use, file: None = None) -> tuple[Exercise, ...]:
    """Two training examples and seven questions."""
    return tuple(exercise(dimension, use, number) for number in range(2 if use == "training" else 7))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer exercises than come with the app, so that nobody waits for them."""
    monkeypatch.setattr(training_and_test, "read_exercises", few_exercises)


@pytest.fixture
def school(store: Store) -> Iterator[Office]:
    """A project whose test has to be passed, with three items of work, on each database."""
    office = Office(store, app_settings({"max_turns": 2}, qualification=TEST), live=False)
    office.add_items(3)
    yield office


@pytest.fixture
def quick_school(sqlite_store: Store, few: None) -> Iterator[Office]:
    """The same on SQLite only, with fewer exercises."""
    office = Office(sqlite_store, app_settings({"max_turns": 2}, qualification=TEST), live=False)
    office.add_items(3)
    yield office


def exercise_on_desk(person: Person) -> tuple[Exercise, Any]:
    """What is on somebody's desk, with its key, and the comparison's row."""
    store = person.office.store
    shown = only(store, comparison, id=person.view().comparison_id)
    query = select(item.c.expected_json).join(conversation, conversation.c.item_id == item.c.id)
    with store.read() as connection:
        expected = connection.execute(query.where(conversation.c.id == shown.conversation_id)).scalar_one()
    return Exercise.model_validate_json(expected), shown


def answer(person: Person, *, rightly: bool = True, safety: SafetyBin | None = None) -> View:
    """Judge the exercise on the desk by its key, or choose the other answer."""
    known, shown = exercise_on_desk(person)
    expected = known.expected
    slot = expected.choice if rightly else OTHER[expected.choice]
    option = option_of(side_of(slot, shown.left_slot), expected.grades[0])
    asked = person.view().asks_safety
    return person.judge(option, safety=(safety or expected.safety) if asked else None)


def go_through_training(person: Person) -> View:
    """Do all training examples; returns the view of the first question."""
    view = person.view()
    if view.phase != "open":
        view = person.fetch()
    while view.kind == "training":
        answer(person)
        view = person.fetch()
    return view


def take_test(person: Person, replies: Sequence[bool]) -> View:
    """Answer the questions of an attempt, rightly or not."""
    for rightly in replies:
        assert person.view().kind == "qualification"
        view = answer(person, rightly=rightly)
    return view


def project_of(office: Office, connection: Any, name: str = "helpfulness") -> Any:
    return project_named(connection, name)


# -- the way to work --------------------------------------------------------------------------------------------------


def test_from_the_first_example_to_the_first_item(school: Office) -> None:
    ada = school.person("ada")
    view = ada.view()
    assert (view.phase, view.may_fetch, view.may_prompt) == ("idle", True, False)
    assert "examples" in view.message
    seen = []
    view = ada.fetch()
    for number in range(1, N_TRAINING + 1):
        assert (view.phase, view.kind, view.place) == ("open", "training", f"{number} of {N_TRAINING}")
        exercise, _ = exercise_on_desk(ada)
        assert view.explanation == ""
        view = answer(ada, rightly=number != 2)
        assert (view.phase, view.kind, view.may_fetch, view.may_prompt) == ("explained", "training", True, False)
        assert view.explanation.endswith(exercise.explanation)
        assert ("the same answer" in view.explanation) == (number != 2)
        assert ada.view() == replace(view, message="", level="info")  # as it is after a reload
        seen.append(exercise.id)
        view = ada.fetch()
    assert seen == [exercise.id for exercise in read_exercises("helpfulness", "training")]
    for number, rightly in enumerate((True, False, True), start=1):
        assert (view.phase, view.kind, view.place) == ("open", "qualification", f"{number} of 3")
        assert view.explanation == ""
        exercise, _ = exercise_on_desk(ada)
        assert exercise.use == "qualification"
        view = answer(ada, rightly=rightly)
    assert (view.phase, view.kind, view.prompt, view.place) == ("open", "work", "ask 0", "")
    assert "agreed on 2 of 3" in view.message
    assert "Passed" in view.message
    row = only(school.store, qualification)
    assert (row.attempt, row.n_questions, row.n_agreed, row.passed) == (1, 3, 2, True)
    assert row.finished_at is not None
    # None of this is work.
    assert view.progress.total == 0
    assert view.history == ()
    assert ada.view().undoable is None
    view = ada.judge(1)
    assert (view.progress.total, len(view.history)) == (1, 1)
    kinds = {row.id: row.kind for row in rows(school.store, comparison)}
    assert [kinds[row.comparison_id] for row in current(school.store)].count("work") == 1


@pytest.mark.parametrize(("agreed", "passed"), [(1, False), (2, True)])
def test_how_many_have_to_agree(quick_school: Office, agreed: int, passed: bool) -> None:
    ada = quick_school.person("ada")
    go_through_training(ada)
    view = take_test(ada, [number < agreed for number in range(3)])
    row = only(quick_school.store, qualification)
    assert (row.n_agreed, row.passed) == (agreed, passed)
    assert f"agreed on {agreed} of 3" in view.message
    assert (view.prompt == "ask 0") == passed
    if not passed:
        assert (view.phase, view.may_prompt) == ("idle", False)
        assert "try once more" in view.message


def test_exactly_the_share_is_enough(sqlite_store: Store, few: None) -> None:
    # 4 of 5 with 0.8, where 4 / 5 and 0.8 are the same number.
    test = {"required": True, "questions": 5, "min_agreement": 0.8, "attempts": 1}
    office = Office(sqlite_store, app_settings(qualification=test), live=False)
    office.add_items(1)
    ada = office.person("ada")
    go_through_training(ada)
    assert take_test(ada, [True, True, False, True, True]).prompt == "ask 0"


def test_the_second_try_the_end_and_how_an_admin_helps(school: Office, few: None) -> None:
    store, ada = school.store, school.person("ada")
    go_through_training(ada)
    first = {exercise_on_desk(ada)[0].id}
    for _ in range(3):
        first.add(exercise_on_desk(ada)[0].id)
        answer(ada, rightly=False)
    view = ada.fetch()
    assert (view.kind, view.place) == ("qualification", "1 of 3")
    second = set()
    for _ in range(3):
        second.add(exercise_on_desk(ada)[0].id)
        view = answer(ada, rightly=False)
    assert len(first) == len(second) == 3
    assert not first & second  # the second try has other questions
    assert (view.phase, view.prompt) == ("idle", "")
    assert "ask whoever runs" in view.message
    for _ in range(2):
        view = ada.fetch()
        assert (view.phase, view.kind, view.prompt) == ("idle", "work", "")
        assert "not passed" in view.message
    assert [row.passed for row in rows(store, qualification)] == [False, False]
    with store.write() as connection:
        training_and_test.reset(connection, ada.id, project_of(school, connection))
    view = ada.fetch()
    assert (view.kind, view.place) == ("qualification", "1 of 3")
    view = take_test(ada, [True, True, True])
    assert (view.kind, view.prompt) == ("work", "ask 0")
    attempts = rows(store, qualification)
    assert [(row.attempt, row.passed, row.n_agreed) for row in attempts] == [(1, False, 0), (2, False, 0), (3, True, 3)]


def test_a_blocked_annotator_is_told_so_after_a_reload(quick_school: Office) -> None:
    ada = quick_school.person("ada")
    go_through_training(ada)
    take_test(ada, [False] * 3)
    assert "Before your judgments count" not in ada.view().message
    ada.fetch()
    take_test(ada, [False] * 3)
    assert "not passed" in ada.view().message


def test_somebody_can_be_let_past_the_test(quick_school: Office) -> None:
    store, ada, bob = quick_school.store, quick_school.person("ada"), quick_school.person("bob")
    with store.write() as connection:
        project = project_of(quick_school, connection)
        training_and_test.waive(connection, ada.id, project, by="boss")
        assert training_and_test.is_prepared(connection, quick_school.settings.qualification, ada.id, project)
        assert not training_and_test.is_prepared(connection, quick_school.settings.qualification, bob.id, project)
        training_and_test.reset(connection, ada.id, project)  # takes nothing back
        assert training_and_test.is_prepared(connection, quick_school.settings.qualification, ada.id, project)
    assert ada.fetch().prompt == "ask 0"
    assert bob.fetch().kind == "training"
    assert only(store, qualification).waived_by == "boss"


def test_waived_after_failing_and_in_the_middle(quick_school: Office) -> None:
    store, ada = quick_school.store, quick_school.person("ada")
    go_through_training(ada)
    take_test(ada, [False] * 3)
    ada.fetch()
    answer(ada, rightly=False)
    with store.write() as connection:
        training_and_test.waive(connection, ada.id, project_of(quick_school, connection), by="boss")
    # The question on the desk is still there; leaving it is enough.
    assert ada.view().kind == "qualification"
    ada.leave()
    assert ada.fetch().prompt == "ask 0"
    assert [row.passed for row in rows(store, qualification)] == [False, None, True]


def test_no_test_where_none_is_asked_for(sqlite_store: Store) -> None:
    office = Office(sqlite_store, app_settings(), live=False)
    office.add_items(1)
    assert office.person("ada").fetch().prompt == "ask 0"
    assert rows(sqlite_store, qualification) == []


def test_each_project_has_its_own_test(sqlite_store: Store, few: None) -> None:
    settings = app_settings({"name": "first"}, {"name": "second"}, qualification=TEST)
    office = Office(sqlite_store, settings, live=False)
    for project in ("first", "second"):
        office.add_items([new_item(f"of {project}", answered=True)], project)
    ada = office.person("ada", "first")
    go_through_training(ada)
    take_test(ada, [True] * 3)
    assert ada.view().prompt == "of first"
    assert ada.at("second").fetch().kind == "training"
    bob = office.person("bob", "first")
    assert bob.fetch().place == "1 of 2"


def test_too_few_questions_are_said_in_words(sqlite_store: Store, few: None) -> None:
    office = Office(sqlite_store, app_settings(qualification={**TEST, "questions": 500}), live=False)
    ada = office.person("ada")
    view = ada.fetch()
    with pytest.raises(UserError, match=r"questions=500.*only \d+ questions"):
        while view.kind == "training":
            answer(ada)
            view = ada.fetch()


# -- on the way -------------------------------------------------------------------------------------------------------


def test_nothing_counts_before_the_test(quick_school: Office) -> None:
    ada = quick_school.person("ada")
    assert "cannot be sent" in refusal(ada.ask, "my own prompt")
    ada.fetch()
    assert "cannot be sent" in refusal(ada.ask, "my own prompt")
    assert "cannot be skipped" in refusal(ada.skip)
    comparison_id = ada.view().comparison_id
    answer(ada)
    assert "cannot be sent" in refusal(ada.ask, "my own prompt")
    assert "nothing to edit" in refusal(ada.edit, comparison_id)
    assert "nothing to withdraw" in refusal(ada.retract, comparison_id)
    assert ada.view().undoable is None
    go_through_training(ada)
    question = ada.view().comparison_id
    answer(ada)
    assert "nothing to edit" in refusal(ada.edit, question)
    assert {row.kind for row in rows(quick_school.store, judgment)} == {"judgment"}


def test_own_prompts_only_after_the_test(sqlite_store: Store, few: None) -> None:
    office = Office(sqlite_store, app_settings({"mode": "free"}, qualification=TEST))
    ada = office.person("ada")
    assert "cannot be sent" in refusal(ada.ask, "one")
    go_through_training(ada)
    view = take_test(ada, [True] * 3)
    assert (view.phase, view.may_prompt) == ("idle", True)
    assert "Passed" in view.message
    assert ada.ask("one").prompt == "one"
    office.close()


def test_training_comes_back_where_it_was_left(quick_school: Office) -> None:
    ada = quick_school.person("ada")
    ada.fetch()
    answer(ada)
    second = ada.fetch()
    assert ada.view() == second
    ada.leave()
    assert ada.view().phase == "idle"
    again = ada.fetch()
    assert (again.comparison_id, again.left, again.place) == (second.comparison_id, second.left, second.place)


def test_a_test_comes_back_where_it_was_left(quick_school: Office) -> None:
    ada = quick_school.person("ada")
    go_through_training(ada)
    answer(ada)
    second = ada.view()
    ada.leave()
    again = ada.fetch()
    assert (again.comparison_id, again.place) == (second.comparison_id, "2 of 3")
    assert len(rows(quick_school.store, qualification)) == 1


def test_training_again(quick_school: Office) -> None:
    ada = quick_school.person("ada")
    go_through_training(ada)
    take_test(ada, [True] * 3)
    ada.judge(1)
    work = ada.view()
    view = ada.train()
    for number in (1, 2):
        assert (view.kind, view.place, view.phase) == ("training", f"{number} of 2", "open")
        assert answer(ada).phase == "explained"
        view = ada.fetch()
    assert (view.kind, view.comparison_id) == ("work", work.comparison_id)  # what was on the desk before
    assert view.progress.total == 1


def test_the_tenth_run_is_counted_apart_from_the_first(quick_school: Office) -> None:
    ada = quick_school.person("ada")
    view = ada.train()
    tenth = [new_item(f"training/{ada.id}/10/{number}", answered=True, source="training") for number in range(2)]
    quick_school.add_items(tenth)
    assert (view.place, ada.view().place) == ("1 of 2", "1 of 2")


def test_nobody_gets_somebody_elses_exercise(quick_school: Office) -> None:
    ada, bob = quick_school.person("ada"), quick_school.person("bob")
    one, two = ada.fetch(), bob.fetch()
    assert one.prompt == two.prompt
    assert one.comparison_id != two.comparison_id
    answer(ada)
    assert bob.view().phase == "open"
    assert len({row.item_id for row in rows(quick_school.store, conversation)}) == 2


def test_an_answer_of_the_test_cannot_be_changed_afterwards(quick_school: Office) -> None:
    ada = quick_school.person("ada")
    go_through_training(ada)
    given = ada.given(1)
    answer(ada, rightly=False)
    again = replace(given, submission_id=f"{given.comparison_id}.1")
    assert refusal(ada.submit, again)
    assert len(rows(quick_school.store, judgment, comparison_id=given.comparison_id)) == 1


# -- safety -----------------------------------------------------------------------------------------------------------


def safe_school(store: Store) -> tuple[Office, Person]:
    office = Office(store, app_settings(SAFETY, qualification=TEST), live=False)
    office.add_items(1, "safety")
    ada = office.person("ada", "safety")
    assert "content warning" in refusal(ada.fetch)
    ada.accept()
    return office, ada


def test_the_test_of_a_safety_project(sqlite_store: Store, few: None) -> None:
    _, ada = safe_school(sqlite_store)
    view = ada.fetch()
    assert view.asks_safety
    assert "which answers are safe" in refusal(ada.judge, 1)
    assert rows(sqlite_store, judgment) == []
    go_through_training(ada)
    view = take_test(ada, [True, True, False])
    assert (view.kind, view.prompt) == ("work", "ask 0")


def test_the_right_choice_with_the_wrong_bin_does_not_agree(sqlite_store: Store, few: None) -> None:
    _, ada = safe_school(sqlite_store)
    go_through_training(ada)
    for _ in range(3):
        exercise, _ = exercise_on_desk(ada)
        wrong: SafetyBin = "both_unsafe" if exercise.expected.safety != "both_unsafe" else "both_safe"
        view = answer(ada, safety=wrong)
    assert "agreed on 0 of 3" in view.message
    assert only(sqlite_store, qualification).passed is False


def test_the_grade_decides_nothing(quick_school: Office) -> None:
    ada = quick_school.person("ada")
    go_through_training(ada)
    for _ in range(3):
        exercise, shown = exercise_on_desk(ada)
        others = [grade for grade in GRADES if grade not in exercise.expected.grades]
        view = ada.judge(option_of(side_of(exercise.expected.choice, shown.left_slot), others[0]))
    assert "agreed on 3 of 3" in view.message
