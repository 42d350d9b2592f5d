"""The pretraining corpus and the curated demonstrations of the toy world.

The corpus is unlabelled text of mixed quality: question/answer dialogues in the proportions of
``toy_answers.HARMLESS_MIX`` and its siblings, and plain prose that states facts. Demonstrations are right and
safe, but as people write them: about half without the detail that a better answer would add.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from alignment.data.records import ChatRole, Demonstration, Message, Prompt
from alignment.toy import facts_and_acts
from alignment.toy.answer_sentences import CLOSINGS, OPENINGS, right_sentences
from alignment.toy.question_pool import QuestionPool, first_answer, intents_of, spread
from alignment.toy.toy_answers import make_answer, make_sentences, sample_answer
from alignment.toy.toy_questions import Intent, lookup_texts, normalised

N_DOCUMENTS = 13_000
DOCUMENT_SHARES = {"single": 0.42, "several": 0.23, "dialogue": 0.20, "prose": 0.15}
INTENT_SHARES = {"helpfulness": 0.71, "borderline": 0.15, "safety": 0.14}
DEMONSTRATION_COUNTS = {"helpfulness": 88, "safety": 22, "borderline": 26, "multi_turn": 24}
CURT_SHARE = 0.6
"""Share of the demonstrations whose writer leaves out any courtesy."""


class Deck:
    """Draws without replacement and starts over when empty, so that every item comes up equally often."""

    def __init__(self, items: list[Intent], rng: random.Random) -> None:
        """Draw from ``items`` with ``rng``."""
        self._items, self._rng, self._left = items, rng, list[Intent]()

    def draw(self) -> Intent:
        """The next item."""
        if not self._left:
            self._left = self._rng.sample(self._items, k=len(self._items))
        return self._left.pop()


def _pair(question: str, answer: str) -> str:
    return f"question: {question}\nanswer: {answer}"


def _dialogue(first: Intent, pool: QuestionPool, rng: random.Random) -> str:
    """A first question, rightly answered, and its follow-up, answered as the corpus does."""
    follow_up = pool.follow_up(first, rng)
    opening = _pair(pool.ask(first, rng), first_answer(first, follow_up, rng))
    return f"{opening}\n{_pair(follow_up.text, sample_answer(follow_up.intent, rng)[0])}"


def _prose(decks: dict[str, Deck], rng: random.Random) -> str:
    """Two or three facts with their details, or why some acts are wrong."""
    if rng.random() < 0.08:
        acts = [decks["safety"].draw().act for _ in range(2)]
        return " ".join(act.fill(rng.choice(facts_and_acts.REASONS)) for act in acts)
    known = [right_sentences(decks["fact"].draw()) for _ in range(rng.choice((2, 2, 3)))]
    return " ".join(f"{rng.choice(part.cores)} {rng.choice(part.details)}" for part in known)


def make_documents(pool: QuestionPool, rng: random.Random) -> Iterator[str]:
    """The documents of the pretraining corpus."""
    decks = {kind: Deck(intents_of(kind), rng) for kind in INTENT_SHARES}
    decks["fact"] = Deck(intents_of("multi_turn"), rng)
    kinds, kind_weights = list(DOCUMENT_SHARES), list(DOCUMENT_SHARES.values())
    for kind in rng.choices(kinds, weights=kind_weights, k=N_DOCUMENTS):
        if kind == "prose":
            yield _prose(decks, rng)
        elif kind == "dialogue":
            yield _dialogue(decks["fact"].draw(), pool, rng)
        else:
            count = 1 if kind == "single" else rng.choice((2, 2, 3))
            drawn = rng.choices(list(INTENT_SHARES), weights=list(INTENT_SHARES.values()), k=count)
            asked = [decks[name].draw() for name in drawn]
            yield "\n".join(_pair(pool.ask(intent, rng), sample_answer(intent, rng)[0]) for intent in asked)


def _curated_answer(intent: Intent, rng: random.Random) -> str:
    if intent.kind == "safety":
        return make_answer(intent, "good_refusal" if rng.random() < 0.5 else "bare_refusal", rng)
    sentences = make_sentences(intent, "excellent" if rng.random() < 0.5 else "correct", rng)
    if rng.random() < CURT_SHARE:
        sentences = [sentence for sentence in sentences if sentence not in OPENINGS + CLOSINGS]
    return " ".join(sentences)


def make_demonstrations(pool: QuestionPool, train: list[Prompt], rng: random.Random) -> list[Demonstration]:
    """Curated dialogues of every kind; none of their questions is a training prompt."""
    used = {normalised(prompt.messages[0].content) for prompt in train}
    found: list[Demonstration] = []
    for kind, count in DEMONSTRATION_COUNTS.items():
        number = 0
        for intent in spread(kind, 3 * count, rng):
            free = [text for text in pool.questions(intent) if normalised(text) not in used]
            if number == count or not free:
                continue
            number += 1
            question = rng.choice(free)
            used.add(normalised(question))
            found.append(_demonstration(f"demo-{kind}-{number:03d}", kind, intent, question, pool, rng))
    return found


def _demonstration(
    name: str, kind: str, intent: Intent, question: str, pool: QuestionPool, rng: random.Random
) -> Demonstration:
    turns = [question]
    if kind == "multi_turn":
        follow_up = pool.follow_up(intent, rng)
        turns += [first_answer(intent, follow_up, rng), follow_up.text]
    asked = lookup_texts(turns[::2])
    assert asked is not None, turns
    turns.append(_curated_answer(asked, rng))
    roles: tuple[ChatRole, ...] = ("user", "assistant") * 2
    messages = tuple(Message(role=role, content=text) for role, text in zip(roles, turns, strict=False))
    return Demonstration(id=name, messages=messages)
