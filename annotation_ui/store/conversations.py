"""Conversations and their comparisons: what an annotator has in front of them, turn by turn.

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
from annotation_ui.store.database import new_id, now
from annotation_ui.store.pairs import FIRST_PAIR, load_messages, try_again, waiting_pair
from annotation_ui.store.tables import comparison, conversation, desk_place, item
from annotation_ui.vocabulary import Kind, Refused, draw_left_slot

_CONVERSATION = (
    select(conversation, item.c.source, item.c.expected_json)
    .join(item, item.c.id == conversation.c.item_id)
    .where(conversation.c.id == bindparam("wanted"))
)
_CONVERSATION_ON = select(conversation).where(
    conversation.c.annotator_id == bindparam("annotator_id"), conversation.c.item_id == bindparam("item_id")
)
_UNFINISHED = (
    select(conversation.c.id)
    .join(comparison, comparison.c.conversation_id == conversation.c.id)
    .where(
        conversation.c.annotator_id == bindparam("annotator_id"),
        conversation.c.project_id == bindparam("project_id"),
        conversation.c.state == "active",
        comparison.c.state == "open",
    )
    .order_by(comparison.c.created_at)
    .limit(1)
)
_SET_CONVERSATION = update(conversation).where(conversation.c.id == bindparam("wanted"))
_ADD_CONVERSATION = insert(conversation)
_LAST_COMPARISON = (
    select(comparison)
    .where(comparison.c.conversation_id == bindparam("conversation_id"))
    .order_by(comparison.c.turn.desc())
    .limit(1)
)
_OWN_COMPARISON = select(comparison).where(
    comparison.c.id == bindparam("wanted"), comparison.c.annotator_id == bindparam("annotator_id")
)
_SET_COMPARISON = update(comparison).where(comparison.c.id == bindparam("wanted"))
_ADD_COMPARISON = insert(comparison)
_AT_PLACE = (
    desk_place.c.annotator_id == bindparam("whose"),
    desk_place.c.project_id == bindparam("where"),
)
_PLACE = select(desk_place).where(*_AT_PLACE)
_SET_PLACE = update(desk_place).where(*_AT_PLACE)


def begin(connection: Connection, annotator_id: str, item_row: Any, kind: Kind) -> str:
    """Begin, or take up again, an annotator's conversation on an item; returns its id.

    Its first comparison shows the item's pair, where there is one, else a new pair that waits for its answers.
    """
    on_item = {"annotator_id": annotator_id, "item_id": item_row.id}
    before = connection.execute(_CONVERSATION_ON, on_item).one_or_none()
    if before is not None:
        set_state(connection, before.id, "active")
        last = last_comparison(connection, before.id)
        set_comparison(connection, last.id, state="open")
        return str(before.id)
    made = new_id("cnv")
    values = {"id": made, "project_id": item_row.project_id, "kind": kind, "state": "active", "created_at": now()}
    connection.execute(_ADD_CONVERSATION, {**on_item, **values})
    first = {"item_id": item_row.id, "prompt_sha256": item_row.prompt_sha256}
    there = connection.execute(FIRST_PAIR, first).one_or_none()
    if there is None:
        pair_id = waiting_pair(connection, item_row.project_id, item_row.id, load_messages(item_row.messages_json))
    else:
        pair_id = there.id
        if there.state == "failed":
            try_again(connection, pair_id)
    complete = there is not None and there.state == "complete"
    _show(connection, made, pair_id, annotator_id, item_row.project_id, kind, turn=1, at_once=complete)
    return made


def go_on(connection: Connection, conversation_row: Any, prompt: Sequence[Message]) -> None:
    """Add the next turn to a conversation: ``prompt`` is the whole history with the new user turn."""
    last = last_comparison(connection, conversation_row.id)
    pair_id = waiting_pair(connection, conversation_row.project_id, conversation_row.item_id, prompt)
    _show(
        connection,
        conversation_row.id,
        pair_id,
        conversation_row.annotator_id,
        conversation_row.project_id,
        conversation_row.kind,
        turn=last.turn + 1,
    )


def _show(
    connection: Connection,
    conversation_id: str,
    pair_id: str,
    annotator_id: str,
    project_id: str,
    kind: str,
    *,
    turn: int,
    at_once: bool = False,
) -> None:
    """A comparison with sides drawn for it; ``at_once``: the answers are there."""
    order_seed = secrets.randbits(31)
    values = {
        "id": new_id("cmp"),
        "conversation_id": conversation_id,
        "pair_id": pair_id,
        "annotator_id": annotator_id,
        "project_id": project_id,
        "kind": kind,
        "turn": turn,
        "left_slot": draw_left_slot(order_seed),
        "order_seed": order_seed,
        "state": "open",
        "first_shown_at": now() if at_once else None,
        "created_at": now(),
    }
    connection.execute(_ADD_COMPARISON, values)


# -- reading ----------------------------------------------------------------------------------------------------------


def conversation_row(connection: Connection, conversation_id: str) -> Any:
    """A conversation with what is needed of its item."""
    return connection.execute(_CONVERSATION, {"wanted": conversation_id}).one()


def last_comparison(connection: Connection, conversation_id: str) -> Any:
    """The comparison of a conversation's last turn."""
    return connection.execute(_LAST_COMPARISON, {"conversation_id": conversation_id}).one()


