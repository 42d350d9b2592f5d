"""Questions of the toy world that are free for a split, follow-up questions among them, and even draws over intents."""

from __future__ import annotations

import random
from collections.abc import Iterable

from alignment.toy.toy_answers import make_answer
from alignment.toy.toy_questions import FollowUp, Intent, intents, make_follow_up, normalised, questions


def intents_of(kind: str) -> list[Intent]:
    """All first-question intents of a kind; dialogues start from harmless ones."""
    if kind == "multi_turn":
        return [intent for intent in intents() if intent.kind != "safety"]
    return [intent for intent in intents() if intent.kind == kind]


def first_answer(first: Intent, follow_up: FollowUp, rng: random.Random) -> str:
    """A right answer to the first question that leaves something to say about it."""
    return make_answer(first, "correct" if follow_up.intent.more or rng.random() < 0.6 else "excellent", rng)


class QuestionPool:
    """Questions in training wordings that keep clear of every held-out text."""

    def __init__(self, held_out: Iterable[str]) -> None:
        """Index the allowed questions of every intent; ``held_out`` are texts in any case and spacing."""
        self._held_out = tuple({normalised(text) for text in held_out})
        self._allowed = {
            intent: [text for text in questions(intent, "train") if self.allows(text)] for intent in intents()
        }

    def allows(self, text: str) -> bool:
        """Whether ``text`` contains no held-out text."""
        low = normalised(text)
        return not any(held_out in low for held_out in self._held_out)

    def questions(self, intent: Intent) -> list[str]:
        """The allowed questions for ``intent``."""
        return self._allowed[intent]

    def ask(self, intent: Intent, rng: random.Random) -> str:
        """One of them."""
        return rng.choice(self._allowed[intent])

    def follow_up(self, first: Intent, rng: random.Random) -> FollowUp:
        """An allowed follow-up to ``first``."""
        while True:
            found = make_follow_up(first, "train", rng)
            if not found.names_entity or self.allows(found.text):
                return found


def spread(kind: str, count: int, rng: random.Random) -> list[Intent]:
    """``count`` intents of a kind, every family in turn and each intent about equally often."""
    families: dict[str, list[Intent]] = {}
    for intent in intents_of(kind):
        families.setdefault(intent.family, []).append(intent)
    decks: dict[str, list[Intent]] = {family: [] for family in families}
    drawn: list[Intent] = []
    while len(drawn) < count:
        for family in rng.sample(sorted(families), k=len(families)):
            if not decks[family]:
                decks[family] = rng.sample(families[family], k=len(families[family]))
            drawn.append(decks[family].pop())
    return drawn[:count]
