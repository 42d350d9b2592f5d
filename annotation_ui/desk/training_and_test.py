"""What comes before work in a project: a content warning, training examples, and a test that has to be passed.

Training examples and test questions are items of one annotator, judged on the same page and kept in the same rows as
all else; exports and reports leave them out. What they are is in ``annotation_ui.desk.exercises``.

``keep_projects`` makes the projects of the settings, once it is sure that their tests can be held.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, insert, select, update

from annotation_ui import texts
from annotation_ui.app_settings import AppSettings, ProjectSettings, QualificationSettings
from annotation_ui.desk.exercises import Exercise, Reply, Score, questions_for, read_exercises, score
from annotation_ui.store import tables
from annotation_ui.store.database import Store, new_id, now
from annotation_ui.store.items import NewItem, add_items
from annotation_ui.store.judgments import current
from annotation_ui.store.pairs import NewAnswer, VariantInfo
from annotation_ui.store.projects import keep_project
from annotation_ui.store.rows import DeskPlaceRow, ItemRow, ProjectRow, QualificationRow, Source
from annotation_ui.vocabulary import SLOTS, Slot, TaskKind

_ATTEMPTS = (
    select(tables.qualification)
    .where(
        tables.qualification.c.annotator_id == bindparam("annotator_id"),
        tables.qualification.c.project_id == bindparam("project_id"),
    )
    .order_by(tables.qualification.c.attempt)
)
_ITEMS = (
    select(tables.item)
    .where(
        tables.item.c.project_id == bindparam("project_id"),
        tables.item.c.source == bindparam("source"),
        func.substr(tables.item.c.id, 1, bindparam("length")) == bindparam("prefix"),
    )
    .order_by(tables.item.c.place)
)
_AUTHORS = VariantInfo("exercise")


@dataclass(frozen=True)
class Step:
    """What an annotator has to do before work: an item to judge, or nothing; ``blocked``: work may not begin."""

    item: ItemRow | None = None
    kind: TaskKind = "work"
    message: str = ""
    blocked: bool = False


def needs_warning(project: ProjectRow, place: DeskPlaceRow | None) -> bool:
    """Whether the content warning of a safety project is still to be read."""
    return project.dimension == "safety" and (place is None or (place.warned_until or "") < now())


def gold_share(project: ProjectRow) -> float:
    """Share of items with a known answer."""
    return ProjectSettings.model_validate_json(project.config_json).gold_share


def is_prepared(
    connection: Connection, settings: QualificationSettings, annotator_id: str, project: ProjectRow
) -> bool:
    """Whether judgments of this annotator count in this project.

    Args:
        connection: of a read.
        settings: of the test.
        annotator_id: who.
        project: where.
    """
    return not settings.required or any(attempt.passed for attempt in _attempts(connection, annotator_id, project))


def passed(connection: Connection) -> set[tuple[str, str]]:
    """(annotator, project) of all who have passed a project's test, or need not take it."""
    both = (tables.qualification.c.annotator_id, tables.qualification.c.project_id)
    rows = connection.execute(select(*both).where(tables.qualification.c.passed.is_(True)))
    return {(row.annotator_id, row.project_id) for row in rows}


def is_waived(connection: Connection, annotator_id: str, project: ProjectRow) -> bool:
    """Whether somebody may work without having passed the test."""
    return any(attempt.passed and attempt.waived_by for attempt in _attempts(connection, annotator_id, project))


def waive(connection: Connection, annotator_id: str, project: ProjectRow, by: str) -> None:
    """Let somebody work without the test.

    Args:
        connection: of a write.
        annotator_id: who.
        project: where.
        by: on whose word.
    """
    attempts = _attempts(connection, annotator_id, project)
    _add_attempt(connection, annotator_id, project, len(attempts) + 1, 0, passed=True, waived_by=by)


def reset(connection: Connection, annotator_id: str, project: ProjectRow) -> None:
    """Give somebody who has failed the test their tries again; what they did stays on record."""
    same = (tables.qualification.c.annotator_id == annotator_id, tables.qualification.c.project_id == project.id)
    failed = (*same, tables.qualification.c.passed.is_(False))
    connection.execute(update(tables.qualification).where(*failed).values(waived_by="reset"))


