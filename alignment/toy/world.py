"""The toy world: a small English assistant domain in which every question has a known right answer.

Its parts: ``facts`` and ``harm`` (what can be asked), ``wordings`` (how), ``answers`` (what can be said),
``build`` (the files under ``data/toy``). This module names what a dialogue asks for: its ``Intent``. It is
not the judge: nothing here knows how good an answer is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from alignment.data.records import Message
from alignment.toy import wordings
from alignment.toy.facts import ACT_FAMILIES, Fact, fact_index, facts
from alignment.toy.harm import Act, act_index, acts
from alignment.toy.wordings import Split

Kind = Literal["helpfulness", "safety", "borderline"]
SPLITS: tuple[Split, ...] = ("train", "unseen")


@dataclass(frozen=True)
class Intent:
    """What a user wants: a fact or, in family "safety", a harmful act; or ``more`` about a fact."""

    family: str
    entity: str
    more: bool = False

    @property
    def kind(self) -> Kind:
        """What the request is, whatever it looks like."""
        if self.family == "safety":
            return "safety"
        return "borderline" if self.family == "borderline" else "helpfulness"

    @property
    def is_act(self) -> bool:
        """Whether the entity is a verb phrase ("make tea")."""
        return self.family in ACT_FAMILIES or self.family == "safety"

    @property
    def fact(self) -> Fact:
        """The fact asked for; only for harmless intents."""
        return fact_index()[self.family, self.entity]

    @property
    def act(self) -> Act:
        """The act asked for; only for harmful intents."""
        return act_index()[self.entity]


@lru_cache(maxsize=1)
def intents() -> tuple[Intent, ...]:
    """Every intent of a first question: all facts, then all harmful acts."""
    return (
        *(Intent(fact.family, fact.entity) for fact in facts()),
        *(Intent("safety", act.phrase) for act in acts()),
    )


def normalised(text: str) -> str:
    """``text`` in lower case, with single spaces."""
    return " ".join(text.lower().split())


def questions(intent: Intent, split: Split) -> Iterator[str]:
    """All first questions for ``intent`` in the wordings of ``split``."""
    return (wordings.fill(frame, intent.entity) for frame in wordings.frames(intent.family, split))


@lru_cache(maxsize=1)
def _first_questions() -> dict[str, Intent]:
    return {normalised(text): intent for intent in intents() for split in SPLITS for text in questions(intent, split)}


@lru_cache(maxsize=1)
def _follow_ups() -> dict[str, tuple[str, str]]:
    """Follow-up text -> ("more", ""), ("entity", new entity) or ("family", new family)."""
    found: dict[str, tuple[str, str]] = {}
    entities = dict.fromkeys(fact.entity for fact in facts() if fact.family not in ACT_FAMILIES)
    for split in SPLITS:
        found |= {normalised(frame): ("more", "") for frame in wordings.MORE[split]}
        for frame in wordings.OTHER[split]:
            found |= {normalised(wordings.fill(frame, entity)): ("entity", entity) for entity in entities}
        for family, own in wordings.SAME_ENTITY.items():
            found |= {normalised(frame): ("family", family) for frame in own[split]}
    return found


def _resolve(previous: Intent, way: str, what: str) -> Intent | None:
    """The intent of a follow-up, given the intent of the question before it."""
    if way == "more":
        return None if previous.kind == "safety" else replace(previous, more=True)
    family, entity = (previous.family, what) if way == "entity" else (what, previous.entity)
    return Intent(family, entity) if (family, entity) in fact_index() else None


def lookup_texts(texts: Sequence[str]) -> Intent | None:
    """The intent of the last of a dialogue's user texts; ``None`` where the world does not know it."""
    if not texts:
        return None
    text = normalised(texts[-1])
    follow_up = _follow_ups().get(text)
    if follow_up is not None and len(texts) > 1:
        previous = lookup_texts(texts[:-1])
        if previous is not None:
            resolved = _resolve(previous, *follow_up)
            if resolved is not None:
                return resolved
    return _first_questions().get(text)


def lookup(messages: Sequence[Message]) -> Intent | None:
    """What the last user turn of ``messages`` asks for, with earlier turns resolving follow-ups."""
    return lookup_texts([message.content for message in messages if message.role == "user"])
