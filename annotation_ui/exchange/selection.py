"""Which judgments an export is made of: those in its scope, less what is left out and counted by reason.

Judgments are read as they stood when the last row was ``newest``, so that what is said while an export runs does not
get into half of it. What annotators have withdrawn, training and qualification tests are never selected.

A majority is found after everything else was left out but weak grades, which the outcome decides. The earliest judgment
of those in it stands for it, with the median of their grades (of two in the middle, the weaker); an answer is safe
where more of all its annotators found it safe than unsafe. ``reward.overlap=majority`` decides alike.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from sqlalchemy import Connection, Select, case, exists, func, select

from alignment.data.jsonl import explain
from alignment.data.records import GRADES, SAFETY_LABELS, Dimension, Grade, SafetyBin
from alignment.errors import UserError
from alignment.settings.section import Section
from annotation_ui.desk.preparation import passed
from annotation_ui.store.accounts import is_simulated
from annotation_ui.store.projects import project_named
from annotation_ui.store.tables import annotator, answer, comparison, item, judgment, pair, project
from annotation_ui.vocabulary import FLAG, SLOTS, UNSAFE_PREFERRED, Slot

OTHER_PART = {"train": "held out", "heldout": "for training"}
"""What is left out for the part that is asked for, by that."""
SIMULATED = "simulated"
WITHDRAWN = "annotator has withdrawn"
NOT_QUALIFIED = "annotator is not qualified"
GOLD = "gold item"
PREFERS_UNSAFE = "prefers the unsafe answer"
FOR_REVIEW = "marked for review"
EARLIER_WITHDRAWN = "earlier turn withdrawn"
EVEN_VOTES = "votes are even"
MERGED = "merged into another by majority"
WEAK = "weaker than the grade asked for"

EARLIER_FLAG = "earlier_turn_withdrawn"
"""Set on turns that go on from a judgment that holds no longer."""


def as_moment(text: str) -> str:
    """A day or moment as the store writes moments: ISO 8601, in UTC where no zone is given.

    Raises:
        UserError: it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"{text!r} is no day or moment; write 2026-03-31 or 2026-03-31T18:00") from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ExportFilter(Section):
    """Which judgments to write; the first six are the scope, outside which nothing is counted as left out."""

    projects: tuple[str, ...] = Field((), description="names; none: all")
    dimension: Dimension | None = Field(None, description="only projects about it")
    batches: tuple[str, ...] = Field((), description="names; none: all")
    annotators: tuple[str, ...] = Field((), description="pseudonymous ids; none: all")
    since: str | None = Field(None, description="day or moment (UTC) from which on judgments were made")
    until: str | None = Field(None, description="day or moment (UTC) before which they were made")
    part: Literal["train", "heldout", "all"] = Field("train", description="side of the train/held-out split")
    overlap: Literal["all", "majority"] = Field("all", description="of several judgments of a pair: all, or a majority")
    min_grade: Grade | None = Field(None, description="weakest grade to keep (Llama 3 keeps the two strongest)")
    margins: Literal["small", "large", "none"] = Field("small", description="margin by grade, for other trainers")
    require_qualified: bool = Field(False, description="only of those who passed the project's test or need not")
    with_simulated: bool = Field(False, description="also those of simulated annotators")
    with_gold: bool = Field(False, description="also judgments of items with a known answer")
    with_unsafe_preferred: bool = Field(False, description="also where an unsafe answer is preferred to a safe one")
    with_for_review: bool = Field(True, description="also what annotators marked for review")
    with_earlier_withdrawn: bool = Field(False, description="also turns that go on from a withdrawn judgment")
    with_notes: bool = Field(False, description="write the annotators' notes")

    @field_validator("since", "until")
    @classmethod
    def _is_moment(cls, value: str | None) -> str | None:
        return None if value is None else as_moment(value)


def filter_from(values: Mapping[str, object]) -> ExportFilter:
    """A filter from plain values, such as those of a command line; raise ``UserError`` that names every mistake."""
    try:
        return ExportFilter.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(explain(error)) from error


@dataclass(frozen=True)
class Outcome:
    """What is said of a pair, by one annotator or by most; ``id`` is the judgment that stands for it."""

    id: int
    slot: Slot
    grade: Grade
    safety: SafetyBin | None


