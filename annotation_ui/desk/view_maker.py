"""From the store to what the page shows. Only sides leave this module, never slots or variants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from sqlalchemy import Connection, bindparam, select

from annotation_ui.answers.generation import Generator
from annotation_ui.app_settings import AppSettings
from annotation_ui.desk import preparation
from annotation_ui.desk.exercises import feedback
from annotation_ui.desk.view import Draft, Pane, PastJudgment, Progress, ProjectChoice, View
from annotation_ui.store import assignments, conversations, judgments, pairs, projects
from annotation_ui.store.accounts import Account, find_by_id
from annotation_ui.store.tables import guideline, item
from annotation_ui.vocabulary import FLAG, NOTHING, SKIP_REASONS, Kind, Refused, Slot, option_of, side_of, slot_on

HISTORY = 8
"""Judgments that the page lists."""
_EXCERPT_CHARS = 80
_GUIDELINES = select(guideline.c.markdown).where(guideline.c.sha256 == bindparam("wanted"))


def make_view(
    connection: Connection,
    settings: AppSettings,
    generator: Generator | None,
    annotator_id: str,
    project_name: str | None,
) -> View:
    """What is on an annotator's desk in a project (default: where they were last).

    Raises:
        Refused: there is no such project, or the account is closed.
    """
    account = find_by_id(connection, annotator_id)
    rows = projects.all_projects(connection)
    row = _chosen_project(connection, rows, annotator_id, project_name)
    place = conversations.place_of(connection, annotator_id, row.id)
    view = _frame(connection, settings, account, rows, row, live=generator is not None)
    if preparation.needs_warning(row, place):
        return replace(view, phase="warning")
    if place is not None and place.editing is not None:
        shown = conversations.own_comparison(connection, annotator_id, place.editing)
        return replace(_with_comparison(connection, view, row, shown, generator), phase="open", editing=True)
    if place is None or place.conversation_id is None:
        return _idle(connection, settings, view, row, generator, annotator_id)
    shown = conversations.last_comparison(connection, place.conversation_id)
    return _with_comparison(connection, view, row, shown, generator)


def _chosen_project(connection: Connection, rows: Any, annotator_id: str, name: str | None) -> Any:
    if not rows:
        raise Refused("There is no project yet.")
    if name is None:
        last = conversations.last_project(connection, annotator_id)
        return next((row for row in rows if row.id == last), rows[0])
    chosen = next((row for row in rows if row.name == name), None)
    if chosen is None:
        raise Refused(projects.NO_PROJECT)
    return chosen


def _frame(connection: Connection, settings: AppSettings, account: Account, rows: Any, row: Any, *, live: bool) -> View:
    """What every view of a project has."""
    today, total = judgments.count_own(connection, account.id, row.id)
    history = judgments.recent(connection, account.id, row.id, HISTORY)
    return View(
        project=row.name,
        dimension=row.dimension,
        projects=tuple(ProjectChoice(other.name, other.title, other.dimension) for other in rows),
        phase="idle",
        progress=Progress(
            today=today,
            total=total,
            left_in_queue=assignments.count_left(connection, account.id, row, live=live),
        ),
        guidelines=connection.execute(_GUIDELINES, {"wanted": row.guidelines_sha256}).scalar_one(),
        guidelines_sha256=row.guidelines_sha256,
        max_prompt_chars=settings.max_prompt_chars,
        user=account.username,
        role=account.role,
        asks_safety=row.ask_safety,
        max_turns=row.max_turns if live else 1,
        undoable=next((said.id for said in history if said.kind != "retraction"), None),
        history=tuple(_past(said) for said in history),
    )


def _past(said: Any) -> PastJudgment:
    prompt = pairs.prompt_of(said)[-1].content
    return PastJudgment(
        comparison_id=said.id,
        judged_at=said.judged_at,
        prompt=prompt if len(prompt) <= _EXCERPT_CHARS else prompt[: _EXCERPT_CHARS - 1] + "…",
        said=_in_words(said),
        can_edit=bool(said.is_last) and said.kind == "judgment",
        can_withdraw=said.kind == "judgment",
    )


def _in_words(said: Any) -> str:
    if said.kind == "skip":
        return f"Skipped: {SKIP_REASONS[said.skip_reason].lower()}"
    if said.kind == "retraction":
        return "Withdrawn"
    name = "A" if side_of(said.chosen_slot, said.left_slot) == "left" else "B"
    return f"{name} {said.grade.replace('_', ' ')}"


def _idle(
    connection: Connection, settings: AppSettings, view: View, row: Any, generator: Generator | None, annotator_id: str
) -> View:
    if not preparation.is_prepared(connection, settings.qualification, annotator_id, row):
        message, may_fetch = preparation.before_work(connection, settings.qualification, annotator_id, row)
        return replace(view, may_fetch=may_fetch, message=message)
    can_write = row.mode != "queue" and generator is not None
    has_more = row.mode != "free" and view.progress.left_in_queue > 0
    if not can_write and not has_more:
        return replace(view, phase="empty", may_fetch=row.mode != "free", message=NOTHING)
    return replace(view, may_prompt=can_write, may_fetch=row.mode != "free")


def _with_comparison(connection: Connection, view: View, row: Any, shown: Any, generator: Generator | None) -> View:
    pair_row = pairs.pair_row(connection, shown.pair_id)
    dialogue = pairs.prompt_of(pair_row)
    view = replace(
        view,
        kind=cast(Kind, shown.kind),
        past=dialogue[:-1],
        prompt=dialogue[-1].content,
        comparison_id=shown.id,
        turn=shown.turn,
        place=_place(connection, view, row, shown),
        submission_id=judgments.submission_id(connection, shown.id),
        max_turns=view.max_turns if shown.kind == "work" else 1,
    )
    if pair_row.state == "failed":
        return replace(view, phase="failed", message=pair_row.error or "", level="error")
    if pair_row.state == "generating":
        panes = None if generator is None else generator.peek(pair_row.id)
        if panes is None:
            return replace(view, phase="generating")
        return _with_panes(replace(view, phase="generating"), dict(zip(("a", "b"), panes, strict=True)), shown)
    answers = pairs.answers_of(connection, pair_row.id)
    panes_by_slot = {
        slot: Pane(answer.text, done=True, cut_off=answer.finish_reason == "length") for slot, answer in answers.items()
    }
    view = _with_panes(view, panes_by_slot, shown)
    return _judged(connection, view, shown, generator)


def _with_panes(view: View, panes: dict[Slot, Pane], shown: Any) -> View:
    return replace(view, left=panes[slot_on("left", shown.left_slot)], right=panes[slot_on("right", shown.left_slot)])


def _judged(connection: Connection, view: View, shown: Any, generator: Generator | None) -> View:
    said = judgments.current(connection, shown.id)
    if said is None:
        return replace(view, phase="open")
    draft = Draft(
        option=option_of(side_of(said.chosen_slot, shown.left_slot), said.grade),
        safety=said.safety,
        note=said.note or "",
        flagged=FLAG in said.flags_json,
    )
    view = replace(view, draft=draft)
    if shown.kind == "training":
        exercise = preparation.exercise_of(_item_of(connection, shown).expected_json)
        explanation = feedback(exercise, said.chosen_slot, said.grade, said.safety)
        return replace(view, phase="explained", explanation=explanation, may_fetch=True)
    may_go_on = generator is not None and shown.turn < view.max_turns
    return replace(view, phase="judged", may_prompt=may_go_on, may_fetch=True)


def _place(connection: Connection, view: View, row: Any, shown: Any) -> str:
    if shown.kind == "work":
        return ""
    return preparation.place_in(connection, shown.annotator_id, row, _item_of(connection, shown))


def _item_of(connection: Connection, shown: Any) -> Any:
    item_id = conversations.conversation_row(connection, shown.conversation_id).item_id
    return connection.execute(select(item).where(item.c.id == item_id)).one()
