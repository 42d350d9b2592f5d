"""Which judgments an export is made of: those in its scope, less what is left out and counted by reason.

Judgments are read as they stood when the last row was ``newest``, so that what is said while an export runs does not
get into half of it. What annotators have withdrawn, training and qualification tests are never selected.

A majority (``alignment.data.judgments_by_majority``) is found after everything else was left out but weak grades, which
its outcome decides. The earliest judgment of those in it stands for it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError, field_validator
from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select, case, exists, func, select

from alignment.data.judgments_by_majority import Vote, majority
from alignment.data.records import GRADES, Dimension, Grade, Part, SafetyBin, explain
from alignment.errors import UserError
from alignment.settings.sections import Section
from annotation_ui.desk.training_and_test import passed
from annotation_ui.store import tables
from annotation_ui.store.projects import project_named
from annotation_ui.store.rows import AnswerRow, JudgmentRow, Source
from annotation_ui.vocabulary import FLAG, SLOTS, UNSAFE_PREFERRED, Slot, is_simulated

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


class SelectedRow(NamedTuple):
    """A judgment with everything that a record of it has.

    Attributes:
        judgment: what was said.
        answers: by slot.
        earlier_turns: how many turns before this one of its conversation have a judgment that holds.
        project: its name.
    """

    judgment: JudgmentRow
    answers: dict[Slot, AnswerRow]
    pair_id: str
    project_id: str
    turn: int
    left_slot: Slot
    first_shown_at: str | None
    earlier_turns: int
    prompt_json: str
    item_id: str
    source: Source
    part: Part
    batch: str
    item_kind: str | None
    project: str
    dimension: Dimension
    username: str
    withdrawn_at: str | None

    @classmethod
    def of(cls, row: Row[Any]) -> SelectedRow:
        """From a row of the query below: the columns of the judgment, those in between, and those of both answers."""
        n_judgment, n_answer = len(JudgmentRow._fields), len(AnswerRow._fields)
        first, second = AnswerRow._make(row[-2 * n_answer : -n_answer]), AnswerRow._make(row[-n_answer:])
        between = row[n_judgment : -2 * n_answer]
        return cls._make((JudgmentRow._make(row[:n_judgment]), {"a": first, "b": second}, *between))

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of the judgment, and whether the turns that it goes on from still stand."""
        earlier = [EARLIER_FLAG] if self.earlier_turns < self.turn - 1 else []
        return (*json.loads(self.judgment.flags_json), *earlier)


class Preference(NamedTuple):
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
        known = set(connection.execute(select(tables.annotator.c.id)).scalars())
        unknown = [name for name in filters.annotators if name not in known]
        if unknown:
            raise UserError(f"there is no annotator with the id {unknown[0]!r}; see python -m annotation_ui users list")
        newest = connection.execute(select(func.coalesce(func.max(tables.judgment.c.id), 0))).scalar_one()
        return cls(connection, filters, newest)

    @cached_property
    def _qualified(self) -> set[tuple[str, str]] | None:
        """(annotator, project) of those whose judgments count; ``None``: of everybody."""
        return passed(self.connection) if self.filters.require_qualified else None

    def judgments(self) -> Iterator[tuple[SelectedRow, Preference]]:
        """Rows with what they say, in the order in which they were said."""
        merged = self._by_majority() if self.filters.overlap == "majority" else None
        for row in self._rows():
            result = self._reason(row) or (_own(row) if merged is None else merged.get(row.judgment.id, MERGED))
            if isinstance(result, Preference):
                result = self._reason_of_preference(result) or result
            if isinstance(result, Preference):
                yield row, result
                continue
            self.left_out[result] += 1
            if result == WITHDRAWN:
                self.withdrawn.add(row.judgment.annotator_id)

    def _rows(self) -> Iterator[SelectedRow]:
        """All judgments in scope, a thousand in memory at a time."""
        query = _query(self.filters, self.newest).execution_options(yield_per=1000)
        yield from map(SelectedRow.of, self.connection.execute(query))

    def _reason(self, row: SelectedRow) -> str | None:
        """Why a judgment is left out, whatever others say of the same pair."""
        filters, flags, qualified = self.filters, row.flags, self._qualified
        reasons = (
            (OTHER_PART.get(filters.part, ""), filters.part not in ("all", row.part)),
            (SIMULATED, is_simulated(row.username) and not filters.with_simulated),
            (WITHDRAWN, row.withdrawn_at is not None),
            (NOT_QUALIFIED, qualified is not None and (row.judgment.annotator_id, row.project_id) not in qualified),
            (GOLD, row.source == "gold" and not filters.with_gold),
            (PREFERS_UNSAFE, row.judgment.safety == UNSAFE_PREFERRED and not filters.with_unsafe_preferred),
            (FOR_REVIEW, FLAG in flags and not filters.with_for_review),
            (EARLIER_WITHDRAWN, EARLIER_FLAG in flags and not filters.with_earlier_withdrawn),
        )
        return next((name for name, applies in reasons if applies), None)

    def _reason_of_preference(self, preference: Preference) -> str | None:
        """Why a preference is left out; that of most may prefer the unsafe answer though none of those in it does."""
        if preference.safety == UNSAFE_PREFERRED and not self.filters.with_unsafe_preferred:
            return PREFERS_UNSAFE
        weakest = self.filters.min_grade
        return WEAK if weakest is not None and GRADES.index(preference.grade) > GRADES.index(weakest) else None

    def _by_majority(self) -> dict[int, Preference | str]:
        """Judgment -> what most say, for the one that stands for them, or ``EVEN_VOTES``; none for the others."""
        by_pair: dict[str, list[Preference]] = defaultdict(list)
        for row in self._rows():
            if self._reason(row) is None:
                by_pair[row.pair_id].append(_own(row))
        merged: dict[int, Preference | str] = {}
        for preferences in by_pair.values():
            most = _most(preferences)
            merged |= {each.id: EVEN_VOTES for each in preferences} if most is None else {most.id: most}
        return merged


