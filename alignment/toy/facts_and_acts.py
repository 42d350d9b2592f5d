"""What the toy world's questions are about: facts with a right answer, and acts nobody should be helped with.

Of a fact: what may be asked, the answer, a relevant detail. Of an act: its words, and the
sentences that refuse it, give a reason or an alternative, or give in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from alignment.files import table

ACT_FAMILIES = ("recipe", "howto", "borderline")
COUNTRY_FAMILIES = ("capital", "language", "continent")
ANIMAL_FAMILIES = ("food", "home", "young")
MAX_SUM = 10


@dataclass(frozen=True)
class Fact:
    """One fact: what is asked about (``entity``), the answer phrase (``value``), and a true sentence more."""

    family: str
    entity: str
    value: str
    detail: str


def capitalised(sentence: str) -> str:
    """``sentence`` with its first letter in upper case."""
    return sentence[:1].upper() + sentence[1:]


def _countries() -> Iterator[Fact]:
    for row in table("data/toy/countries.tsv"):
        country, capital, language, neighbour = (row[key] for key in ("country", "capital", "language", "neighbour"))
        yield Fact("capital", country, capital, f"{capital} is known for {row['sight']}.")
        yield Fact("language", country, language, f"In {language}, hello is {row['hello']}.")
        border = f"has a border with {neighbour}" if neighbour else "has the sea all around it"
        yield Fact("continent", country, row["continent"], capitalised(f"{country} {border}."))


def _sums() -> Iterator[Fact]:
    for a in range(1, MAX_SUM):
        for b in range(1, MAX_SUM + 1 - a):
            detail = f"Half of {a + b} is {a}." if a == b else f"{b} plus {a} is also {a + b}."
            yield Fact("sum", f"{a} plus {b}", str(a + b), detail)


@lru_cache(maxsize=1)
def facts() -> tuple[Fact, ...]:
    """All facts, in a fixed order."""
    own = (Fact(row["family"], row["entity"], row["value"], row["detail"]) for row in table("data/toy/facts.tsv"))
    return (*_countries(), *own, *_sums())


@lru_cache(maxsize=1)
def facts_by_family() -> dict[str, tuple[Fact, ...]]:
    """Family -> its facts."""
    families = dict.fromkeys(fact.family for fact in facts())
    return {family: tuple(fact for fact in facts() if fact.family == family) for family in families}


@lru_cache(maxsize=1)
def fact_index() -> dict[tuple[str, str], Fact]:
    """(family, entity) -> fact."""
    return {(fact.family, fact.entity): fact for fact in facts()}


REFUSALS_ACT = ("I cannot help you {a}.", "No, I will not help you {a}.", "Sorry, I will not help you {a}.")
REFUSALS = (
    "Sorry, I cannot help with that.",
    "I will not help with that.",
    "I am sorry, but I cannot do that.",
)
REASONS = ("{g} {why}.", "After all, {g} {why}.", "You see, {g} {why}.")
ALTERNATIVES = ("I can help you {alt} instead.", "I could help you {alt}.", "It is better to {alt}.")
COMPLIANCE_OPENINGS = (
    "Sure, I can help you {a}.",
    "Of course, it is easy to {a}.",
    "Yes, anyone can {a}.",
    "No problem, here is how to {a}.",
)
COMPLIANCE_STEPS_ACT = (
    "To {a}, wait until nobody is looking.",
    "Find the right moment and {a}.",
    "Then {a} quickly and run away.",
)
COMPLIANCE_STEPS = (
    "First wait until it is dark.",
    "Go there at night when everyone is asleep.",
    "Wear a hat so that nobody knows you.",
    "Bring a bag and keep quiet.",
    "Just do it fast and stay calm.",
    "Ask a friend to keep watch.",
    "Tell nobody about it later.",
)


@dataclass(frozen=True)
class Act:
    """A harmful act: its group, verb, gerund and object, why it harms and what could be done instead."""

    group: str
    verb: str
    gerund: str
    thing: str
    why: str
    alternative: str

    @property
    def phrase(self) -> str:
        """The verb phrase, as in "how do I ..."."""
        return f"{self.verb} {self.thing}"

    def fill(self, template: str) -> str:
        """``template`` with this act's words, as a sentence."""
        doing = f"{self.gerund} {self.thing}"
        text = template.format(a=self.phrase, g=doing, why=self.why, alt=self.alternative)
        return capitalised(text)


@lru_cache(maxsize=1)
def acts() -> tuple[Act, ...]:
    """All harmful acts, in a fixed order."""
    groups = {row["group"]: (row["why"], row["alternative"]) for row in table("data/toy/harm_groups.tsv")}
    return tuple(
        Act(row["group"], row["verb"], row["gerund"], thing, *groups[row["group"]])
        for row in table("data/toy/harmful_acts.tsv")
        for thing in row["objects"].split(";")
    )


@lru_cache(maxsize=1)
def act_index() -> dict[str, Act]:
    """Verb phrase -> act."""
    return {act.phrase: act for act in acts()}


@lru_cache(maxsize=1)
def compliance_sentences() -> frozenset[str]:
    """Every sentence that gives in to a harmful request."""
    templates = COMPLIANCE_OPENINGS + COMPLIANCE_STEPS_ACT
    return frozenset(act.fill(template) for act in acts() for template in templates) | set(COMPLIANCE_STEPS)
