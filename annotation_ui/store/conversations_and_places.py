"""Conversations and their comparisons, turn by turn, and where on the desk each annotator is.

Each turn is a pair (a prompt with its whole history, and two answers) and the annotator's own showing of it, a
comparison, whose sides are drawn once and kept. The next turn goes on with the chosen answer.

Statements that each judgment needs are made once: to put one together takes SQLAlchemy longer than to run it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from alignment.data.records import Message
from annotation_ui import texts
from annotation_ui.store import tables
from annotation_ui.store.database import new_id, now
from annotation_ui.store.pairs import first_pair, load_messages, try_again, waiting_pair
from annotation_ui.store.rows import ComparisonRow, ConversationRow, DeskPlaceRow, ItemRow
from annotation_ui.vocabulary import Refused, TaskKind, draw_left_slot

_CONVERSATION = select(tables.conversation).where(tables.conversation.c.id == bindparam("wanted"))
_CONVERSATION_ON = select(tables.conversation).where(
    tables.conversation.c.annotator_id == bindparam("annotator_id"),
    tables.conversation.c.item_id == bindparam("item_id"),
)
_UNFINISHED = (
    select(tables.conversation.c.id)
    .join(tables.comparison, tables.comparison.c.conversation_id == tables.conversation.c.id)
    .where(
        tables.conversation.c.annotator_id == bindparam("annotator_id"),
        tables.conversation.c.project_id == bindparam("project_id"),
        tables.conversation.c.state == "active",
        tables.comparison.c.state == "open",
    )
    .order_by(tables.comparison.c.created_at)
    .limit(1)
)
_SET_CONVERSATION = update(tables.conversation).where(tables.conversation.c.id == bindparam("wanted"))
_ADD_CONVERSATION = insert(tables.conversation)
_LAST_COMPARISON = (
    select(tables.comparison)
    .where(tables.comparison.c.conversation_id == bindparam("conversation_id"))
    .order_by(tables.comparison.c.turn.desc())
    .limit(1)
)
_OWN_COMPARISON = select(tables.comparison).where(
    tables.comparison.c.id == bindparam("wanted"), tables.comparison.c.annotator_id == bindparam("annotator_id")
)
_SET_COMPARISON = update(tables.comparison).where(tables.comparison.c.id == bindparam("wanted"))
_ADD_COMPARISON = insert(tables.comparison)
_AT_PLACE = (
    tables.desk_place.c.annotator_id == bindparam("whose"),
    tables.desk_place.c.project_id == bindparam("where"),
)
_PLACE = select(tables.desk_place).where(*_AT_PLACE)
_SET_PLACE = update(tables.desk_place).where(*_AT_PLACE)


def begin(connection: Connection, annotator_id: str, item: ItemRow, kind: TaskKind) -> str:
    """Begin, or take up again, an annotator's conversation on an item; returns its id.

    Its first comparison shows the item's pair, where there is one, else a new pair that waits for its answers.

    Args:
        connection: of a write.
        annotator_id: who.
        item: what the conversation is on.
        kind: what its comparisons are for.
    """
    # An annotator has one conversation on an item: an earlier one is taken up where it was left.
    earlier = _conversation_on(connection, annotator_id, item.id)
    if earlier is not None:
        set_state(connection, earlier.id, "active")
        set_comparison(connection, last_comparison(connection, earlier.id).id, state="open")
        return earlier.id
    conversation = ConversationRow(new_id("cnv"), item.project_id, annotator_id, item.id, kind, "active", now())
    connection.execute(_ADD_CONVERSATION, conversation._asdict())
    # The pair of the item serves all its annotators; a failed one is tried again.
    pair = first_pair(connection, item)
    if pair is None:
        pair_id = waiting_pair(connection, item.project_id, item.id, load_messages(item.messages_json))
    else:
        pair_id = pair.id
        if pair.state == "failed":
            try_again(connection, pair_id)
    is_complete = pair is not None and pair.state == "complete"
    _add_comparison(connection, conversation, pair_id, turn=1, is_complete=is_complete)
    return conversation.id


def go_on(connection: Connection, conversation: ConversationRow, prompt: Sequence[Message]) -> None:
    """Add the next turn to a conversation: ``prompt`` is the whole history with the new user turn."""
    last = last_comparison(connection, conversation.id)
    pair_id = waiting_pair(connection, conversation.project_id, conversation.item_id, prompt)
    _add_comparison(connection, conversation, pair_id, turn=last.turn + 1, is_complete=False)


def _add_comparison(
    connection: Connection, conversation: ConversationRow, pair_id: str, *, turn: int, is_complete: bool
) -> None:
    """A comparison with sides drawn for it; ``is_complete``: both answers are there to be read at once."""
    order_seed = secrets.randbits(31)
    values = {
        "id": new_id("cmp"),
        "conversation_id": conversation.id,
        "pair_id": pair_id,
        "annotator_id": conversation.annotator_id,
        "project_id": conversation.project_id,
        "kind": conversation.kind,
        "turn": turn,
        "left_slot": draw_left_slot(order_seed),
        "order_seed": order_seed,
        "state": "open",
        "first_shown_at": now() if is_complete else None,
        "created_at": now(),
    }
    connection.execute(_ADD_COMPARISON, values)


def conversation_by_id(connection: Connection, conversation_id: str) -> ConversationRow:
    """A conversation by id."""
    return ConversationRow._make(connection.execute(_CONVERSATION, {"wanted": conversation_id}).one())


def _conversation_on(connection: Connection, annotator_id: str, item_id: str) -> ConversationRow | None:
    own = {"annotator_id": annotator_id, "item_id": item_id}
    row = connection.execute(_CONVERSATION_ON, own).one_or_none()
    return None if row is None else ConversationRow._make(row)


def last_comparison(connection: Connection, conversation_id: str) -> ComparisonRow:
    """The comparison of a conversation's last turn."""
    return ComparisonRow._make(connection.execute(_LAST_COMPARISON, {"conversation_id": conversation_id}).one())