def next_step(connection: Connection, settings: QualificationSettings, annotator_id: str, project: ProjectRow) -> Step:
    """The next training example or test question; an empty step once work may begin.

    Args:
        connection: of a write.
        settings: of the test.
        annotator_id: who.
        project: where.
    """
    waiting = _undone(connection, annotator_id, project, "training")
    if waiting:
        return Step(waiting[0], "training")
    if is_prepared(connection, settings, annotator_id, project):
        return Step()
    if not _items(connection, annotator_id, project, "training"):
        return Step(begin_training(connection, annotator_id, project)[0], "training")
    return _test_step(connection, settings, annotator_id, project)


def _test_step(connection: Connection, settings: QualificationSettings, annotator_id: str, project: ProjectRow) -> Step:
    attempts = _attempts(connection, annotator_id, project)
    went_on = bool(attempts) and attempts[-1].passed is None
    if went_on:
        waiting = _undone(connection, annotator_id, project, "qualification")
        if waiting:
            return Step(waiting[0], "qualification")
        result = _finish_attempt(connection, settings, annotator_id, project, attempts[-1])
        if result.passed:
            return Step(message=texts.TEST_PASSED.format(agreed=_agreed(result)))
        attempts = _attempts(connection, annotator_id, project)
    message, may_go_on = before_work(connection, settings, annotator_id, project)
    if went_on or not may_go_on:  # let them read how it went before the next try begins
        return Step(message=message, blocked=True)
    return Step(_begin_attempt(connection, settings, annotator_id, project, len(attempts) + 1), "qualification")


def before_work(
    connection: Connection, settings: QualificationSettings, annotator_id: str, project: ProjectRow
) -> tuple[str, bool]:
    """What to tell somebody who may not work yet, and whether they can go on by themselves.

    Args:
        connection: of a read.
        settings: of the test.
        annotator_id: who.
        project: where.
    """
    attempts = _attempts(connection, annotator_id, project)
    last = attempts[-1] if attempts else None
    if last is None:
        return texts.TEST_BEGINS, True
    if last.passed is None:
        return texts.TEST_GOES_ON, True
    if sum(attempt.waived_by is None for attempt in attempts) >= settings.attempts:
        return texts.TEST_FAILED.format(agreed=_agreed(last)), False
    return texts.TEST_ONCE_MORE.format(agreed=_agreed(last)), True


def _agreed(result: QualificationRow | Score) -> str:
    return texts.TEST_AGREED.format(n_agreed=result.n_agreed, n_questions=result.n_questions)


def begin_training(connection: Connection, annotator_id: str, project: ProjectRow) -> list[ItemRow]:
    """Put the training examples before an annotator, once more if they have seen them; returns the items."""
    undone = _undone(connection, annotator_id, project, "training")
    if undone:
        return undone
    exercises = read_exercises(project.dimension, "training")
    run = len(_items(connection, annotator_id, project, "training")) // len(exercises) + 1
    _add(connection, annotator_id, project, exercises, f"training/{annotator_id}/{run}")
    return _undone(connection, annotator_id, project, "training")


def _begin_attempt(
    connection: Connection, settings: QualificationSettings, annotator_id: str, project: ProjectRow, attempt: int
) -> ItemRow:
    known = read_exercises(project.dimension, "qualification")
    questions = questions_for(annotator_id, attempt, known, settings.questions)
    _add_attempt(connection, annotator_id, project, attempt, len(questions))
    _add(connection, annotator_id, project, questions, f"qualification/{annotator_id}/{attempt}")
    return _undone(connection, annotator_id, project, "qualification")[0]


def _finish_attempt(
    connection: Connection,
    settings: QualificationSettings,
    annotator_id: str,
    project: ProjectRow,
    attempt: QualificationRow,
) -> Score:
    result = _score(connection, settings, annotator_id, project, attempt.attempt)
    values = {"n_agreed": result.n_agreed, "passed": result.passed, "finished_at": now()}
    connection.execute(update(tables.qualification).where(tables.qualification.c.id == attempt.id).values(**values))
    return result


def _add_attempt(
    connection: Connection,
    annotator_id: str,
    project: ProjectRow,
    attempt: int,
    n_questions: int,
    *,
    passed: bool | None = None,
    waived_by: str | None = None,
) -> None:
    connection.execute(
        insert(tables.qualification).values(
            id=new_id("qlf"),
            annotator_id=annotator_id,
            project_id=project.id,
            attempt=attempt,
            n_questions=n_questions,
            passed=passed,
            waived_by=waived_by,
            created_at=now(),
        )
    )


