"""The annotator's desk: each thing that somebody can do is one method, one transaction, and a new view.

The desk trusts nobody: whose comparison it is, what phase it is in and every value are checked here, whoever calls.
What is on the desk is in the store alone, so that a reload, a second browser or a crash comes back to the same pair
on the same sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from alignment.data.records import Message
from annotation_ui import texts
from annotation_ui.answers.generation import Generator, JobOutcome
from annotation_ui.app_settings import AppSettings
from annotation_ui.desk import training_and_test
from annotation_ui.desk.transaction import DeskTransaction
from annotation_ui.desk.view import View
from annotation_ui.desk.view_maker import HISTORY, make_view
from annotation_ui.store import conversations_and_places, judgment_values, judgments, pairs, projects
from annotation_ui.store.database import Store, in_minutes, now, storable
from annotation_ui.store.judgment_values import Submission, checked_id, values_of, values_of_skip
from annotation_ui.store.pairs import NewAnswer, complete_pair, fail_pair
from annotation_ui.store.rows import ComparisonRow
from annotation_ui.vocabulary import SLOTS, Pane, Refused, slot_on


class Desk:
    """What annotators do, over a store.

    Args:
        store: where everything is.
        settings: of the app.
        generator: has the variants answer; ``None`` where only pairs sampled before are served.
    """

    def __init__(self, store: Store, settings: AppSettings, generator: Generator | None = None) -> None:
        self.store, self.settings, self.generator = store, settings, generator

    @contextmanager
    def _in(self, annotator_id: str, project: str) -> Iterator[DeskTransaction]:
        """One write of one annotator in a project."""
        with self.store.write() as connection:
            row = projects.project_on_page(connection, project)
            live = self.generator is not None
            yield DeskTransaction.begin(connection, self.settings, annotator_id, row, live=live)

    @contextmanager
    def _about(self, annotator_id: str, comparison_id: str) -> Iterator[tuple[DeskTransaction, ComparisonRow]]:
        """One write about a comparison, which has to be the annotator's own."""
        with self.store.write() as connection:
            comparison = conversations_and_places.own_comparison(connection, annotator_id, checked_id(comparison_id))
            row = projects.project_by_id(connection, comparison.project_id)
            live = self.generator is not None
            yield DeskTransaction.begin(connection, self.settings, annotator_id, row, live=live), comparison

    # -- looking -------------------------------------------------------------------------------------------------

    def view(self, annotator_id: str, project: str | None = None) -> View:
        """What is on the desk; answers that it waits for are being written from now on."""
        view, comparison = self._look(annotator_id, project)
        if comparison is not None and view.phase == "generating" and view.left is None:
            self._start(comparison.pair_id)
            view, comparison = self._look(annotator_id, project)
        if comparison is not None and view.phase == "open" and comparison.first_shown_at is None:
            with self.store.write() as connection:
                conversations_and_places.note_shown(connection, comparison.id)
        return view

    def _look(self, annotator_id: str, project: str | None) -> tuple[View, ComparisonRow | None]:
        """What is on the desk, and the comparison among it."""
        with self.store.read() as connection:
            view = make_view(connection, self.settings, self.generator, annotator_id, project)
            if view.comparison_id is None:
                return view, None
            return view, conversations_and_places.own_comparison(connection, annotator_id, view.comparison_id)

    def being_written(self, annotator_id: str, comparison_id: str) -> tuple[Pane, Pane] | None:
        """The left and the right answer as they stand, from memory; ``None`` once they have ended."""
        if self.generator is None:
            return None
        with self.store.read() as connection:
            comparison = conversations_and_places.own_comparison(connection, annotator_id, checked_id(comparison_id))
        panes = self.generator.peek(comparison.pair_id)
        if panes is None:
            return None
        by_slot = dict(zip(SLOTS, panes, strict=True))
        return by_slot[slot_on("left", comparison.left_slot)], by_slot[slot_on("right", comparison.left_slot)]

    def _after(self, transaction: DeskTransaction, message: str = "") -> View:
        """The view once a write is over, and what to say."""
        view = self.view(transaction.annotator_id, transaction.project.name)
        return replace(view, message=message, level="info") if message else view

    # -- getting something to judge ------------------------------------------------------------------------------

    def accept_warning(self, annotator_id: str, project: str) -> View:
        """Go on after a content warning; it is shown again after leaving, and after as long as a session lasts."""
        with self._in(annotator_id, project) as transaction:
            transaction.put(warned_until=in_minutes(60 * self.settings.accounts.session_hours))
        return self._after(transaction)

    def fetch(self, annotator_id: str, project: str) -> View:
        """The next thing to do: what was left half done, training, the test, else the next item of the queue."""
        with self._in(annotator_id, project) as transaction:
            transaction.check_warned()
            message = transaction.next()
        return self._after(transaction, message)

    def ask(self, annotator_id: str, project: str, text: str, comparison_id: str | None = None) -> View:
        """Send a prompt: the first of a conversation of one's own, or the next turn of the one on the desk.

        Args:
            annotator_id: who.
            project: name.
            text: the prompt.
            comparison_id: what was on the desk when it was written; another tab may have gone on since.

        Raises:
            Refused: it is empty or too long, this is not the moment for a prompt, or it was written about something
                else.
        """
        turn = Message(role="user", content=self._checked_prompt(text))
        with self._in(annotator_id, project) as transaction:
            transaction.check_warned()
            view = make_view(transaction.connection, self.settings, self.generator, annotator_id, project)
            # The page may be behind what is on the desk.
            if not view.may_prompt:
                raise Refused(texts.PROMPT_NOT_NOW)
            if view.comparison_id != comparison_id:
                raise Refused(texts.PROMPT_ELSEWHERE)
            if view.phase == "judged":
                transaction.next_turn(turn)
            else:
                transaction.own_conversation(turn)
        return self._after(transaction)

    def _checked_prompt(self, text: str) -> str:
        longest = self.settings.max_prompt_chars
        if not isinstance(text, str) or not text.strip():
            raise Refused(texts.WRITE_PROMPT)
        if len(text) > longest:
            raise Refused(texts.PROMPT_TOO_LONG.format(length=len(text), most=longest))
        return storable(text).strip()

    def retry(self, annotator_id: str, project: str) -> View:
        """Have the answers written again after a failure."""
        with self._in(annotator_id, project) as transaction:
            place = transaction.place
            if place is None or place.conversation_id is None:
                raise Refused(texts.NOTHING_TO_RETRY)
            pair_id = conversations_and_places.last_comparison(transaction.connection, place.conversation_id).pair_id
            if not pairs.try_again(transaction.connection, pair_id):
                raise Refused(texts.NOTHING_TO_RETRY)
        return self._after(transaction)

    def leave(self, annotator_id: str, project: str) -> View:
        """The way out: what is on the desk goes back to the queue, nothing is recorded."""
        with self._in(annotator_id, project) as transaction:
            gave_back = transaction.clear()
            transaction.put(conversation_id=None, editing=None, warned_until=None)
        return self._after(transaction, texts.LEFT_ITEM if gave_back else texts.LEFT)

    def train(self, annotator_id: str, project: str) -> View:
        """Go through the training examples, for the first time or again."""
        with self._in(annotator_id, project) as transaction:
            transaction.check_warned()
            transaction.check_put_away(from_turn=2)  # a first one goes back to the queue; a later one would be lost
            transaction.clear()
            items = training_and_test.begin_training(transaction.connection, annotator_id, transaction.project)
            transaction.take(items[0], "training")
        return self._after(transaction)

    # -- judging -------------------------------------------------------------------------------------------------

    def submit(self, annotator_id: str, given: Submission) -> View:
        """Save a judgment; it is on disk when this returns.

        Raises:
            Refused: something is missing or wrong, the comparison is not the annotator's, or was judged since.
        """
        with self._about(annotator_id, given.comparison_id) as (transaction, comparison):
            values = values_of(given, comparison.left_slot, ask_safety=transaction.project.ask_safety)
            is_known, message = judgments.is_saved(transaction.connection, comparison, given.submission_id, values), ""
            if not is_known:
                transaction.check_judgeable(comparison)
                sha256 = judgment_values.guidelines_read(
                    transaction.connection, given.guidelines_sha256, transaction.project
                )
                values |= {"guidelines_sha256": sha256}
                judgments.append(transaction.connection, comparison, transaction.project, given.submission_id, values)
                transaction.settle(comparison, "judged")
                message = transaction.move_on(comparison)
        result = texts.SAVED_BEFORE if is_known else texts.SAVED.format(time=now()[11:19])
        return replace(self._after(transaction, f"{result} {message}".strip()), level="saved")

    def skip(
        self,
        annotator_id: str,
        comparison_id: str,
        submission_id: str,
        reason: str,
        note: str = "",
        active_ms: int | None = None,
    ) -> View:
        """Pass over a comparison and say why; it goes to somebody else, and counts as nothing.

        Args:
            annotator_id: who.
            comparison_id: what is passed over.
            submission_id: made by the server for this showing; the same one twice saves once.
            reason: one of ``texts.SKIP_REASONS``.
            note: free text.
            active_ms: time spent with the page in front, milliseconds.
        """
        values = values_of_skip(reason, note, active_ms)
        with self._about(annotator_id, comparison_id) as (transaction, comparison):
            if comparison.kind != "work":
                raise Refused(texts.NO_SKIPPING)
            if judgments.current(transaction.connection, comparison.id) is not None:
                raise Refused(texts.NO_SKIPPING_JUDGED)
            message = ""
            if not judgments.is_saved(transaction.connection, comparison, submission_id, values):
                judgments.append(transaction.connection, comparison, transaction.project, submission_id, values)
                transaction.settle(comparison, "skipped")
                message = transaction.advance()
        result = texts.SKIPPED_FOR.format(reason=texts.SKIP_REASONS[values["skip_reason"]].lower())
        return self._after(transaction, f"{result}. {message}".strip())

    def undo(self, annotator_id: str, comparison_id: str) -> View:
        """Take the last judgment or skip back: its comparison is on the desk again, to be judged anew.

        Asked for twice, it is taken back once.

        Raises:
            Refused: that is not the last one, or its conversation has gone on from it.
        """
        with self._about(annotator_id, comparison_id) as (transaction, comparison):
            recent = judgments.recent(transaction.connection, annotator_id, transaction.project.id, HISTORY)
            last = next((past.id for past in recent if past.kind != "retraction"), None)
            if comparison.state != "open" and last != comparison.id:
                raise Refused(texts.ONLY_LAST)
            if comparison.state != "open":
                transaction.check_last(comparison)
                transaction.take_back(comparison)
                transaction.reopen(comparison)
        return self._after(transaction, texts.TAKEN_BACK)

    def edit(self, annotator_id: str, comparison_id: str) -> View:
        """Put an earlier comparison on the desk with what was said of it, to say something else.

        Raises:
            Refused: it was not judged, or its conversation has gone on from it.
        """
        with self._about(annotator_id, comparison_id) as (transaction, comparison):
            self._check_judged(transaction, comparison, texts.NOTHING_TO_EDIT)
            transaction.check_last(comparison)
            transaction.put(editing=comparison.id)
        return self._after(transaction, texts.EDIT_BEGUN)

    def retract(self, annotator_id: str, comparison_id: str) -> View:
        """Withdraw one's judgment for good; later turns of its conversation are marked in exports."""
        with self._about(annotator_id, comparison_id) as (transaction, comparison):
            self._check_judged(transaction, comparison, texts.NOTHING_TO_WITHDRAW)
            transaction.take_back(comparison)
            transaction.settle(comparison, "skipped")
            transaction.put_away(comparison)
        return self._after(transaction, texts.WITHDRAWN)

    def _check_judged(self, transaction: DeskTransaction, comparison: ComparisonRow, otherwise: str) -> None:
        if comparison.kind != "work" or judgments.current(transaction.connection, comparison.id) is None:
            raise Refused(otherwise)

    # -- answers -------------------------------------------------------------------------------------------------

    def _start(self, pair_id: str) -> None:
        """Have a pair's answers written unless they are there; without variants, that is a failure to be shown."""
        with self.store.read() as connection:
            pair = pairs.pair_by_id(connection, pair_id)
        if pair.state != "generating":
            return
        if self.generator is None:
            self._finished(pair_id, JobOutcome(error=texts.NO_MODEL))
            return
        messages = pairs.load_messages(pair.prompt_json)
        self.generator.start(
            pair_id, messages, seed=pair.seed or 0, finish=lambda outcome: self._finished(pair_id, outcome)
        )

    def _finished(self, pair_id: str, outcome: JobOutcome) -> None:
        """Both answers are on disk before anybody can judge them, or the failure is.

        A job that a stopping server ended is no failure: the pair waits for the next server.
        """
        if outcome.error == texts.SERVER_STOPPED:
            return
        with self.store.write() as connection:
            if pairs.pair_by_id(connection, pair_id).state != "generating":
                return
            if outcome.answers is None or self.generator is None:
                fail_pair(connection, pair_id, outcome.error or texts.NOT_WRITTEN)
                return
            answers = {
                slot: NewAnswer(
                    text=written.text,
                    variant=self.generator.variants[slot].info,
                    seed=written.seed,
                    n_tokens=written.n_tokens,
                    finish_reason=written.finish_reason,
                    generation_ms=written.gen_ms,
                )
                for slot, written in outcome.answers.items()
            }
            complete_pair(connection, pair_id, answers)
