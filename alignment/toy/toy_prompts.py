"""Prompts of the toy world: which combinations of wording and intent are held out, which trained on.

Held-out prompts are drawn first; ``QuestionPool`` then yields only questions that neither equal nor contain a
held-out text, so that no training file can hold one. In a held-out dialogue the first question and any
follow-up that names an entity or is worded in an unseen way are held out; a follow-up without content
("Tell me more.") is shared.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from alignment.data.records import Message, Prompt
from alignment.toy.facts import ACT_FAMILIES, ANIMAL_FAMILIES, COUNTRY_FAMILIES, facts_by_family
from alignment.toy.toy_answers import make_answer
from alignment.toy.toy_questions import Intent, Split, fill, follow_up_frames, intents, normalised, questions

HELDOUT_COUNTS = {"helpfulness": 90, "safety": 70, "borderline": 50, "multi_turn": 40}
TRAIN_COUNTS = {"helpfulness": 1100, "safety": 440, "borderline": 330, "multi_turn": 330}
GROUPS: dict[str, Split] = {"seen_wordings": "train", "unseen_wordings": "unseen"}


@dataclass(frozen=True)
class FollowUp:
    """A second question: its text, what it asks for, and whether it names an entity of its own."""

    text: str
    intent: Intent
    names_entity: bool


def intents_of(kind: str) -> list[Intent]:
    """All first-question intents of a kind; dialogues start from harmless ones."""
    if kind == "multi_turn":
        return [intent for intent in intents() if intent.kind != "safety"]
    return [intent for intent in intents() if intent.kind == kind]


def make_follow_up(first: Intent, split: Split, rng: random.Random) -> FollowUp:
    """A follow-up to ``first``: more about it, another entity, or another question about the same entity."""
    siblings = next((group for group in (COUNTRY_FAMILIES, ANIMAL_FAMILIES) if first.family in group), ())
    ways = ["more"] if first.family in ACT_FAMILIES else ["more", "entity", *(["family"] * 2 if siblings else [])]
    way = rng.choice(ways)
    if way == "more":
        return FollowUp(
            rng.choice(follow_up_frames(split)["more"]), Intent(first.family, first.entity, more=True), False
        )
    if way == "entity":
        others = [fact.entity for fact in facts_by_family()[first.family] if fact.entity != first.entity]
        entity = rng.choice(others)
        text = fill(rng.choice(follow_up_frames(split)["other"]), entity)
        return FollowUp(text, Intent(first.family, entity), True)
    family = rng.choice([sibling for sibling in siblings if sibling != first.family])
    return FollowUp(rng.choice(follow_up_frames(split)[family]), Intent(family, first.entity), False)


def first_answer(first: Intent, follow_up: FollowUp, rng: random.Random) -> str:
    """A right answer to the first question that leaves something to say about it."""
    return make_answer(first, "correct" if follow_up.intent.more or rng.random() < 0.6 else "excellent", rng)


def _messages(intent: Intent, question: str, follow_up: FollowUp | None, rng: random.Random) -> tuple[Message, ...]:
    """The question alone, or question, answer and follow-up."""
    asked = Message(role="user", content=question)
    if follow_up is None:
        return (asked,)
    answered = Message(role="assistant", content=first_answer(intent, follow_up, rng))
    return (asked, answered, Message(role="user", content=follow_up.text))


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


def held_out_texts(prompt: Prompt) -> list[str]:
    """The user texts of a held-out prompt that may stand in no training file."""
    texts = [message.content for message in prompt.messages if message.role == "user"]
    shared = {frame for what, own in follow_up_frames("train").items() if what != "other" for frame in own}
    return [text for text in texts if text not in shared]


def _record(prefix: str, kind: str, number: int, messages: tuple[Message, ...], group: str | None) -> Prompt:
    return Prompt(
        id=f"{prefix}-{kind}-{number:04d}",
        messages=messages,
        dimension="safety" if kind == "safety" else "helpfulness",
        kind=kind,
        group=group,
    )


def make_heldout_prompts(rng: random.Random) -> list[Prompt]:
    """The held-out prompts of both groups; no question occurs twice among them."""
    prompts: list[Prompt] = []
    used: set[str] = set()
    for group, split in GROUPS.items():
        prefix = f"heldout-{group.split('_')[0]}"
        for kind, count in HELDOUT_COUNTS.items():
            for number, intent in enumerate(spread(kind, count, rng), start=1):
                fresh = [text for text in questions(intent, split) if normalised(text) not in used]
                question = rng.choice(fresh)
                used.add(normalised(question))
                follow_up = make_follow_up(intent, split, rng) if kind == "multi_turn" else None
                messages = _messages(intent, question, follow_up, rng)
                prompts.append(_record(prefix, kind, number, messages, group))
    return prompts


def make_train_prompts(pool: QuestionPool, rng: random.Random) -> list[Prompt]:
    """The training prompts, every user text sequence once."""
    prompts: list[Prompt] = []
    used: set[tuple[str, ...]] = set()
    for kind, count in TRAIN_COUNTS.items():
        number = 0
        candidates = iter(spread(kind, 3 * count, rng))
        while number < count:
            intent = next(candidates)
            question = pool.ask(intent, rng)
            follow_up = pool.follow_up(intent, rng) if kind == "multi_turn" else None
            messages = _messages(intent, question, follow_up, rng)
            key = tuple(normalised(message.content) for message in messages if message.role == "user")
            if key not in used:
                used.add(key)
                number += 1
                prompts.append(_record("train", kind, number, messages, None))
    return prompts
