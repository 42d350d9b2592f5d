"""Simulated annotators at the app's own desk: the toy world's six people judge a queue as anybody would.

They do what the page does, through the same methods: fetch, read what stands on the left and on the right, judge, skip.
So the store, the quality report and the export see thousands of judgments. They know the toy world only, and pass over
whatever is not of it. They do not take the test before work: it is waived, with ``simulated`` as the reason.

The same person says the same of the same answers on the same sides, given the same seed. Sides and gold items are drawn
by the app, so that two simulations of one queue are not equal.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from alignment.data.readers import load_prompts
from alignment.data.records import SAFETY_LABELS, Dimension, Message, Prompt, SafetyBin
from alignment.data.splits import dialogue_key
from alignment.errors import UserError
from alignment.files import resource
from alignment.toy.simulated_annotators import ANNOTATORS, Annotator, SimulatedOpinion, compare
from alignment.toy.toy_answers import sample_answer
from alignment.toy.toy_questions import lookup
from annotation_ui import vocabulary
from annotation_ui.answers.generation import Generator
from annotation_ui.app_settings import AppSettings
from annotation_ui.desk import training_and_test
from annotation_ui.desk.desk import Desk
from annotation_ui.desk.view import View
from annotation_ui.store import accounts
from annotation_ui.store.database import Store
from annotation_ui.store.items import NewItem
from annotation_ui.store.judgment_values import Submission
from annotation_ui.store.pairs import NewAnswer, VariantInfo
from annotation_ui.store.projects import project_named
from annotation_ui.vocabulary import Refused, option_of

WAIVED_BY = "simulated"
LOOK_EVERY_SECONDS = 0.02
"""While answers are being written."""

_NOTES = ("Hard to tell.", "Both say nearly the same.", "The other one is more polite.", "Not sure about the facts.")
_NOTE_SHARE, _FLAG_SHARE, _KEYBOARD_SHARE = 0.03, 0.02, 0.8
_HARMFUL_SHARE = 0.6
_SECONDS, _SECONDS_PER_WORD, _SPREAD = 2.5, 0.25, 0.4
"""Active time: a decision, reading at 240 words a minute, and a log-normal spread."""


@dataclass
class SimulatedWork:
    """What a simulation did: judgments by user name, items passed over, and how long it took."""

    judged: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    seconds: float = 0.0

    @property
    def n(self) -> int:
        """All judgments."""
        return sum(self.judged.values())

    @property
    def per_second(self) -> float:
        """Judgments a second."""
        return self.n / self.seconds if self.seconds else 0.0


def simulate(
    store: Store,
    settings: AppSettings,
    project: str,
    *,
    count: int | None = None,
    annotators: Sequence[str] = (),
    seed: int = 0,
    generator: Generator | None = None,
) -> SimulatedWork:
    """Have simulated annotators judge a project's queue, in turn, one item each.

    Args:
        store: where the project is.
        settings: of the app.
        project: its name.
        count: judgments to make; default: until the queue has nothing more for any of them.
        annotators: who judges, by their names in the toy world; default: all of them.
        seed: of what they perceive, and how long they take.
        generator: answers prompts that have no answers yet; without it, these stay in the queue.

    Raises:
        UserError: there is no such project or annotator, it has no queue, or a model fails to answer.
    """
    desk = Desk(store, settings, generator)
    people = [_DeskOfOne(desk, project, person, _account(desk, project, person), seed) for person in _who(annotators)]
    work = SimulatedWork(dict.fromkeys((person.username for person in people), 0))
    begun, went_on = time.monotonic(), True
    # one item each in turn, until nobody has one left or enough is judged
    while went_on:
        went_on = False
        for person in people:
            if count is not None and work.n >= count:
                break
            outcome = person.say()
            went_on |= outcome is not None
            work.judged[person.username] += outcome == "judged"
            work.skipped += outcome == "skipped"
    work.seconds = time.monotonic() - begun
    # nothing stays on anybody's desk
    for person in people:
        person.leave()
    return work


def _who(names: Sequence[str]) -> list[Annotator]:
    known = {person.id: person for person in ANNOTATORS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"no simulated annotator is called {unknown[0]!r}; there are: {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names or known)]


def _account(desk: Desk, project: str, person: Annotator) -> accounts.Account:
    """The account of a simulated annotator, who need not take the project's test; made where there is none."""
    store, name = desk.store, vocabulary.SIMULATED + person.id
    with store.read() as connection:
        row = project_named(connection, project)
        if row.mode == "free":
            raise UserError(f"project {project} has no queue (mode: free), and simulated annotators write no prompts")
        there = name in {account.username for account in accounts.all_accounts(connection)}
    if not there:
        accounts.add_account(store, name, "annotator", secrets.token_urlsafe(24))
    with store.write() as connection:
        account = accounts.find(connection, name)
        if not training_and_test.is_prepared(connection, desk.settings.qualification, account.id, row):
            training_and_test.waive(connection, account.id, row, WAIVED_BY)
    return account