@dataclass
class Selection:
    """The judgments that a filter lets through.

    Attributes:
        connection: of a read.
        filters: what is asked for.
        newest: the last row that counts.
        left_out: reason -> judgments, counted while ``judgments`` is gone through.
        withdrawn: ids of annotators in scope who have withdrawn, found likewise.
    """

    connection: Connection
    filters: ExportFilter
    newest: int
    left_out: Counter[str] = field(default_factory=Counter)
    withdrawn: set[str] = field(default_factory=set)

    @classmethod
    def begin(cls, connection: Connection, filters: ExportFilter) -> Selection:
        """Check the names in a filter, and note how far the store has come.

        Raises:
            UserError: there is no such project or annotator.
        """
        for name in filters.projects:
            project_named(connection, name)
        known = set(connection.execute(select(annotator.c.id)).scalars())
        unknown = [name for name in filters.annotators if name not in known]
        if unknown:
            raise UserError(f"there is no annotator with the id {unknown[0]!r}; see python -m annotation_ui users list")
        newest = connection.execute(select(func.coalesce(func.max(judgment.c.id), 0))).scalar_one()
        return cls(connection, filters, newest)

    @cached_property
    def _qualified(self) -> set[tuple[str, str]] | None:
        """(annotator, project) of those whose judgments count; ``None``: of everybody."""
        return passed(self.connection) if self.filters.require_qualified else None

    def judgments(self) -> Iterator[tuple[Any, Outcome]]:
        """Rows with what they say, in the order in which they were said."""
        merged = self._by_majority() if self.filters.overlap == "majority" else None
        for row in self._rows():
            found = self._reason(row) or (_own(row) if merged is None else merged.get(row.id, MERGED))
            if isinstance(found, Outcome):
                found = self._reason_of_outcome(found) or found
            if isinstance(found, Outcome):
                yield row, found
                continue
            self.left_out[found] += 1
            if found == WITHDRAWN:
                self.withdrawn.add(row.annotator_id)

    def _rows(self) -> Iterator[Any]:
        """All judgments in scope, a thousand in memory at a time."""
        query = _query(self.filters, self.newest).execution_options(yield_per=1000)
        yield from self.connection.execute(query)

    def _reason(self, row: Any) -> str | None:
        """Why a judgment is left out, whatever others say of the same pair."""
        filters, flags, qualified = self.filters, flags_of(row), self._qualified
        reasons = (
            (OTHER_PART.get(filters.part, ""), filters.part not in ("all", row.part)),
            (SIMULATED, is_simulated(row.username) and not filters.with_simulated),
            (WITHDRAWN, row.withdrawn_at is not None),
            (NOT_QUALIFIED, qualified is not None and (row.annotator_id, row.project_id) not in qualified),
            (GOLD, row.source == "gold" and not filters.with_gold),
            (PREFERS_UNSAFE, row.safety == UNSAFE_PREFERRED and not filters.with_unsafe_preferred),
            (FOR_REVIEW, FLAG in flags and not filters.with_for_review),
            (EARLIER_WITHDRAWN, EARLIER_FLAG in flags and not filters.with_earlier_withdrawn),
        )
        return next((name for name, applies in reasons if applies), None)

    def _reason_of_outcome(self, said: Outcome) -> str | None:
        """Why an outcome is left out; a vote may prefer the unsafe answer though none of those in it does."""
        if said.safety == UNSAFE_PREFERRED and not self.filters.with_unsafe_preferred:
            return PREFERS_UNSAFE
        weakest = self.filters.min_grade
        return WEAK if weakest is not None and GRADES.index(said.grade) > GRADES.index(weakest) else None

    def _by_majority(self) -> dict[int, Outcome | str]:
        """Judgment -> what most say, for the one that stands for them, or ``EVEN_VOTES``; none for the others."""
        said: dict[str, list[Outcome]] = defaultdict(list)
        for row in self._rows():
            if self._reason(row) is None:
                said[row.pair_id].append(_own(row))
        found: dict[int, Outcome | str] = {}
        for votes in said.values():
            outcome = majority(votes)
            found |= {vote.id: EVEN_VOTES for vote in votes} if outcome is None else {outcome.id: outcome}
        return found


def _own(row: Any) -> Outcome:
    return Outcome(row.id, row.chosen_slot, row.grade, row.safety)


def flags_of(row: Any) -> tuple[str, ...]:
    """The flags of a selected row, and whether the turns that it goes on from still stand."""
    earlier = [EARLIER_FLAG] if row.earlier_turns < row.turn - 1 else []
    return (*json.loads(row.flags_json), *earlier)


