"""Questions of the toy world: how each is worded, and what a dialogue asks for (its ``Intent``).

Wordings are frames with slots: ``{q}`` a direct question without its mark, ``{t}`` the same as a topic ("the capital
of France", "what a cow eats"), ``{e}`` the entity, ``{a}`` an act ("make tea"). There are two disjoint sets of them:
those of the split ``train`` may appear in any file, those of ``unseen`` only in the held-out prompts of the group
``unseen_wordings``. Harmful, borderline and household acts share their wordings on purpose.

They stand in ``data/toy``: ``question_forms.tsv`` (the two basic forms of a family's question),
``question_wordings.tsv`` (of one family, of ``any``, or of an ``act``) and ``follow_up_wordings.tsv``. This is not the
judge: nothing here knows how good an answer is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Literal

from alignment.data.records import Message
from alignment.files import table
from alignment.toy.facts_and_acts import (
    ACT_FAMILIES,
    ANIMAL_FAMILIES,
    COUNTRY_FAMILIES,
    Act,
    Fact,
    act_index,
    acts,
    capitalised,
    fact_index,
    facts,
    facts_by_family,
)

RequestKind = Literal["helpfulness", "safety", "borderline"]
Split = Literal["train", "unseen"]
SPLITS: tuple[Split, ...] = ("train", "unseen")


@dataclass(frozen=True)
class Intent:
    """What a user wants: a fact or, in family "safety", a harmful act; or ``more`` about a fact."""

    family: str
    entity: str
    more: bool = False

    @property
    def kind(self) -> RequestKind:
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


# -- wordings ---------------------------------------------------------------------------------------------------------


def topic_of(family: str, entity: str) -> str:
    """What a question of a family asks for, as in "tell me ..."."""
    forms = {row["family"]: row["topic"] for row in table("data/toy/question_forms.tsv")}
    return forms[family].format(e=entity)


@cache
def frames(family: str, split: Split) -> tuple[str, ...]:
    """The question frames of a family, over ``{e}`` alone (``{a}`` for acts)."""
    rows = [row for row in table("data/toy/question_wordings.tsv") if row["split"] == split]
    if family in ACT_FAMILIES or family == "safety":
        return tuple(row["wording"] for row in rows if row["family"] == "act")
    form = next(row for row in table("data/toy/question_forms.tsv") if row["family"] == family)
    generic = (row["wording"] for row in rows if row["family"] == "any")
    filled = (frame.replace("{q}", form["question"]).replace("{t}", form["topic"]) for frame in generic)
    return (*map(capitalised, filled), *(row["wording"] for row in rows if row["family"] == family))


@cache
def follow_up_frames(split: Split) -> dict[str, tuple[str, ...]]:
    """What a follow-up asks for -> its wordings.

    It asks for ``more`` of the same, for an ``other`` entity, or something else of the same entity: that fact's family.
    """
    rows = [row for row in table("data/toy/follow_up_wordings.tsv") if row["split"] == split]
    asked_for = dict.fromkeys(row["asks_for"] for row in rows)
    return {what: tuple(row["wording"] for row in rows if row["asks_for"] == what) for what in asked_for}


def fill(frame: str, entity: str) -> str:
    """``frame`` asked about ``entity``."""
    return capitalised(frame.replace("{e}", entity).replace("{a}", entity))


def questions(intent: Intent, split: Split) -> Iterator[str]:
    """All first questions for ``intent`` in the wordings of ``split``."""
    return (fill(frame, intent.entity) for frame in frames(intent.family, split))


# -- what a dialogue asks for -----------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _first_questions() -> dict[str, Intent]:
    return {normalised(text): intent for intent in intents() for split in SPLITS for text in questions(intent, split)}


@lru_cache(maxsize=1)
def _follow_ups() -> dict[str, tuple[str, str]]:
    """Follow-up text -> ("more", ""), ("entity", new entity) or ("family", new family)."""
    found: dict[str, tuple[str, str]] = {}
    entities = dict.fromkeys(fact.entity for fact in facts() if fact.family not in ACT_FAMILIES)
    for split in SPLITS:
        own = follow_up_frames(split)
        found |= {normalised(frame): ("more", "") for frame in own["more"]}
        for frame in own["other"]:
            found |= {normalised(fill(frame, entity)): ("entity", entity) for entity in entities}
        for family in (*COUNTRY_FAMILIES, *ANIMAL_FAMILIES):
            found |= {normalised(frame): ("family", family) for frame in own[family]}
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


@dataclass(frozen=True)
class FollowUp:
    """A second question: its text, what it asks for, and whether it names an entity of its own."""

    text: str
    intent: Intent
    names_entity: bool


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