class _DeskOfOne:
    """A simulated annotator at the desk."""

    def __init__(self, desk: Desk, project: str, annotator: Annotator, account: accounts.Account, seed: int) -> None:
        self.desk, self.project, self.annotator, self.seed = desk, project, annotator, seed
        self.id, self.username = account.id, account.username
        self.view: View | None = None

    def say(self) -> Literal["judged", "skipped"] | None:
        """Judge or pass over the next item; ``None`` where there is none."""
        view = self._next()
        if view.phase != "open":
            return None
        assert view.left is not None and view.right is not None and view.comparison_id and view.submission_id
        # what they see decides what they think: the same person says the same of the same answers
        messages = (*view.past, Message(role="user", content=view.prompt))
        seen = (self.seed, self.annotator.id, dialogue_key(messages), view.left.text, view.right.text)
        rng = random.Random("/".join(map(str, seen)))
        opinion = self._opinion(view, messages, rng)
        active_ms = _active_ms(view, rng)
        # nothing to say: skip it
        if opinion is None:
            reason = "both_equal" if lookup(messages) else "no_expertise"
            self.view = self.desk.skip(self.id, view.comparison_id, view.submission_id, reason, active_ms=active_ms)
            return "skipped"
        # a judgment, now and then with a note or a flag
        submission = Submission(
            comparison_id=view.comparison_id,
            submission_id=view.submission_id,
            option=option_of(opinion.choice, opinion.grade),
            safety=opinion.safety,
            note=rng.choice(_NOTES) if rng.random() < _NOTE_SHARE else "",
            flagged=rng.random() < _FLAG_SHARE,
            active_ms=active_ms,
            input_method="keyboard" if rng.random() < _KEYBOARD_SHARE else "mouse",
        )
        self.view = self.desk.submit(self.id, submission)
        return "judged"

    def leave(self) -> None:
        """Give an item that is still on the desk back to the queue."""
        if self.view is not None and self.view.phase == "open":
            self.view = self.desk.leave(self.id, self.project)

    def _next(self) -> View:
        """The view with the next thing to judge, or with nothing."""
        view = self.view if self.view is not None and self.view.phase == "open" else self._look()
        if view.phase == "warning":
            view = self.desk.accept_warning(self.id, self.project)
        if view.may_fetch and view.phase in ("idle", "judged"):
            view = self.desk.fetch(self.id, self.project)
        while view.phase == "generating":
            time.sleep(LOOK_EVERY_SECONDS)
            view = self._look()
        if view.phase == "failed":
            raise UserError(f"{view.prompt[:80]!r} got no answers. {view.message}")
        return view

    def _look(self) -> View:
        try:
            return self.desk.view(self.id, self.project)
        except Refused as error:
            raise UserError(f"{self.username}: {error}") from error

    def _opinion(self, view: View, messages: Sequence[Message], rng: random.Random) -> SimulatedOpinion | None:
        """What they think of the answers; ``None`` where these are equal or the prompt is not of the toy world."""
        if lookup(messages) is None:
            return None
        assert view.left is not None and view.right is not None
        prompt = Prompt(id="shown", messages=tuple(messages), dimension=view.dimension)
        answers = (prompt, view.left.text, view.right.text)
        opinion = compare(self.annotator, *answers, dimension=view.dimension, rng=rng)
        if opinion is None:
            return None
        if not view.asks_safety:
            return SimulatedOpinion(opinion.choice, opinion.grade)
        about_safety = opinion if opinion.safety else compare(self.annotator, *answers, dimension="safety", rng=rng)
        assert about_safety is not None
        return SimulatedOpinion(opinion.choice, opinion.grade, _bin_of(opinion, about_safety))


def _bin_of(opinion: SimulatedOpinion, about_safety: SimulatedOpinion) -> SafetyBin:
    """The safety bin of a choice, from what was said of both answers when safety was what they were compared by."""
    assert about_safety.safety is not None
    labels = SAFETY_LABELS[about_safety.safety]
    if opinion.choice != about_safety.choice:
        labels = labels[::-1]
    return next(name for name, known in SAFETY_LABELS.items() if known == labels)


def _active_ms(view: View, rng: random.Random) -> int:
    assert view.left is not None and view.right is not None
    words = sum(len(text.split()) for text in (view.prompt, view.left.text, view.right.text))
    return int(1000 * (_SECONDS + _SECONDS_PER_WORD * words) * rng.lognormvariate(0, _SPREAD))


def toy_pairs(count: int, dimension: Dimension, *, seed: int = 0) -> list[NewItem]:
    """Pairs to be judged, without a model: prompts of the toy world with answers such as its corpus has.

    Args:
        count: how many.
        dimension: of the project; for safety, some three in five of the prompts ask for harm, for helpfulness none.
        seed: of prompts and answers.
    """
    rng = random.Random(f"{seed}/{dimension}")
    prompts, _ = load_prompts(str(resource("data/toy/prompts.jsonl")))
    harmful = [prompt for prompt in prompts if prompt.dimension == "safety"]
    harmless = [prompt for prompt in prompts if prompt.dimension != "safety"]
    items = []
    for number in range(count):
        prompt = rng.choice(harmful if dimension == "safety" and rng.random() < _HARMFUL_SHARE else harmless)
        answers = _toy_answers(prompt, rng)
        items.append(NewItem(f"toy-{seed}-{number:05d}", prompt.messages, answers=answers, kind=prompt.kind))
    return items


def _toy_answers(prompt: Prompt, rng: random.Random) -> dict[Literal["a", "b"], NewAnswer]:
    intent = lookup(prompt.messages)
    assert intent is not None, prompt.id
    first = second = sample_answer(intent, rng)[0]
    while second == first:
        second = sample_answer(intent, rng)[0]
    return {
        "a": NewAnswer(first, VariantInfo("toy-first"), finish_reason="stop"),
        "b": NewAnswer(second, VariantInfo("toy-second"), finish_reason="stop"),
    }
