"""What an annotator sees and may do: pure data and pure logic, with no store, no model and no page behind it.

The desk makes a ``View`` from the store; the page (``annotation_ui.web.gradio_app``) shows it. Nothing in a view tells
which variant wrote which answer: answers are *left* and *right* here, and only the store knows the slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignment.data.records import Dimension, Message, SafetyBin
from annotation_ui.vocabulary import AccountRole, Pane, Phase, TaskKind


@dataclass(frozen=True)
class Draft:
    """What the judging bar shows: empty for a new comparison, the earlier answers for one that is edited."""

    option: int | None = None
    safety: SafetyBin | None = None
    note: str = ""
    flagged: bool = False


@dataclass(frozen=True)
class PastJudgment:
    """A line of the annotator's own history.

    ``can_edit``: it is a judgment, and the conversation has not moved past it. ``can_withdraw``: it is a judgment.
    """

    comparison_id: str
    judged_at: str
    prompt: str
    said: str
    can_edit: bool
    can_withdraw: bool


@dataclass(frozen=True)
class Progress:
    """The annotator's own: judgments today and in all in this project, and items that the queue still has for them."""

    today: int
    total: int
    left_in_queue: int


@dataclass(frozen=True)
class ProjectChoice:
    """A project that the annotator can work on."""

    name: str
    title: str
    dimension: Dimension


@dataclass(frozen=True)
class View:
    """Everything that the page shows to one annotator in one project.

    Attributes:
        project: name of the project.
        dimension: what answers are compared by.
        projects: all projects to choose from.
        phase: see ``Phase``.
        kind: paid work, a training example, or a question of the qualification test.
        place: ``"3 of 10"`` in training and test.
        past: the dialogue before the present prompt: turns by user and assistant in turn, after a system turn if any.
        prompt: the user's turn that both answers reply to; empty where there is none.
        left, right: the answers, where there are some.
        comparison_id: names the comparison on the desk.
        submission_id: to be sent back with the judgment, so that sending twice saves once.
        asks_safety: whether the safety bin has to be answered.
        may_prompt: whether a prompt can be written now (a first one, or the next turn of the conversation).
        may_fetch: whether the queue can be asked for the next item.
        undoable: the comparison whose judgment or skip can be taken back, if there is one.
        editing: whether the comparison on the desk was judged before.
        draft: what the judging bar starts with.
        turn: of the conversation, from 1.
        max_turns: of a conversation in this project.
        explanation: Markdown, in phase ``explained``.
        message: one line for the status bar; ``level`` is how it is meant.
        history: the latest first.
        guidelines: Markdown.
        guidelines_sha256: names this text of them.
        max_prompt_chars: longest prompt that can be sent.
        user: name of who is signed in.
        role: what else they may do.
    """

    project: str
    dimension: Dimension
    projects: tuple[ProjectChoice, ...]
    phase: Phase
    progress: Progress
    guidelines: str
    guidelines_sha256: str
    max_prompt_chars: int
    user: str
    role: AccountRole
    kind: TaskKind = "work"
    place: str = ""
    past: tuple[Message, ...] = ()
    prompt: str = ""
    left: Pane | None = None
    right: Pane | None = None
    comparison_id: str | None = None
    submission_id: str | None = None
    asks_safety: bool = False
    may_prompt: bool = False
    may_fetch: bool = False
    undoable: str | None = None
    editing: bool = False
    draft: Draft = Draft()
    turn: int = 1
    max_turns: int = 1
    explanation: str = ""
    message: str = ""
    level: Literal["info", "saved", "error"] = "info"
    history: tuple[PastJudgment, ...] = ()
