"""Brings prompts, pairs of answers and items with a known answer into a project's queue.

Prompts are read from any source that training reads them from; pairs, to be judged anew, from comparisons in any format
or from a file of one's own (``annotation_ui.exchange.pair_lines``).

Items that are there already are counted, and refused where they differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError
from sqlalchemy import Connection, select

from alignment.data.jsonl_and_raw_rows import OnError, ReadReport
from alignment.data.readers import load_comparisons, load_prompts
from alignment.data.records import AnswerSource, Comparison, Dimension, Part, Prompt, explain
from alignment.data.splits import dialogue_key
from alignment.errors import UserError
from alignment.files import resolve
from annotation_ui.desk.exercises import read_exercises
from annotation_ui.exchange.pair_lines import IMPORTED, attention_item, has_own_pairs, own_pairs
from annotation_ui.store import tables
from annotation_ui.store.database import Store
from annotation_ui.store.items import NewItem, add_items
from annotation_ui.store.pairs import NewAnswer, VariantInfo
from annotation_ui.store.projects import project_named
from annotation_ui.store.rows import ProjectRow
from annotation_ui.vocabulary import SLOTS, Slot

ITEMS_PER_WRITE = 2000
"""Others wait for no longer than these take to be written."""


_IDS_PER_QUERY = 500


@dataclass(frozen=True)
class Filing:
    """What is written on items that are read: see ``NewItem``."""

    part: Part = "train"
    batch: str | None = None
    priority: int = 0

    def on(self, new: NewItem) -> NewItem:
        """The item with it."""
        return replace(new, part=self.part, batch=self.batch, priority=self.priority)


@dataclass(frozen=True)
class Imported:
    """How many items are new in the project, and how many were there already."""

    added: int
    known: int


def read_prompts(
    source: str,
    dimension: Dimension,
    *,
    filing: Filing | None = None,
    format: str = "auto",
    on_error: OnError = "raise",
    limit: int | None = None,
) -> tuple[list[NewItem], ReadReport]:
    """Prompts for a queue, each once; those of this project keep their ids and kinds.

    Args:
        source: a file, or ``owner/name[:split]`` of a Hub dataset.
        dimension: of the project. Prompts that say that they are about another one are left out and counted.
        filing: part, batch and priority.
        format: a name from ``alignment.data.formats.row_format.FORMATS``, or ``auto``.
        on_error: what to do with malformed rows: raise, or leave out and count.
        limit: take so many at most.

    Raises:
        UserError: the source cannot be read, holds no prompt or a malformed row, or an id twice.
    """
    prompts, report = load_prompts(str(resolve(source)), dimension=dimension, format=format, on_error=on_error)
    return queued_prompts(prompts, report, dimension, filing=filing, limit=limit)


def queued_prompts(
    prompts: Sequence[Prompt],
    report: ReadReport,
    dimension: Dimension,
    *,
    filing: Filing | None = None,
    limit: int | None = None,
) -> tuple[list[NewItem], ReadReport]:
    """Prompts that were read, for a queue, each once.

    Args:
        prompts: those about another dimension are left out and counted.
        report: of the reading; what is left out here is added.
        dimension: of the project.
        filing: part, batch and priority.
        limit: take so many at most.

    Raises:
        UserError: two prompts have one id.
    """
    wanted: list[tuple[object, NewItem]] = []
    for prompt in prompts:
        if prompt.dimension != dimension:
            report.skip(f"about {prompt.dimension}", prompt.id)
            continue
        wanted.append((dialogue_key(prompt.messages), NewItem(prompt.id, prompt.messages, kind=prompt.kind)))
    return _each_once(report.path, wanted, report, filing, limit)


def read_pairs(
    source: str,
    dimension: Dimension,
    *,
    filing: Filing | None = None,
    format: str = "auto",
    on_error: OnError = "raise",
    limit: int | None = None,
) -> tuple[list[NewItem], ReadReport]:
    """Pairs of answers to be judged, each once, and gold items.

    Which answer of a comparison gets which slot follows from its id, so that no slot holds the better ones.

    Args:
        source: a file, or ``owner/name[:split]`` of a Hub dataset.
        dimension: of the project. Pairs that say that they are about another one are left out and counted.
        filing: part, batch and priority.
        format: of comparisons: a name from ``alignment.data.formats.row_format.FORMATS``, or ``auto``.
        on_error: what to do with malformed rows: raise, or leave out and count.
        limit: take so many at most.

    Raises:
        UserError: the source cannot be read, holds no pair or a malformed row, or an id twice; names file and row.
    """
    path = str(resolve(source))
    if format == "auto" and has_own_pairs(path):
        report = ReadReport(source)
        items = list(own_pairs(path, dimension, report, on_error))
    else:
        comparisons, report = load_comparisons(path, dimension=dimension, format=format, on_error=on_error)
        items = [_pair_of(comparison) for comparison in comparisons]
    return _each_once(source, [(_said(item), item) for item in items], report, filing, limit)


def attention_items(dimension: Dimension, *, filing: Filing | None = None) -> list[NewItem]:
    """The attention checks that come with the app, as gold items."""
    return [(filing or Filing()).on(attention_item(exercise)) for exercise in read_exercises(dimension, "attention")]


def _pair_of(comparison: Comparison) -> NewItem:
    answers = [
        _sourced(comparison.chosen_text, comparison.chosen_source),
        _sourced(comparison.rejected_text, comparison.rejected_source),
    ]
    if hashlib.sha256(comparison.id.encode()).digest()[0] % 2:
        answers.reverse()
    slots: dict[Slot, NewAnswer] = dict(zip(SLOTS, answers, strict=True))
    return NewItem(comparison.id, comparison.prompt, answers=slots, kind=comparison.kind)


def _sourced(text: str, source: AnswerSource | None) -> NewAnswer:
    if source is None:
        return NewAnswer(text, IMPORTED)
    drawn = {"temperature": source.temperature, "max_new_tokens": source.max_new_tokens}
    sampling = {key: value for key, value in drawn.items() if value is not None}
    variant = VariantInfo(source.variant, source.checkpoint, sampling=sampling)
    return NewAnswer(text, variant, seed=source.seed, n_tokens=source.n_tokens, finish_reason=source.finish_reason)


def _said(new: NewItem) -> object:
    """What is to be judged, whichever slot an answer is in."""
    assert new.answers is not None
    return dialogue_key(new.messages), frozenset(given.text for given in new.answers.values())


def _each_once(
    source: str,
    wanted: Sequence[tuple[object, NewItem]],
    report: ReadReport,
    filing: Filing | None,
    limit: int | None,
) -> tuple[list[NewItem], ReadReport]:
    """The items without those that ask the same again, at most ``limit``; the rest is counted."""
    seen: set[object] = set()
    items: dict[str, NewItem] = {}
    for key, new in wanted:
        if key in seen:
            report.skip("there twice", new.id)
        elif limit is not None and len(items) >= limit:
            report.skip("beyond the limit", new.id)
        elif new.id in items:
            raise UserError(f"{source}: two different records have the id {new.id!r}. Give each an id of its own.")
        else:
            seen.add(key)
            items[new.id] = (filing or Filing()).on(new)
    report.read = len(items)
    if not items:
        raise UserError(f"there is nothing to import. {report.summary()}")
    return list(items.values()), report


# -- writing ----------------------------------------------------------------------------------------------------------


def import_items(store: Store, project: str, items: Iterable[NewItem], overlap: int | None = None) -> Imported:
    """Put items into a project; those that are there already stay as they are, so that a repetition is harmless.

    Everything is checked before anything is written; then they are written some thousands at a time, so that a server
    on the same store can go on saving.

    Args:
        store: where the project is.
        project: its name.
        items: what to add, in order.
        overlap: annotators per item; default: the project's.

    Raises:
        UserError: there is no such project; an item cannot be judged; or another item has its id.
    """
    # Everything is checked first: nothing is written of what holds a mistake.
    given = list(items)
    if overlap is not None and overlap < 1:
        raise UserError(f"overlap is the number of annotators per item: at least 1, not {overlap}")
    for new in given:
        _check(new)
    with store.read() as connection:
        known = _known(connection, project_named(connection, project), given)
    # What is new is written in portions.
    fresh = [new for new in given if new.id not in known]
    added = 0
    for start in range(0, len(fresh), ITEMS_PER_WRITE):
        with store.write() as connection:
            row = project_named(connection, project)
            added += add_items(connection, row, fresh[start : start + ITEMS_PER_WRITE], overlap=overlap)
    return Imported(added, len(given) - added)


def _check(new: NewItem) -> None:
    try:
        Prompt(id=new.id, messages=new.messages)
    except ValidationError as error:
        raise UserError(f"{new.id}: {explain(error)}") from error
    texts = [new.answers[slot].text for slot in SLOTS] if new.answers is not None else ["a", "b"]
    if not all(text.strip() for text in texts) or texts[0].strip() == texts[1].strip():
        raise UserError(f"{new.id}: an answer is empty, or both are the same")


def _known(connection: Connection, project: ProjectRow, items: Sequence[NewItem]) -> set[str]:
    """Which of the items are in the project; raise ``UserError`` where one has the id and says something else."""
    prefix = f"{project.name}/"
    query = select(tables.item.c.id, tables.item.c.prompt_sha256).where(tables.item.c.project_id == project.id)
    prompts = {row.id.removeprefix(prefix): row.prompt_sha256 for row in connection.execute(query)}
    known = [new for new in items if new.id in prompts]
    texts = _answers_of(connection, [prefix + new.id for new in known if new.answers is not None])
    for new in known:
        same = prompts[new.id] == dialogue_key(new.messages)
        if same and new.answers is not None:
            same = texts.get(prefix + new.id) == {slot: given.text for slot, given in new.answers.items()}
        if not same:
            raise UserError(
                f"{project.name} has an item {new.id!r} that says something else. Nothing is imported: give the "
                "new ones other ids (rows without ids are numbered by the file's name: rename the file)."
            )
    return {new.id for new in known}


def _answers_of(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Item id -> slot -> the answer to its own prompt."""
    answers: dict[str, dict[str, str]] = {}
    query = (
        select(tables.item.c.id, tables.answer.c.slot, tables.answer.c.text)
        .join_from(
            tables.item,
            tables.pair,
            (tables.pair.c.item_id == tables.item.c.id) & (tables.pair.c.prompt_sha256 == tables.item.c.prompt_sha256),
        )
        .join(tables.answer, tables.answer.c.pair_id == tables.pair.c.id)
    )
    for start in range(0, len(ids), _IDS_PER_QUERY):
        some = ids[start : start + _IDS_PER_QUERY]
        for item_id, slot, text in connection.execute(query.where(tables.item.c.id.in_(some))):
            answers.setdefault(item_id, {})[slot] = text
    return answers