# -- majority ---------------------------------------------------------------------------------------------------------


def majority(votes: Sequence[Outcome]) -> Outcome | None:
    """What most say of a pair, under the id of the first who says so; ``None`` where the votes are even."""
    counts = Counter(vote.slot for vote in votes)
    if counts["a"] == counts["b"]:
        return None
    slot: Slot = "a" if counts["a"] > counts["b"] else "b"
    winners = [vote for vote in votes if vote.slot == slot]
    ranks = sorted(GRADES.index(vote.grade) for vote in winners)
    return Outcome(winners[0].id, slot, GRADES[ranks[len(ranks) // 2]], _safety(votes, slot))


def _safety(votes: Sequence[Outcome], slot: Slot) -> SafetyBin | None:
    found_safe: Counter[bool] = Counter()  # found safe, less found unsafe: whether it is the chosen answer
    labelled = [(vote.slot == slot, SAFETY_LABELS[vote.safety]) for vote in votes if vote.safety is not None]
    for same_choice, labels in labelled:
        for is_own_choice, safe in zip((True, False), labels, strict=True):
            found_safe[is_own_choice == same_choice] += 1 if safe else -1
    bins = {labels: name for name, labels in SAFETY_LABELS.items()}
    return bins[(found_safe[True] > 0, found_safe[False] > 0)] if labelled else None


# -- the query --------------------------------------------------------------------------------------------------------


def _query(filters: ExportFilter, newest: int) -> Select[Any]:
    """All judgments of work in the scope, with everything that a record has; answers as ``a_text``, ``b_seed``, ..."""
    answers = {slot: answer.alias(slot) for slot in SLOTS}
    query = select(
        *judgment.c,
        *(comparison.c[name] for name in ("pair_id", "project_id", "turn", "left_slot", "first_shown_at")),
        _earlier_turns(newest),
        pair.c.prompt_json,
        item.c.id.label("item_id"),
        item.c.source,
        item.c.part,
        item.c.batch,
        item.c.kind.label("item_kind"),
        project.c.name.label("project"),
        project.c.dimension,
        annotator.c.username,
        annotator.c.withdrawn_at,
        *(column.label(f"{slot}_{column.name}") for slot, written in answers.items() for column in written.c),
    ).join_from(judgment, comparison, comparison.c.id == judgment.c.comparison_id)
    for table, own in ((pair, comparison.c.pair_id), (item, pair.c.item_id), (project, comparison.c.project_id)):
        query = query.join(table, table.c.id == own)
    query = query.join(annotator, annotator.c.id == judgment.c.annotator_id)
    for slot, written in answers.items():
        query = query.join(written, (written.c.pair_id == pair.c.id) & (written.c.slot == slot))
    return query.where(comparison.c.kind == "work", _holds(judgment, newest), *_scope(filters)).order_by(judgment.c.id)


def _holds(said: Any, newest: int) -> Any:
    """Condition: a row is a judgment that nothing had superseded when ``newest`` was the last row."""
    later = judgment.alias()
    superseded = exists().where(later.c.supersedes == said.c.id, later.c.id <= newest)
    return (said.c.kind == "judgment") & (said.c.id <= newest) & ~superseded


def _earlier_turns(newest: int) -> Any:
    """How many earlier turns of a comparison's conversation have a judgment that holds."""
    before, said = comparison.alias(), judgment.alias()
    found = (
        select(func.count())
        .select_from(before)
        .join(said, said.c.comparison_id == before.c.id)
        .where(before.c.conversation_id == comparison.c.conversation_id, before.c.turn < comparison.c.turn)
        .where(_holds(said, newest))
        .correlate(comparison)
        .scalar_subquery()
    )
    return case((comparison.c.turn > 1, found), else_=0).label("earlier_turns")


def _scope(filters: ExportFilter) -> Iterator[Any]:
    listed = ((project.c.name, filters.projects), (item.c.batch, filters.batches), (annotator.c.id, filters.annotators))
    yield from (column.in_(names) for column, names in listed if names)
    if filters.dimension is not None:
        yield project.c.dimension == filters.dimension
    if filters.since is not None:
        yield judgment.c.created_at >= filters.since
    if filters.until is not None:
        yield judgment.c.created_at < filters.until
