"""What the browser sends with each thing that annotators can do, checked."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import BaseModel, StrictInt

from alignment.data.records import SafetyBin
from annotation_ui.store.judgment_values import Submission

Sent = tuple[Any, ...]
"""A value for each of ``PageComponents.desk``, or of ``PageComponents.everything``."""


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