def own_comparison(connection: Connection, annotator_id: str, comparison_id: str) -> ComparisonRow:
    """An annotator's own comparison; somebody else's, or none, is refused in the same words."""
    own = {"wanted": comparison_id, "annotator_id": annotator_id}
    row = connection.execute(_OWN_COMPARISON, own).one_or_none()
    if row is None:
        raise Refused(texts.NO_COMPARISON)
    return ComparisonRow._make(row)


def note_shown(connection: Connection, comparison_id: str) -> None:
    """Keep when a comparison with both answers was first sent to its annotator."""
    first = (tables.comparison.c.id == comparison_id, tables.comparison.c.first_shown_at.is_(None))
    connection.execute(update(tables.comparison).where(*first).values(first_shown_at=now()))


def set_state(connection: Connection, conversation_id: str, state: str) -> None:
    """Say that a conversation goes on or has ended."""
    connection.execute(_SET_CONVERSATION, {"wanted": conversation_id, "state": state})


def set_comparison(connection: Connection, comparison_id: str, **values: Any) -> None:
    """Say how a comparison stands: ``state``, ``judged_at``."""
    connection.execute(_SET_COMPARISON, {"wanted": comparison_id, **values})


def unfinished(connection: Connection, annotator_id: str, project_id: str) -> str | None:
    """A conversation of the annotator whose last comparison waits for a judgment, the earliest first."""
    mine = {"annotator_id": annotator_id, "project_id": project_id}
    return connection.execute(_UNFINISHED, mine).scalar_one_or_none()


def desk_place(connection: Connection, annotator_id: str, project_id: str) -> DeskPlaceRow | None:
    """Where an annotator is in a project, if they were there before."""
    row = connection.execute(_PLACE, {"whose": annotator_id, "where": project_id}).one_or_none()
    return None if row is None else DeskPlaceRow._make(row)


def last_project(connection: Connection, annotator_id: str) -> str | None:
    """Id of the project in which an annotator did something last."""
    mine = select(tables.desk_place.c.project_id).where(tables.desk_place.c.annotator_id == annotator_id)
    return connection.execute(mine.order_by(tables.desk_place.c.at.desc()).limit(1)).scalar_one_or_none()


def set_desk_place(connection: Connection, annotator_id: str, project_id: str, **values: Any) -> None:
    """Remember where an annotator is: ``conversation_id``, ``editing``, ``warned_until``."""
    values["at"] = now()
    if not connection.execute(_SET_PLACE, {"whose": annotator_id, "where": project_id, **values}).rowcount:
        connection.execute(insert(tables.desk_place).values(annotator_id=annotator_id, project_id=project_id, **values))
