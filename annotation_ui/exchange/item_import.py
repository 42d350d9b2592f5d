"""Puts items into a project's queue: those that are there already are counted, and refused where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError
from sqlalchemy import Connection, select

from alignment.data.jsonl_and_raw_rows import explain
from alignment.data.records import Part, Prompt
from alignment.data.splits import dialogue_key
from alignment.errors import UserError
from annotation_ui.store import tables
from annotation_ui.store.database import Store
from annotation_ui.store.items import NewItem, add_items
from annotation_ui.store.projects import project_named
from annotation_ui.store.rows import ProjectRow
from annotation_ui.vocabulary import SLOTS

ITEMS_PER_WRITE = 2000
"""Others wait for no longer than these take to be written."""
_IDS_PER_QUERY = 500


@dataclass(frozen=True)
class Imported:
    """How many items are new in the project, and how many were there already."""

    added: int
    known: int


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


@dataclass(frozen=True)
class Filing:
    """What is written on items that are read: see ``NewItem``."""

    part: Part = "train"
    batch: str | None = None
    priority: int = 0

    def on(self, new: NewItem) -> NewItem:
        """The item with it."""
        return replace(new, part=self.part, batch=self.batch, priority=self.priority)