def own_comparison(connection: Connection, annotator_id: str, comparison_id: str) -> Any:
    """An annotator's own comparison; somebody else's, or none, is refused in the same words."""
    own = {"wanted": comparison_id, "annotator_id": annotator_id}
    row = connection.execute(_OWN_COMPARISON, own).one_or_none()
    if row is None:
        raise Refused("There is no such comparison of yours. Reload the page.")
    return row


def note_shown(connection: Connection, comparison_id: str) -> None:
    """Keep when a comparison with both answers was first sent to its annotator."""
    first = (comparison.c.id == comparison_id, comparison.c.first_shown_at.is_(None))
    connection.execute(update(comparison).where(*first).values(first_shown_at=now()))


# -- where the annotator is -------------------------------------------------------------------------------------------


def set_state(connection: Connection, conversation_id: str, state: str) -> None:
    """Say that a conversation goes on or has ended."""
    connection.execute(_SET_CONVERSATION, {"wanted": conversation_id, "state": state})


def set_comparison(connection: Connection, comparison_id: str, **values: Any) -> None:
    """Say how a comparison stands: ``state``, ``judged_at``."""
    connection.execute(_SET_COMPARISON, {"wanted": comparison_id, **values})


def place_of(connection: Connection, annotator_id: str, project_id: str) -> Any | None:
    """Where an annotator is in a project, if they were there before."""
    return connection.execute(_PLACE, {"whose": annotator_id, "where": project_id}).one_or_none()


def last_project(connection: Connection, annotator_id: str) -> str | None:
    """Id of the project in which an annotator did something last."""
    mine = select(desk_place.c.project_id).where(desk_place.c.annotator_id == annotator_id)
    return connection.execute(mine.order_by(desk_place.c.at.desc()).limit(1)).scalar_one_or_none()


def put(connection: Connection, annotator_id: str, project_id: str, **values: Any) -> None:
    """Remember where an annotator is: ``conversation_id``, ``editing``, ``warned_until``."""
    values["at"] = now()
    if not connection.execute(_SET_PLACE, {"whose": annotator_id, "where": project_id, **values}).rowcount:
        connection.execute(insert(desk_place).values(annotator_id=annotator_id, project_id=project_id, **values))


def unfinished(connection: Connection, annotator_id: str, project_id: str) -> str | None:
    """A conversation of the annotator whose last comparison waits for a judgment, the earliest first."""
    mine = {"annotator_id": annotator_id, "project_id": project_id}
    return connection.execute(_UNFINISHED, mine).scalar_one_or_none()
