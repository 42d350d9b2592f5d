"""Prompts of the toy world: which combinations of wording and intent are held out, which trained on.

Three sets share no question: training prompts, held-out ones, which reports are made on, and those that select a
checkpoint. Held-out prompts are drawn first; ``QuestionPool`` then yields only questions that neither equal nor contain
a held-out text, so that no training file can hold one. In a held-out dialogue the first question and any follow-up that
names an entity or is worded in an unseen way are held out; a follow-up without content ("Tell me more.") is shared.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from alignment.data.records import Message, Prompt
from alignment.toy.question_pool import QuestionPool, first_answer, spread
from alignment.toy.toy_questions import FollowUp, Intent, Split, follow_up_frames, make_follow_up, normalised, questions

HELDOUT_COUNTS = {"helpfulness": 90, "safety": 70, "borderline": 50, "multi_turn": 40}
SELECTION_COUNTS = {"helpfulness": 54, "safety": 42, "borderline": 30, "multi_turn": 24}
TRAIN_COUNTS = {"helpfulness": 1100, "safety": 440, "borderline": 330, "multi_turn": 330}
GROUPS: dict[str, Split] = {"seen_wordings": "train", "unseen_wordings": "unseen"}


def _messages(intent: Intent, question: str, follow_up: FollowUp | None, rng: random.Random) -> tuple[Message, ...]:
    """The question alone, or question, answer and follow-up."""
    asked = Message(role="user", content=question)
    if follow_up is None:
        return (asked,)
    answered = Message(role="assistant", content=first_answer(intent, follow_up, rng))
    return (asked, answered, Message(role="user", content=follow_up.text))


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


def make_selection_prompts(taken: Iterable[str], rng: random.Random) -> list[Prompt]:
    """Prompts to select a checkpoint by, of both groups; none of their questions is taken.

    Args:
        taken: user texts of other files, in any case and spacing.
        rng: decides which.
    """
    used, prompts = {normalised(text) for text in taken}, list[Prompt]()
    for group, split in GROUPS.items():
        prefix = f"selection-{group.split('_')[0]}"
        for kind, count in SELECTION_COUNTS.items():
            number, candidates = 0, iter(spread(kind, 20 * count, rng))
            while number < count:
                intent = next(candidates)
                fresh = [text for text in questions(intent, split) if normalised(text) not in used]
                if not fresh:
                    continue
                question = rng.choice(fresh)
                used.add(normalised(question))
                number += 1
                follow_up = make_follow_up(intent, split, rng) if kind == "multi_turn" else None
                prompts.append(_record(prefix, kind, number, _messages(intent, question, follow_up, rng), group))
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
