"""The annotator's desk: each thing that somebody can do is one method, one transaction, and a new view.

The desk trusts nobody: whose comparison it is, what phase it is in and every value are checked here, whoever calls.
What is on the desk is in the store alone, so that a reload, a second browser or a crash comes back to the same pair
on the same sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from alignment.data.records import Message
from annotation_ui.answers.generation import STOPPED, Generator, Outcome
from annotation_ui.app_settings import AppSettings
from annotation_ui.desk import preparation
from annotation_ui.desk.transaction import Steps
from annotation_ui.desk.view import Pane, View
from annotation_ui.desk.view_maker import HISTORY, make_view
from annotation_ui.store import conversations, judgments, pairs, projects
from annotation_ui.store.database import Store, in_minutes, now
from annotation_ui.store.pairs import NewAnswer, complete_pair, fail_pair
from annotation_ui.vocabulary import SKIP_REASONS, SLOTS, Refused, Submission, slot_on, storable


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
    def _in(self, annotator_id: str, project: str) -> Iterator[Steps]:
        """One write of one annotator in a project."""
        with self.store.write() as connection:
            live = self.generator is not None
            yield Steps.begin(connection, self.settings, annotator_id, project, live=live)

    @contextmanager
    def _about(self, annotator_id: str, comparison_id: str) -> Iterator[tuple[Steps, Any]]:
        """One write about a comparison, which has to be the annotator's own."""
        with self.store.write() as connection:
            shown = conversations.own_comparison(connection, annotator_id, judgments.checked_id(comparison_id))
            row = projects.project_by_id(connection, shown.project_id)
            live = self.generator is not None
            yield Steps.begin(connection, self.settings, annotator_id, row, live=live), shown

    # -- looking -------------------------------------------------------------------------------------------------

    def view(self, annotator_id: str, project: str | None = None) -> View:
        """What is on the desk; answers that it waits for are being written from now on."""
        view, shown = self._look(annotator_id, project)
        if shown is not None and view.phase == "generating" and view.left is None:
            self._start(shown.pair_id)
            view, shown = self._look(annotator_id, project)
        if shown is not None and view.phase == "open" and shown.first_shown_at is None:
            with self.store.write() as connection:
                conversations.note_shown(connection, shown.id)
        return view

    def _look(self, annotator_id: str, project: str | None) -> tuple[View, Any | None]:
        """What is on the desk, and the comparison among it."""
        with self.store.read() as connection:
            view = make_view(connection, self.settings, self.generator, annotator_id, project)
            if view.comparison_id is None:
                return view, None
            return view, conversations.own_comparison(connection, annotator_id, view.comparison_id)

    def being_written(self, annotator_id: str, comparison_id: str) -> tuple[Pane, Pane] | None:
        """The left and the right answer as they stand, from memory; ``None`` once they have ended."""
        if self.generator is None:
            return None
        with self.store.read() as connection:
            shown = conversations.own_comparison(connection, annotator_id, judgments.checked_id(comparison_id))
        panes = self.generator.peek(shown.pair_id)
        if panes is None:
            return None
        by_slot = dict(zip(SLOTS, panes, strict=True))
        return by_slot[slot_on("left", shown.left_slot)], by_slot[slot_on("right", shown.left_slot)]

    def _after(self, steps: Steps, message: str = "") -> View:
        """The view once a write is over, and what to say."""
        view = self.view(steps.annotator_id, steps.project.name)
        return replace(view, message=message, level="info") if message else view

    # -- getting something to judge ------------------------------------------------------------------------------

    def accept_warning(self, annotator_id: str, project: str) -> View:
        """Go on after a content warning; it is shown again after leaving, and after as long as a session lasts."""
        with self._in(annotator_id, project) as steps:
            steps.put(warned_until=in_minutes(60 * self.settings.accounts.session_hours))
        return self._after(steps)

    def fetch(self, annotator_id: str, project: str) -> View:
        """The next thing to do: what was left half done, training, the test, else the next item of the queue."""
        with self._in(annotator_id, project) as steps:
            steps.check_warned()
            message = steps.next()
        return self._after(steps, message)

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
        with self._in(annotator_id, project) as steps:
            steps.check_warned()
            view = make_view(steps.connection, self.settings, self.generator, annotator_id, project)
            if not view.may_prompt:
                raise Refused("A prompt cannot be sent now. Judge the answers first, or take the next item.")
            if view.comparison_id != comparison_id:
                raise Refused("You went on to something else in another tab. Your prompt was not sent.")
            if view.phase == "judged":
                steps.next_turn(turn)
            else:
                steps.own_conversation(turn)
        return self._after(steps)

    def _checked_prompt(self, text: str) -> str:
        longest = self.settings.max_prompt_chars
        if not isinstance(text, str) or not text.strip():
            raise Refused("Write a prompt first.")
        if len(text) > longest:
            raise Refused(f"The prompt has {len(text)} characters; at most {longest} fit.")
        return storable(text).strip()

    def retry(self, annotator_id: str, project: str) -> View:
        """Have the answers written again after a failure."""
        with self._in(annotator_id, project) as steps:
            place = steps.place
            if place is None or place.conversation_id is None:
                raise Refused("There is nothing to try again.")
            pair_id = conversations.last_comparison(steps.connection, place.conversation_id).pair_id
            if not pairs.try_again(steps.connection, pair_id):
                raise Refused("There is nothing to try again.")
        return self._after(steps)

    def leave(self, annotator_id: str, project: str) -> View:
        """The way out: what is on the desk goes back to the queue, nothing is recorded."""
        with self._in(annotator_id, project) as steps:
            gave_back = steps.clear()
            steps.put(conversation_id=None, editing=None, warned_until=None)
        message = "You have left. Nothing was recorded of the last item." if gave_back else "You have left."
        return self._after(steps, message)

    def train(self, annotator_id: str, project: str) -> View:
        """Go through the training examples, for the first time or again."""
        with self._in(annotator_id, project) as steps:
            steps.check_warned()
            steps.check_put_away(from_turn=2)  # a first one goes back to the queue; a later one would be lost
            steps.clear()
            items = preparation.begin_training(steps.connection, annotator_id, steps.project)
            steps.take(items[0], "training")
        return self._after(steps)

    # -- judging -------------------------------------------------------------------------------------------------

    def submit(self, annotator_id: str, given: Submission) -> View:
        """Save a judgment; it is on disk when this returns.

        Raises:
            Refused: something is missing or wrong, the comparison is not the annotator's, or was judged since.
        """
        with self._about(annotator_id, given.comparison_id) as (steps, shown):
            values = judgments.values_of(given, shown.left_slot, ask_safety=steps.project.ask_safety)
            again, message = judgments.is_saved(steps.connection, shown, given.submission_id, values), ""
            if not again:
                steps.check_judgeable(shown)
                read = judgments.guidelines_shown(steps.connection, given.guidelines_sha256, steps.project)
                values |= {"guidelines_sha256": read}
                judgments.append(steps.connection, shown, steps.project, given.submission_id, values)
                steps.settle(shown, "judged")
                message = steps.move_on(shown)
        said = "Already saved." if again else f"Saved {now()[11:19]} UTC."
        return replace(self._after(steps, f"{said} {message}".strip()), level="saved")

    def skip(
        self,
        annotator_id: str,
        comparison_id: str,
        submission_id: str,
        reason: str,
        note: str = "",
        active_ms: int | None = None,
    ) -> View:
        """Pass over a comparison and say why; it goes to somebody else, and counts as nothing."""
        values = judgments.values_of_skip(reason, note, active_ms)
        with self._about(annotator_id, comparison_id) as (steps, shown):
            if shown.kind != "work":
                raise Refused("Training examples and test questions cannot be skipped.")
            if judgments.current(steps.connection, shown.id) is not None:
                raise Refused("This comparison is judged. Take the judgment back first (U).")
            message = ""
            if not judgments.is_saved(steps.connection, shown, submission_id, values):
                judgments.append(steps.connection, shown, steps.project, submission_id, values)
                steps.settle(shown, "skipped")
                message = steps.advance()
        said = f"Skipped: {SKIP_REASONS[values['skip_reason']].lower()}."
        return self._after(steps, f"{said} {message}".strip())

    def undo(self, annotator_id: str, comparison_id: str) -> View:
        """Take the last judgment or skip back: its comparison is on the desk again, to be judged anew.

        Asked for twice, it is taken back once.

        Raises:
            Refused: that is not the last one, or its conversation has gone on from it.
        """
        with self._about(annotator_id, comparison_id) as (steps, shown):
            recent = judgments.recent(steps.connection, annotator_id, steps.project.id, HISTORY)
            last = next((said.id for said in recent if said.kind != "retraction"), None)
            if shown.state != "open" and last != shown.id:
                raise Refused("Only what you said last can be taken back.")
            if shown.state != "open":
                steps.check_last(shown)
                steps.take_back(shown)
                steps.reopen(shown)
        return self._after(steps, "Taken back. Judge it again.")

    def edit(self, annotator_id: str, comparison_id: str) -> View:
        """Put an earlier comparison on the desk with what was said of it, to say something else.

        Raises:
            Refused: it was not judged, or its conversation has gone on from it.
        """
        with self._about(annotator_id, comparison_id) as (steps, shown):
            self._check_judged(steps, shown, "edit")
            steps.check_last(shown)
            steps.put(editing=shown.id)
        message = "Editing an earlier judgment. N leaves it as it was."
        return self._after(steps, message)

    def retract(self, annotator_id: str, comparison_id: str) -> View:
        """Withdraw one's judgment for good; later turns of its conversation are marked in exports."""
        with self._about(annotator_id, comparison_id) as (steps, shown):
            self._check_judged(steps, shown, "withdraw")
            steps.take_back(shown)
            steps.settle(shown, "skipped")
            steps.put_away(shown)
        message = "Withdrawn. It is in no export from now on."
        return self._after(steps, message)

    def _check_judged(self, steps: Steps, shown: Any, verb: str) -> None:
        if shown.kind != "work" or judgments.current(steps.connection, shown.id) is None:
            raise Refused(f"That comparison is not judged, so there is nothing to {verb}.")

    # -- answers -------------------------------------------------------------------------------------------------

    def _start(self, pair_id: str) -> None:
        """Have a pair's answers written unless they are there; without variants, that is a failure to be shown."""
        with self.store.read() as connection:
            row = pairs.pair_row(connection, pair_id)
        if row.state != "generating":
            return
        if self.generator is None:
            self._finished(pair_id, Outcome(error="No model is there to answer."))
            return
        messages = pairs.prompt_of(row)
        self.generator.start(pair_id, messages, seed=row.seed or 0, finish=lambda found: self._finished(pair_id, found))

    def _finished(self, pair_id: str, outcome: Outcome) -> None:
        """Both answers are on disk before anybody can judge them, or the failure is.

        A job that a stopping server ended is no failure: the pair waits for the next server.
        """
        if outcome.error == STOPPED:
            return
        with self.store.write() as connection:
            if pairs.pair_row(connection, pair_id).state != "generating":
                return
            if outcome.answers is None or self.generator is None:
                fail_pair(connection, pair_id, outcome.error or "The answers could not be written.")
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
