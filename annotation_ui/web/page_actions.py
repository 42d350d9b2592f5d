"""The actions of the annotation page: what the desk does with each form, and what goes back to the browser."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import anyio.to_thread
import gradio as gr
from pydantic import ValidationError

from annotation_ui import texts
from annotation_ui.desk.desk import Desk
from annotation_ui.desk.view import View
from annotation_ui.vocabulary import Pane, Refused, Side
from annotation_ui.web import page_templates
from annotation_ui.web.page_forms import (
    ComparisonForm,
    Form,
    JudgmentForm,
    ProjectForm,
    PromptForm,
    Sent,
    SkipForm,
    WatchForm,
)

_log = logging.getLogger(__name__)
POLL_SECONDS = 0.08
POLL_SHARE = 4.0
"""A busy server is asked less often: between two looks at the answers lies at least so many times what one took."""
ACTIONS_AT_ONCE = 2
"""While one waits for the disk, another can be worked at. More would only take the processor from each other."""
WATCH_SECONDS = 30.0
"""How long one ``watch`` follows the answers; the script then starts another."""


# -- what goes to the browser -----------------------------------------------------------------------------------------


def sent_view(view: View, has: dict[str, str], *, whole: bool = False) -> Sent:
    """The parts of the page for a view, without those that the page has; ``base`` says which that was."""
    keys = page_templates.part_keys(view)
    message = {"message": view.message, "level": view.level}
    state = {"view": page_templates.page_state(view), **message, "has": keys, "base": has}
    new = {name for name, part_key in keys.items() if not part_key or has.get(name) != part_key}
    desk = (
        _stamped(state),
        page_templates.scene(view) if "scene" in new else gr.skip(),
        _drawn_anew(page_templates.answer_pane("left", view.left)) if "answers" in new else gr.skip(),
        _drawn_anew(page_templates.answer_pane("right", view.right)) if "answers" in new else gr.skip(),
        page_templates.history(view.history),
    )
    return (*desk, page_templates.top(view), page_templates.guidelines(view)) if whole else desk


def sent_message(message: str, *, whole: bool = False) -> Sent:
    """Only a message: what is on the page stays."""
    return (_stamped({"message": message, "level": "error"}), *[gr.skip()] * (6 if whole else 4))


def _sent_answers(comparison_id: str, panes: tuple[Pane, Pane]) -> dict[str, Any]:
    sides: tuple[Side, Side] = ("left", "right")
    answers = [page_templates.answer_pane(side, pane) for side, pane in zip(sides, panes, strict=True)]
    return _stamped({"follows": comparison_id, "answers": answers})


def _stamped(state: dict[str, Any]) -> dict[str, Any]:
    """Make a state differ from the one before: the script hears of changes only."""
    return {**state, "stamp": time.time_ns()}


def _drawn_anew(html: str) -> str:
    """Make a piece of the page differ from the one before: Gradio leaves equal ones alone, but the script writes in."""
    return f"{html}<!--{time.time_ns()}-->"


def trouble(error: Exception) -> str:
    """What to tell the annotator about an error; one that nobody expected is logged, and its text stays here."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, ValidationError):
        return texts.REFUSED_FORM
    _log.error("an action on the annotation page failed", exc_info=error)
    return texts.UNEXPECTED


# -- handlers ---------------------------------------------------------------------------------------------------------


def action_handler(
    desk: Desk, name: str, action: Action, at_once: anyio.CapacityLimiter
) -> Callable[..., Awaitable[Sent]]:
    """The handler of one action, as Gradio calls it.

    Args:
        desk: what annotators do.
        name: of the action; goes back with the state.
        action: what has to come, and what is done.
        at_once: how many actions are worked at together; others wait.
    """

    # on the loop: wait for a thread, and say which action was answered
    async def handle(parcel: Any, request: gr.Request) -> Sent:
        state, *parts = await anyio.to_thread.run_sync(answer, parcel, request.username or "", limiter=at_once)
        return ({**state, "action": name}, *parts)

    # in the thread: read the form, do it, and say what there is to see now
    def answer(parcel: Any, who: str) -> Sent:
        try:
            form = action.form.model_validate(parcel)
            try:
                view = action.do(desk, who, form)
            except Refused as refused:
                if not action.looks_again:
                    raise
                view = replace(desk.view(who, form.project), message=str(refused), level="error")
            return sent_view(view, form.has, whole=action.whole)
        except Exception as error:
            return sent_message(trouble(error), whole=action.whole)

    return handle


def answer_watcher(desk: Desk) -> Callable[[Any, gr.Request], AsyncIterator[dict[str, Any]]]:
    """The handler of ``watch``, which follows two answers while they are written."""

    async def watch(parcel: Any, request: gr.Request) -> AsyncIterator[dict[str, Any]]:
        """Send both answers as they grow, and say when they have ended or were followed for long enough."""
        try:
            form = WatchForm.model_validate(parcel)
            who, until, sent = request.username or "", time.monotonic() + WATCH_SECONDS, None
            while time.monotonic() < until:
                asked = time.monotonic()
                panes = await anyio.to_thread.run_sync(desk.being_written, who, form.comparison_id)
                if panes is None:
                    break
                if panes != sent:
                    sent = panes
                    yield _sent_answers(form.comparison_id, panes)
                await anyio.sleep(max(POLL_SECONDS, POLL_SHARE * (time.monotonic() - asked)))
            yield _stamped({"follows": form.comparison_id, "answers": None})
        except Exception as error:
            yield _stamped({"message": trouble(error)})

    return watch


@dataclass(frozen=True)
class Action:
    """Something that an annotator can do: what the browser has to send, and what the desk does with it.

    Attributes:
        form: what has to come.
        do: what is done.
        whole: whether the top and the guidelines may change, too.
        looks_again: whether a refusal comes with what is on the desk: the page may have been wrong about it. Not after
            a judgment, which stays on the page until it is saved.
    """

    form: type[Form]
    do: Callable[[Desk, str, Any], View]
    whole: bool = False
    looks_again: bool = True


ACTIONS: dict[str, Action] = {
    "view": Action(Form, lambda desk, who, form: desk.view(who, form.project), whole=True),
    "accept": Action(ProjectForm, lambda desk, who, form: desk.accept_warning(who, form.project)),
    "leave": Action(ProjectForm, lambda desk, who, form: desk.leave(who, form.project)),
    "train": Action(ProjectForm, lambda desk, who, form: desk.train(who, form.project)),
    "fetch": Action(ProjectForm, lambda desk, who, form: desk.fetch(who, form.project)),
    "ask": Action(PromptForm, lambda desk, who, form: desk.ask(who, form.project, form.text, form.comparison_id)),
    "retry": Action(ProjectForm, lambda desk, who, form: desk.retry(who, form.project)),
    "submit": Action(JudgmentForm, lambda desk, who, form: desk.submit(who, form.submission()), looks_again=False),
    "skip": Action(
        SkipForm,
        lambda desk, who, form: desk.skip(
            who, form.comparison_id, form.submission_id, form.reason, form.note, form.active_ms
        ),
    ),
    "undo": Action(ComparisonForm, lambda desk, who, form: desk.undo(who, form.comparison_id)),
    "edit": Action(ComparisonForm, lambda desk, who, form: desk.edit(who, form.comparison_id)),
    "retract": Action(ComparisonForm, lambda desk, who, form: desk.retract(who, form.comparison_id)),
}
