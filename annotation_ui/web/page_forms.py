"""What the browser sends for each thing that annotators can do, and what the desk does with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from pydantic import BaseModel, StrictInt

from alignment.data.records import SafetyBin
from annotation_ui.desk.desk import Desk
from annotation_ui.desk.view import View
from annotation_ui.vocabulary import Submission

Sent = tuple[Any, ...]
"""A value for each of ``PageComponents.desk``, or of ``PageComponents.everything``."""


# -- what comes from the browser --------------------------------------------------------------------------------------


class Form(BaseModel):
    """What comes with every action. ``has``: what the page already shows, so that it need not be sent again."""

    project: str | None = None
    has: dict[str, str] = {}


class ProjectForm(Form):
    """An action in a project."""

    project: str


class PromptForm(ProjectForm):
    """A prompt to be answered. ``comparison_id``: what it goes on from, where it does."""

    text: str
    comparison_id: str | None = None


class ComparisonForm(Form):
    """An action on a comparison."""

    comparison_id: str


class WatchForm(ProjectForm):
    """Follow the answers of a comparison while they are written."""

    comparison_id: str


class SkipForm(ComparisonForm):
    """A skip."""

    submission_id: str
    reason: str
    note: str = ""
    active_ms: Any = None


class JudgmentForm(ComparisonForm):
    """A judgment; the fields of ``Submission``. None is refused over the last three: the desk checks."""

    submission_id: str
    option: StrictInt
    safety: SafetyBin | None = None
    note: str = ""
    flagged: bool = False
    active_ms: Any = None
    input_method: Any = "mouse"
    guidelines_sha256: Any = None

    def submission(self) -> Submission:
        """As the desk takes it."""
        return Submission(**{field.name: getattr(self, field.name) for field in fields(Submission)})


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
