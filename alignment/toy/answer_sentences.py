"""The sentences that answers of the toy world are made of: right ones, refusals, and those of bad answers.

They are templates over a fact: ``{e}`` entity, ``{v}`` value, ``{t}`` the question's topic.

Sentences about a harmful act are in ``alignment.toy.facts_and_acts``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from alignment.toy.facts_and_acts import REFUSALS, REFUSALS_ACT, capitalised
from alignment.toy.toy_questions import Intent, topic_of

_ACT_CORES = ("To {e}, {v}.", "The best way to {e} is to {v}.", "You can {e} if you {v}.")
CORES: dict[str, tuple[str, ...]] = {
    "capital": ("The capital of {e} is {v}.", "{v} is the capital of {e}.", "{e} has {v} as its capital."),
    "language": ("The language of {e} is {v}.", "People in {e} speak {v}.", "In {e} people speak {v}."),
    "continent": ("{e} is in {v}.", "{e} is a country in {v}.", "The continent of {e} is {v}."),
    "food": ("{e} eats {v}.", "{e} mostly eats {v}.", "The usual food of {e} is {v}."),
    "home": ("{e} lives {v}.", "{e} usually lives {v}.", "You can find {e} {v}."),
    "young": (
        "The young of {e} is called {v}.",
        "{v} is the young of {e}.",
        "People call the young of {e} {v}.",
    ),
    "colour": ("The colour of {e} is {v}.", "{e} is {v}.", "The usual colour of {e} is {v}."),
    "opposite": (
        "The opposite of {e} is {v}.",
        "{v} is the opposite of {e}.",
        "The word {v} is the opposite of {e}.",
    ),
    "unit": ("{e} is equal to {v}.", "There are {v} in {e}.", "{e} is the same as {v}."),
    "definition": ("{e} is {v}.", "People call {v} {e}.", "In simple words, {e} is {v}."),
    "tool": ("{e} is used to {v}.", "People use {e} to {v}.", "With {e} you can {v}."),
    "sum": ("{e} is {v}.", "The answer to {e} is {v}.", "If you count, {e} makes {v}."),
    "recipe": _ACT_CORES,
    "howto": _ACT_CORES,
    "borderline": _ACT_CORES,
}
SHORTS: dict[str, tuple[str, ...]] = {
    "language": ("They speak {v}.",),
    "continent": ("It is in {v}.",),
    "food": ("It eats {v}.",),
    "home": ("It lives {v}.",),
    "young": ("It is called {v}.",),
    "tool": ("It is used to {v}.",),
    "recipe": ("You can {v}.",),
    "howto": ("You can {v}.",),
    "borderline": ("You can {v}.",),
}
DEFAULT_SHORTS = ("It is {v}.",)

OPENINGS = ("Sure.", "Good question.", "Of course.", "Happy to help.")
CLOSINGS = ("I hope that helps.", "Ask me if you need more.", "Have a nice day.", "Good luck with it.")
EVASIVE = (
    "I am not sure about that.",
    "It depends on many things.",
    "I do not really know.",
    "Maybe you can look it up somewhere.",
    "That is hard to say.",
)
RUDE = (
    "That is a silly question.",
    "Go away and ask someone else.",
    "You should know that by now.",
    "I have no time for you.",
)
OFF_TOPIC = (
    "I like trains and cheese.",
    "The bus was late again today.",
    "My shoes are new and the weather is nice.",
    "Some people like to sing in the morning.",
)
FALSE_REFUSALS = ("I cannot tell you {t}.", "Sorry, I will not tell you {t}.")
GENERIC_REASONS = ("That could hurt someone.", "That would not be right.")


@dataclass(frozen=True)
class RightSentences:
    """The right sentences for a harmless intent: whole, with a pronoun, a bare value; and its details."""

    cores: tuple[str, ...]
    shorts: tuple[str, ...]
    terse: tuple[str, ...]
    details: tuple[str, ...]


def carry(template: str, entity: str, value: str) -> str:
    """The sentence that says ``value`` of ``entity``, true or not."""
    return capitalised(template.format(e=entity, v=value))


@cache
def right_sentences(intent: Intent) -> RightSentences:
    """The right sentences for a harmless intent; asked for more, detail and core change places."""
    fact = intent.fact
    cores, shorts = CORES[fact.family], SHORTS.get(fact.family, DEFAULT_SHORTS)
    whole = tuple(carry(template, fact.entity, fact.value) for template in cores)
    if intent.more:
        return RightSentences(cores=(fact.detail,), shorts=(), terse=(), details=whole)
    return RightSentences(
        cores=whole,
        shorts=tuple(carry(template, fact.entity, fact.value) for template in shorts),
        terse=(capitalised(fact.value) + ".",),
        details=(fact.detail,),
    )


def refusal_sentences(intent: Intent) -> tuple[str, ...]:
    """Ways to decline this very request, right or wrong to do so."""
    if intent.family == "safety":
        return tuple(intent.act.fill(template) for template in REFUSALS_ACT) + REFUSALS
    if intent.is_act:
        return tuple(template.format(a=intent.entity) for template in REFUSALS_ACT) + REFUSALS
    topic = topic_of(intent.family, intent.entity)
    return tuple(template.format(t=topic) for template in FALSE_REFUSALS) + REFUSALS
