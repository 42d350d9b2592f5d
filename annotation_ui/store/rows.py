"""Rows of the tables as typed tuples: what the reading functions of the store return.

Each has the columns of its table in ``annotation_ui.store.tables``, in the order of the table, so that
``ItemRow._make(row)`` makes it from a ``select`` of that table. A query that joins tables has a row type of its own,
beside the query, or here where other modules name it (``PastRow``).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from alignment.data.records import Dimension, Grade, Part, SafetyBin
from annotation_ui.vocabulary import AccountRole, SkipReason, Slot, TaskKind

Source = Literal["queue", "annotator", "gold", "training", "qualification"]
"""Where an item comes from."""
FinishReason = Literal["stop", "length"]


class AccountRow(NamedTuple):
    """Somebody who can sign in, of the table ``annotator``; ``id`` is the pseudonym that exports carry."""

    id: str
    username: str
    role: AccountRole
    password_hash: str
    active: bool
    withdrawn_at: str | None
    created_at: str


class LoginFailureRow(NamedTuple):
    """Wrong passwords that were given for a name; they count until ``locked_until``."""

    username: str
    failures: int
    locked_until: str | None


class ProjectRow(NamedTuple):
    """A collection with guidelines of its own; ``config_json`` holds all its settings."""

    id: str
    name: str
    title: str
    dimension: Dimension
    batch: str
    mode: Literal["queue", "free", "both"]
    overlap: int
    max_turns: int
    ask_safety: bool
    guidelines_sha256: str
    config_json: str
    created_at: str


class VariantRow(NamedTuple):
    """Who wrote an answer."""

    id: str
    name: str
    checkpoint: str | None
    weights_sha256: str | None
    chat_template_sha256: str | None
    created_at: str


class ItemRow(NamedTuple):
    """A prompt that waits for judgments."""

    id: str
    project_id: str
    source: Source
    part: Part
    batch: str
    kind: str | None
    messages_json: str
    prompt_sha256: str
    priority: int
    place: int
    overlap: int
    remaining: int
    expected_json: str | None
    created_at: str


class AssignmentRow(NamedTuple):
    """An item that was given to an annotator."""

    id: str
    item_id: str
    annotator_id: str
    state: Literal["leased", "done", "skipped", "returned", "expired"]
    lease_expires_at: str
    created_at: str


class ConversationRow(NamedTuple):
    """An annotator's conversation on an item, of one turn or more."""

    id: str
    project_id: str
    annotator_id: str
    item_id: str
    kind: TaskKind
    state: Literal["active", "finished", "abandoned"]
    created_at: str


class DeskPlaceRow(NamedTuple):
    """Where an annotator is in a project; ``editing`` is the id of a comparison that was judged before."""

    annotator_id: str
    project_id: str
    conversation_id: str | None
    editing: str | None
    warned_until: str | None
    at: str


class PairRow(NamedTuple):
    """A prompt with its whole history, and how its two answers stand."""

    id: str
    project_id: str
    item_id: str
    prompt_json: str
    prompt_sha256: str
    seed: int | None
    state: Literal["generating", "complete", "failed"]
    error: str | None
    created_at: str
    completed_at: str | None


class AnswerRow(NamedTuple):
    """One of the two answers of a pair."""

    pair_id: str
    slot: Slot
    variant_id: str
    text: str
    sampling_json: str
    seed: int | None
    n_tokens: int | None
    finish_reason: FinishReason | None
    generation_ms: int | None


class ComparisonRow(NamedTuple):
    """One annotator's showing of a pair, with the slot that stands on the left."""

    id: str
    conversation_id: str
    pair_id: str
    annotator_id: str
    project_id: str
    kind: TaskKind
    turn: int
    left_slot: Slot
    order_seed: int
    state: Literal["open", "judged", "skipped"]
    first_shown_at: str | None
    judged_at: str | None
    created_at: str


class JudgmentRow(NamedTuple):
    """What an annotator said of a comparison, or that it holds no longer; only a judgment has a slot and a grade."""

    id: int
    submission_id: str
    comparison_id: str
    annotator_id: str
    kind: Literal["judgment", "skip", "retraction"]
    supersedes: int | None
    chosen_slot: Slot | None
    grade: Grade | None
    safety: SafetyBin | None
    skip_reason: SkipReason | None
    flags_json: str
    note: str | None
    active_ms: int | None
    input_method: Literal["keyboard", "mouse"] | None
    app_version: str
    guidelines_sha256: str
    created_at: str

    @property
    def preference(self) -> tuple[Slot, Grade]:
        """The slot that a judgment chose, and how much better it is; a skip or a retraction has none."""
        assert self.chosen_slot is not None and self.grade is not None, self.kind
        return self.chosen_slot, self.grade


class QualificationRow(NamedTuple):
    """An attempt at a project's test; ``passed`` is ``None`` while it goes on."""

    id: str
    annotator_id: str
    project_id: str
    attempt: int
    n_questions: int
    n_agreed: int | None
    passed: bool | None
    waived_by: str | None
    created_at: str
    finished_at: str | None


class PastRow(NamedTuple):
    """What an annotator said last of one of their comparisons.

    ``id`` is the comparison's. ``is_last``: its conversation has not gone on from it. What ``kind`` it is decides which
    columns are there: see ``JudgmentRow``.
    """

    id: str
    left_slot: Slot
    judged_at: str
    is_last: bool
    kind: Literal["judgment", "skip", "retraction"]
    chosen_slot: Slot | None
    grade: Grade | None
    skip_reason: SkipReason | None
    prompt_json: str
