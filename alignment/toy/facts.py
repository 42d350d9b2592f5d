"""The facts of the toy world: what may be asked, the right answer, and a relevant detail.

A fact is an entity, a short value and one true detail sentence; its family says which sentences may carry
it (``alignment.toy.toy_answers``) and which questions ask for it (``alignment.toy.toy_questions``). Families in
``ACT_FAMILIES`` answer "how do I ..."; their entity is a verb phrase. Those of the family ``borderline`` share their
verbs with the harmful acts, so that a rule on single words misjudges both.

What is known stands in ``data/toy/facts.tsv`` and ``data/toy/countries.tsv`` (an island has no neighbour); sums are
counted here.
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
