"""What happens to an annotator's desk within one transaction: fetching, going on, settling, taking back.

``Desk`` opens the transaction and checks what is asked; here the rows follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from alignment.data.records import Message
from annotation_ui import texts
from annotation_ui.app_settings import AppSettings
from annotation_ui.desk import training_and_test
from annotation_ui.store import assignments, conversations_and_places, judgments, pairs
from annotation_ui.store.accounts import find_by_id
from annotation_ui.store.database import new_id, now
from annotation_ui.store.items import NewItem, add_items, item_by_id
from annotation_ui.store.rows import ComparisonRow, DeskPlaceRow, ItemRow, ProjectRow
from annotation_ui.vocabulary import Refused, TaskKind


@dataclass(frozen=True)
class DeskTransaction:
    """One annotator's desk in one project, within one write.

    Attributes:
        connection: of the write.
        settings: of the app.
        annotator_id: who.
        project: where.
        live: whether variants are there to answer.
    """

    connection: Connection
    settings: AppSettings
    annotator_id: str
    project: ProjectRow
    live: bool

    @classmethod
    def begin(
        cls, connection: Connection, settings: AppSettings, annotator_id: str, project: ProjectRow, *, live: bool
    ) -> DeskTransaction:
        """Check that the account is still open.

        Args:
            connection: of the write.
            settings: of the app.
            annotator_id: who.
            project: where.
            live: whether variants are there to answer.

        Raises:
            Refused: the account is closed.
        """
        find_by_id(connection, annotator_id)
        return cls(connection, settings, annotator_id, project, live)

    # -- where the annotator is ----------------------------------------------------------------------------------

    @property
    def place(self) -> DeskPlaceRow | None:
        """Where the annotator is, if they were in this project before."""
        return conversations_and_places.desk_place(self.connection, self.annotator_id, self.project.id)

    def put(self, **values: Any) -> None:
        """Remember where the annotator is now."""
        conversations_and_places.set_desk_place(self.connection, self.annotator_id, self.project.id, **values)

    def check_warned(self) -> None:
        """Refuse to go on before the content warning was read."""
        if training_and_test.needs_warning(self.project, self.place):
            raise Refused(texts.WARNING_FIRST)

    def check_put_away(self, *, from_turn: int = 1) -> None:
        """Refuse to put something else on the desk while a pair on it, of this turn or a later one, is not judged."""
        place = self.place
        if place is None or place.conversation_id is None:
            return
        last = conversations_and_places.last_comparison(self.connection, place.conversation_id)
        if last.state == "open" and last.turn >= from_turn:
            raise Refused(texts.JUDGE_FIRST)

    def check_judgeable(self, comparison: ComparisonRow) -> None:
        """Refuse a judgment before both answers have ended, of a test a second time, or once there is a later turn."""
        if comparison.kind != "work" and judgments.current(self.connection, comparison.id) is not None:
            raise Refused(texts.EXERCISE_STAYS)
        if pairs.pair_by_id(self.connection, comparison.pair_id).state != "complete":
            raise Refused(texts.WAIT)
        self.check_last(comparison)

    def check_last(self, comparison: ComparisonRow) -> None:
        """Refuse to change a choice that later turns are built on."""
        if conversations_and_places.last_comparison(self.connection, comparison.conversation_id).id != comparison.id:
            raise Refused(texts.MOVED_ON)

    # -- getting something ---------------------------------------------------------------------------------------

    def next(self) -> str:
        """Put away what is judged, and take the next thing; returns what to say."""
        place = self.place
        if place is not None and place.editing is not None:
            self.put(editing=None)
            return texts.EDIT_ENDED
        if place is not None and place.conversation_id is not None:
            self.check_put_away()
            conversations_and_places.set_state(self.connection, place.conversation_id, "finished")
        return self.advance()

    def advance(self) -> str:
        """Take what was left open, what comes before work, or the next item of the queue; returns what to say."""
        waiting = conversations_and_places.unfinished(self.connection, self.annotator_id, self.project.id)
        if waiting is not None:
            self.put(conversation_id=waiting, editing=None)
            return ""
        # Training examples and the test come before the queue.
        required = self.settings.qualification
        step = training_and_test.next_step(self.connection, required, self.annotator_id, self.project)
        item, kind, message = step.item, step.kind, step.message
        # Work is taken once nothing is left to do before it.
        if item is None and not step.blocked and self.project.mode != "free":
            item, kind = self._lease_next(), "work"
            message = message if item is not None else f"{message} {texts.NOTHING_MORE}".strip()
        if item is not None:
            self.take(item, kind)
        else:
            self.put(conversation_id=None, editing=None)
        return message

    def _lease_next(self) -> ItemRow | None:
        return assignments.lease_next(
            self.connection,
            self.annotator_id,
            self.project.id,
            lease_minutes=self.settings.lease_minutes,
            gold_share=training_and_test.gold_share(self.project),
            live=self.live,
        )

    def take(self, item: ItemRow, kind: TaskKind) -> None:
        """Put an item on the desk."""
        if kind != "work":
            self._lease(item.id)
        conversation_id = conversations_and_places.begin(self.connection, self.annotator_id, item, kind)
        self.put(conversation_id=conversation_id, editing=None)

    def own_conversation(self, turn: Message) -> None:
        """Begin a conversation with a prompt of the annotator's own."""
        self.clear()
        name = new_id("own")
        add_items(self.connection, self.project, [NewItem(name, (turn,), source="annotator")], overlap=1)
        item = item_by_id(self.connection, f"{self.project.name}/{name}")
        self._lease(item.id)
        self.take(item, "work")

    def next_turn(self, turn: Message) -> None:
        """Go on with the answer that was chosen last."""
        place = self.place
        assert place is not None and place.conversation_id is not None
        conversation = conversations_and_places.conversation_by_id(self.connection, place.conversation_id)
        last = conversations_and_places.last_comparison(self.connection, conversation.id)
        judgment = judgments.current(self.connection, last.id)
        assert judgment is not None
        chosen_slot, _ = judgment.preference
        chosen = pairs.answers_of(self.connection, last.pair_id)[chosen_slot].text
        prompt = pairs.load_messages(pairs.pair_by_id(self.connection, last.pair_id).prompt_json)
        history = (*prompt, Message(role="assistant", content=chosen), turn)
        conversations_and_places.go_on(self.connection, conversation, history)

    def _lease(self, item_id: str) -> None:
        assignments.lease(self.connection, self.annotator_id, item_id, lease_minutes=self.settings.lease_minutes)

    # -- after something was said --------------------------------------------------------------------------------

    def settle(self, comparison: ComparisonRow, state: Literal["judged", "skipped"]) -> None:
        """A comparison was judged or skipped: it, its item and its conversation follow."""
        conversations_and_places.set_comparison(self.connection, comparison.id, state=state, judged_at=now())
        conversation = conversations_and_places.conversation_by_id(self.connection, comparison.conversation_id)
        if comparison.turn == 1:
            done = "done" if state == "judged" else "skipped"
            assignments.end(self.connection, self.annotator_id, conversation.item_id, done)
        is_last = conversations_and_places.last_comparison(self.connection, conversation.id).id == comparison.id
        if is_last and (state == "skipped" or not self._goes_on(comparison)):
            conversations_and_places.set_state(self.connection, conversation.id, "finished")

    def move_on(self, comparison: ComparisonRow) -> str:
        """After a judgment: explain an example, wait for the next turn, or put the next thing on the desk."""
        place = self.place
        if place is not None and place.editing == comparison.id:
            self.put(editing=None)
            return ""
        if comparison.kind == "training" or self._goes_on(comparison):
            return ""
        return self.advance()

    def _goes_on(self, comparison: ComparisonRow) -> bool:
        return comparison.kind == "work" and self.live and comparison.turn < self.project.max_turns

    def take_back(self, comparison: ComparisonRow) -> None:
        """Record that what was said about a comparison holds no longer."""
        given = judgments.submission_id(self.connection, comparison.id)
        values = {"kind": "retraction", "flags_json": "[]"}
        judgments.append(self.connection, comparison, self.project, given, values)

    def put_away(self, comparison: ComparisonRow) -> None:
        """Take a comparison that was withdrawn off the desk, unless its conversation has gone on from it."""
        place = self.place
        last = conversations_and_places.last_comparison(self.connection, comparison.conversation_id)
        if place is not None and place.conversation_id == comparison.conversation_id and last.id == comparison.id:
            self.put(conversation_id=None)
        self.put(editing=None)

    def reopen(self, comparison: ComparisonRow) -> None:
        """Put a comparison on the desk again as if nothing had been said."""
        conversations_and_places.set_comparison(self.connection, comparison.id, state="open", judged_at=None)
        conversation = conversations_and_places.conversation_by_id(self.connection, comparison.conversation_id)
        if comparison.turn == 1:
            self._lease(conversation.item_id)
        conversations_and_places.set_state(self.connection, conversation.id, "active")
        self.put(conversation_id=conversation.id, editing=None)

    def clear(self) -> bool:
        """Put away what is on the desk: an item that was not judged goes back; returns whether there was one."""
        place = self.place
        if place is None or place.conversation_id is None:
            return False
        last = conversations_and_places.last_comparison(self.connection, place.conversation_id)
        if last.state == "open" and last.turn == 1:
            item_id = conversations_and_places.conversation_by_id(self.connection, place.conversation_id).item_id
            assignments.end(self.connection, self.annotator_id, item_id, "returned")
        state = "abandoned" if last.state == "open" else "finished"
        conversations_and_places.set_state(self.connection, place.conversation_id, state)
        return last.state == "open"


def chosen_project(
    connection: Connection, known: Sequence[ProjectRow], annotator_id: str, name: str | None
) -> ProjectRow:
    """The project that is asked for, else the one last worked on, else the first; ``Refused`` where there is none."""
    if not known:
        raise Refused(texts.NO_PROJECTS)
    if name is None:
        last = conversations_and_places.last_project(connection, annotator_id)
        return next((project for project in known if project.id == last), known[0])
    chosen = next((project for project in known if project.name == name), None)
    if chosen is None:
        raise Refused(texts.NO_PROJECT)
    return chosen
