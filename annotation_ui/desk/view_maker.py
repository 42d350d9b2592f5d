"""From the store to what the page shows. Only sides leave this module, never slots or variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, bindparam, select

from annotation_ui import texts
from annotation_ui.answers.generation import Generator
from annotation_ui.app_settings import AppSettings
from annotation_ui.desk import training_and_test
from annotation_ui.desk.exercises import feedback
from annotation_ui.desk.transaction import chosen_project
from annotation_ui.desk.view import Draft, PastJudgment, Progress, ProjectChoice, View
from annotation_ui.store import assignments, conversations_and_places, judgments, pairs, projects, tables
from annotation_ui.store.accounts import Account, find_by_id
from annotation_ui.store.items import item_by_id
from annotation_ui.store.rows import ComparisonRow, ItemRow, PastRow, ProjectRow
from annotation_ui.vocabulary import FLAG, Pane, Slot, option_of, side_of, slot_on

HISTORY = 8
"""Judgments that the page lists."""
_EXCERPT_CHARS = 80
_GUIDELINES = select(tables.guideline.c.markdown).where(tables.guideline.c.sha256 == bindparam("wanted"))


def make_view(
    connection: Connection,
    settings: AppSettings,
    generator: Generator | None,
    annotator_id: str,
    project_name: str | None,
) -> View:
    """What is on an annotator's desk in a project (default: where they were last).

    Args:
        connection: of a read, or of the write that asks.
        settings: of the app.
        generator: has the variants answer; ``None`` where only pairs sampled before are served.
        annotator_id: whose desk.
        project_name: default: where they were last.

    Raises:
        Refused: there is no such project, or the account is closed.
    """
    account = find_by_id(connection, annotator_id)
    known = projects.all_projects(connection)
    project = chosen_project(connection, known, annotator_id, project_name)
    place = conversations_and_places.desk_place(connection, annotator_id, project.id)
    view = _frame(connection, settings, account, known, project, live=generator is not None)
    # The content warning comes before all else; what is edited, before what is on the desk otherwise.
    if training_and_test.needs_warning(project, place):
        return replace(view, phase="warning")
    if place is not None and place.editing is not None:
        comparison = conversations_and_places.own_comparison(connection, annotator_id, place.editing)
        return replace(_with_comparison(connection, view, project, comparison, generator), phase="open", editing=True)
    if place is None or place.conversation_id is None:
        return _idle(connection, settings, view, project, generator, annotator_id)
    comparison = conversations_and_places.last_comparison(connection, place.conversation_id)
    return _with_comparison(connection, view, project, comparison, generator)


def _frame(
    connection: Connection,
    settings: AppSettings,
    account: Account,
    known: Sequence[ProjectRow],
    project: ProjectRow,
    *,
    live: bool,
) -> View:
    """What every view of a project has."""
    # Look up what the person has judged so far.
    today, total = judgments.count_own(connection, account.id, project.id)
    history = judgments.recent(connection, account.id, project.id, HISTORY)
    # Show an idle desk; the caller changes the phase and adds what is open.
    return View(
        project=project.name,
        dimension=project.dimension,
        projects=tuple(ProjectChoice(other.name, other.title, other.dimension) for other in known),
        phase="idle",
        progress=Progress(
            today=today,
            total=total,
            left_in_queue=assignments.count_left(connection, account.id, project.id, live=live),
        ),
        guidelines=connection.execute(_GUIDELINES, {"wanted": project.guidelines_sha256}).scalar_one(),
        guidelines_sha256=project.guidelines_sha256,
        max_prompt_chars=settings.max_prompt_chars,
        user=account.username,
        role=account.role,
        asks_safety=project.ask_safety,
        max_turns=project.max_turns if live else 1,
        undoable=next((past.id for past in history if past.kind != "retraction"), None),
        history=tuple(_past(past) for past in history),
    )


def _past(past: PastRow) -> PastJudgment:
    prompt = pairs.load_messages(past.prompt_json)[-1].content
    return PastJudgment(
        comparison_id=past.id,
        judged_at=past.judged_at,
        prompt=prompt if len(prompt) <= _EXCERPT_CHARS else prompt[: _EXCERPT_CHARS - 1] + "…",
        said=_in_words(past),
        can_edit=bool(past.is_last) and past.kind == "judgment",
        can_withdraw=past.kind == "judgment",
    )


def _in_words(past: PastRow) -> str:
    if past.skip_reason is not None:
        return texts.SKIPPED_FOR.format(reason=texts.SKIP_REASONS[past.skip_reason].lower())
    if past.chosen_slot is None or past.grade is None:
        return texts.WITHDRAWN_BEFORE
    name = "A" if side_of(past.chosen_slot, past.left_slot) == "left" else "B"
    return f"{name} {past.grade.replace('_', ' ')}"


def _idle(
    connection: Connection,
    settings: AppSettings,
    view: View,
    project: ProjectRow,
    generator: Generator | None,
    annotator_id: str,
) -> View:
    if not training_and_test.is_prepared(connection, settings.qualification, annotator_id, project):
        message, may_fetch = training_and_test.before_work(connection, settings.qualification, annotator_id, project)
        return replace(view, may_fetch=may_fetch, message=message)
    can_write = project.mode != "queue" and generator is not None
    has_more = project.mode != "free" and view.progress.left_in_queue > 0
    if not can_write and not has_more:
        return replace(view, phase="empty", may_fetch=project.mode != "free", message=texts.NOTHING_MORE)
    return replace(view, may_prompt=can_write, may_fetch=project.mode != "free")


def _with_comparison(
    connection: Connection, view: View, project: ProjectRow, comparison: ComparisonRow, generator: Generator | None
) -> View:
    # What stands above the answers.
    pair = pairs.pair_by_id(connection, comparison.pair_id)
    dialogue = pairs.load_messages(pair.prompt_json)
    view = replace(
        view,
        kind=comparison.kind,
        past=dialogue[:-1],
        prompt=dialogue[-1].content,
        comparison_id=comparison.id,
        turn=comparison.turn,
        place=_place_in_run(connection, project, comparison),
        submission_id=judgments.submission_id(connection, comparison.id),
        max_turns=view.max_turns if comparison.kind == "work" else 1,
    )
    # The answers: failed, being written, or there to be judged.
    if pair.state == "failed":
        return replace(view, phase="failed", message=pair.error or "", level="error")
    if pair.state == "generating":
        panes = None if generator is None else generator.peek(pair.id)
        if panes is None:
            return replace(view, phase="generating")
        return _with_panes(replace(view, phase="generating"), dict(zip(("a", "b"), panes, strict=True)), comparison)
    answers = pairs.answers_of(connection, pair.id)
    panes_by_slot = {
        slot: Pane(answer.text, done=True, cut_off=answer.finish_reason == "length") for slot, answer in answers.items()
    }
    view = _with_panes(view, panes_by_slot, comparison)
    return _judged(connection, view, comparison, generator)


def _with_panes(view: View, panes: dict[Slot, Pane], comparison: ComparisonRow) -> View:
    return replace(
        view, left=panes[slot_on("left", comparison.left_slot)], right=panes[slot_on("right", comparison.left_slot)]
    )


def _judged(connection: Connection, view: View, comparison: ComparisonRow, generator: Generator | None) -> View:
    judgment = judgments.current(connection, comparison.id)
    if judgment is None:
        return replace(view, phase="open")
    slot, grade = judgment.preference
    draft = Draft(
        option=option_of(side_of(slot, comparison.left_slot), grade),
        safety=judgment.safety,
        note=judgment.note or "",
        flagged=FLAG in judgment.flags_json,
    )
    view = replace(view, draft=draft)
    if comparison.kind == "training":
        exercise = training_and_test.exercise_of(_item_of(connection, comparison).expected_json)
        explanation = feedback(exercise, slot, grade, judgment.safety)
        return replace(view, phase="explained", explanation=explanation, may_fetch=True)
    may_go_on = generator is not None and comparison.turn < view.max_turns
    return replace(view, phase="judged", may_prompt=may_go_on, may_fetch=True)


def _place_in_run(connection: Connection, project: ProjectRow, comparison: ComparisonRow) -> str:
    if comparison.kind == "work":
        return ""
    return training_and_test.place_in(connection, comparison.annotator_id, project, _item_of(connection, comparison))


def _item_of(connection: Connection, comparison: ComparisonRow) -> ItemRow:
    return item_by_id(
        connection, conversations_and_places.conversation_by_id(connection, comparison.conversation_id).item_id
    )
