"""The facts of the toy world: what may be asked, the right answer, and a relevant detail.

A fact is an entity, a short value and one true detail sentence; its family says which sentences may carry
it (``alignment.toy.toy_answers``) and which questions ask for it (``alignment.toy.wordings``). Families in
``ACT_FAMILIES`` answer "how do I ..."; their entity is a verb phrase.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from alignment.toy import tables_home, tables_world

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


def _rows(table: str) -> Iterator[list[str]]:
    for line in table.strip().splitlines():
        yield line.split("|")


def _countries() -> Iterator[Fact]:
    for country, capital, sight, language, hello, continent, neighbour in _rows(tables_world.COUNTRIES):
        yield Fact("capital", country, capital, f"{capital} is known for {sight}.")
        yield Fact("language", country, language, f"In {language}, hello is {hello}.")
        border = f"has a border with {neighbour}" if neighbour else "has the sea all around it"
        yield Fact("continent", country, continent, capitalised(f"{country} {border}."))


def _sums() -> Iterator[Fact]:
    for a in range(1, MAX_SUM):
        for b in range(1, MAX_SUM + 1 - a):
            detail = f"Half of {a + b} is {a}." if a == b else f"{b} plus {a} is also {a + b}."
            yield Fact("sum", f"{a} plus {b}", str(a + b), detail)


@lru_cache(maxsize=1)
def facts() -> tuple[Fact, ...]:
    """All facts, in a fixed order."""
    tables = {
        "food": tables_world.FOODS,
        "home": tables_world.HOMES,
        "young": tables_world.YOUNG,
        "colour": tables_world.COLOURS,
        "opposite": tables_world.OPPOSITES,
        "unit": tables_world.UNITS,
        "definition": tables_home.DEFINITIONS,
        "tool": tables_home.TOOLS,
        "recipe": tables_home.RECIPES,
        "howto": tables_home.HOWTOS,
        "borderline": tables_home.BORDERLINE,
    }
    found = list(_countries())
    for family, table in tables.items():
        found += [Fact(family, entity, value, detail) for entity, value, detail in _rows(table)]
    return (*found, *_sums())


@lru_cache(maxsize=1)
def facts_by_family() -> dict[str, tuple[Fact, ...]]:
    """Family -> its facts."""
    families = dict.fromkeys(fact.family for fact in facts())
    return {family: tuple(fact for fact in facts() if fact.family == family) for family in families}


@lru_cache(maxsize=1)
def fact_index() -> dict[tuple[str, str], Fact]:
    """(family, entity) -> fact."""
    return {(fact.family, fact.entity): fact for fact in facts()}