def _attempts(connection: Connection, annotator_id: str, project: ProjectRow) -> list[QualificationRow]:
    whose = {"annotator_id": annotator_id, "project_id": project.id}
    return [QualificationRow._make(row) for row in connection.execute(_ATTEMPTS, whose)]


# -- exercises as items -----------------------------------------------------------------------------------------------


def _add(
    connection: Connection, annotator_id: str, project: ProjectRow, exercises: Sequence[Exercise], prefix: str
) -> None:
    items = [
        NewItem(
            id=f"{prefix}/{exercise.id}",
            messages=exercise.messages,
            answers={slot: _answer(exercise, slot) for slot in SLOTS},
            source="training" if prefix.startswith("training") else "qualification",
            expected=exercise.model_dump(mode="json"),
        )
        for exercise in exercises
    ]
    add_items(connection, project, items, overlap=1)


def _answer(exercise: Exercise, slot: Slot) -> NewAnswer:
    text = exercise.answers.a if slot == "a" else exercise.answers.b
    return NewAnswer(text, _AUTHORS, finish_reason="length" if slot in exercise.cut_off else "stop")


def exercise_of(expected_json: str | None) -> Exercise:
    """The exercise that an item of training or test was made from."""
    assert expected_json is not None
    return Exercise.model_validate(json.loads(expected_json))


def place_in(connection: Connection, annotator_id: str, project: ProjectRow, item: ItemRow) -> str:
    """``"3 of 10"``: where an item stands in its run of training or attempt at the test.

    Args:
        connection: of a read.
        annotator_id: who.
        project: where.
        item: a training example or a test question.
    """
    prefix = item.id.rpartition("/")[0] + "/"
    own = _items(connection, annotator_id, project, item.source)
    run = [each.id for each in own if each.id.startswith(prefix)]
    return texts.PLACE.format(place=run.index(item.id) + 1, count=len(run))


def _items(connection: Connection, annotator_id: str, project: ProjectRow, source: Source) -> list[ItemRow]:
    prefix = f"{project.name}/{source}/{annotator_id}/"
    own = {"project_id": project.id, "source": source, "prefix": prefix, "length": len(prefix)}
    return [ItemRow._make(row) for row in connection.execute(_ITEMS, own)]


def _undone(connection: Connection, annotator_id: str, project: ProjectRow, source: Source) -> list[ItemRow]:
    own = _items(connection, annotator_id, project, source)
    if not own:
        return []
    done = (
        select(tables.conversation.c.item_id)
        .join(tables.comparison, tables.comparison.c.conversation_id == tables.conversation.c.id)
        .where(tables.conversation.c.item_id.in_([item.id for item in own]), tables.comparison.c.state == "judged")
    )
    judged = set(connection.execute(done).scalars())
    return [item for item in own if item.id not in judged]


def _score(
    connection: Connection, settings: QualificationSettings, annotator_id: str, project: ProjectRow, attempt: int
) -> Score:
    prefix = f"{project.name}/qualification/{annotator_id}/{attempt}/"
    rows = connection.execute(
        select(tables.comparison.c.id, tables.item.c.expected_json)
        .join(tables.conversation, tables.conversation.c.id == tables.comparison.c.conversation_id)
        .join(tables.item, tables.item.c.id == tables.conversation.c.item_id)
        .where(tables.item.c.id.startswith(prefix, autoescape=True))
    ).all()
    judged = [(exercise_of(expected_json), current(connection, comparison_id)) for comparison_id, expected_json in rows]
    replies = [
        Reply(exercise, judgment.chosen_slot, judgment.grade, judgment.safety)
        for exercise, judgment in judged
        if judgment is not None
    ]
    return score(replies, settings.min_agreement)


# -- projects ---------------------------------------------------------------------------------------------------------


def keep_projects(store: Store, settings: AppSettings, *, change: bool = True) -> None:
    """Make the projects of the settings, and check that their tests can be held.

    Args:
        store: where.
        settings: of the app.
        change: whether those that are there are brought up to date, which is for whoever serves them.

    Raises:
        UserError: a project was worked on as another one, guidelines cannot be read, or questions are too few.
    """
    with store.write() as connection:
        for project in settings.projects:
            keep_project(connection, project, change=change)
            if settings.qualification.required:
                questions_for(
                    "", 1, read_exercises(project.dimension, "qualification"), settings.qualification.questions
                )