def _own(row: SelectedRow) -> Preference:
    slot, grade = row.judgment.preference
    return Preference(row.judgment.id, slot, grade, row.judgment.safety)


def _most(preferences: Sequence[Preference]) -> Preference | None:
    """What most say of a pair, under the id of the first who says so; ``None`` where the votes are even."""
    outcome = majority([Vote(each.slot, each.grade, each.safety) for each in preferences])
    if outcome is None:
        return None
    first = next(each for each in preferences if each.slot == outcome.choice)
    return Preference(first.id, first.slot, outcome.grade or first.grade, outcome.safety)


# -- the query --------------------------------------------------------------------------------------------------------


def _query(filters: ExportFilter, newest: int) -> Select[Any]:
    """All judgments of work in the scope, with the columns that ``SelectedRow`` takes, in its order."""
    # Judgment, what is known of its comparison, and the answers: as ``SelectedRow.of`` takes them apart.
    answers = {slot: tables.answer.alias(slot) for slot in SLOTS}
    query = select(
        *tables.judgment.c,
        *(tables.comparison.c[name] for name in ("pair_id", "project_id", "turn", "left_slot", "first_shown_at")),
        _earlier_turns(newest),
        tables.pair.c.prompt_json,
        tables.item.c.id,
        tables.item.c.source,
        tables.item.c.part,
        tables.item.c.batch,
        tables.item.c.kind,
        tables.project.c.name,
        tables.project.c.dimension,
        tables.annotator.c.username,
        tables.annotator.c.withdrawn_at,
        *(column for answer in answers.values() for column in answer.c),
    ).join_from(tables.judgment, tables.comparison, tables.comparison.c.id == tables.judgment.c.comparison_id)
    # One row of each table that a judgment leads to.
    for table, own in (
        (tables.pair, tables.comparison.c.pair_id),
        (tables.item, tables.pair.c.item_id),
        (tables.project, tables.comparison.c.project_id),
    ):
        query = query.join(table, table.c.id == own)
    query = query.join(tables.annotator, tables.annotator.c.id == tables.judgment.c.annotator_id)
    for slot, answer in answers.items():
        query = query.join(answer, (answer.c.pair_id == tables.pair.c.id) & (answer.c.slot == slot))
    query = query.where(tables.comparison.c.kind == "work", _holds(tables.judgment, newest), *_scope(filters))
    return query.order_by(tables.judgment.c.id)


def _holds(judgment: FromClause, newest: int) -> ColumnElement[bool]:
    """Condition: a row is a judgment that nothing had superseded when ``newest`` was the last row."""
    later = tables.judgment.alias()
    superseded = exists().where(later.c.supersedes == judgment.c.id, later.c.id <= newest)
    return (judgment.c.kind == "judgment") & (judgment.c.id <= newest) & ~superseded


def _earlier_turns(newest: int) -> ColumnElement[int]:
    """How many earlier turns of a comparison's conversation have a judgment that holds."""
    before, judgment = tables.comparison.alias(), tables.judgment.alias()
    count = (
        select(func.count())
        .select_from(before)
        .join(judgment, judgment.c.comparison_id == before.c.id)
        .where(
            before.c.conversation_id == tables.comparison.c.conversation_id, before.c.turn < tables.comparison.c.turn
        )
        .where(_holds(judgment, newest))
        .correlate(tables.comparison)
        .scalar_subquery()
    )
    return case((tables.comparison.c.turn > 1, count), else_=0).label("earlier_turns")


def _scope(filters: ExportFilter) -> Iterator[ColumnElement[bool]]:
    listed = (
        (tables.project.c.name, filters.projects),
        (tables.item.c.batch, filters.batches),
        (tables.annotator.c.id, filters.annotators),
    )
    yield from (column.in_(names) for column, names in listed if names)
    if filters.dimension is not None:
        yield tables.project.c.dimension == filters.dimension
    if filters.since is not None:
        yield tables.judgment.c.created_at >= filters.since
    if filters.until is not None:
        yield tables.judgment.c.created_at < filters.until
