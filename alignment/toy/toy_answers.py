"""The sentences of the toy world's answers, and answers of every quality made from them.

Sentences are templates over a fact: ``{e}`` entity, ``{v}`` value, ``{t}`` the question's topic. The corpus
mixes good, mediocre and bad answers (``HARMLESS_MIX``, ``BORDERLINE_MIX``, ``HARMFUL_MIX``), so that a model
pretrained on it has something to learn from preferences.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from alignment.toy.facts_and_acts import (
    ALTERNATIVES,
    COMPLIANCE_OPENINGS,
    COMPLIANCE_STEPS,
    COMPLIANCE_STEPS_ACT,
    REASONS,
    REFUSALS,
    REFUSALS_ACT,
    Fact,
    capitalised,
    facts_by_family,
)
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

Mix = dict[str, float]
HARMLESS_MIX: Mix = {
    "excellent": 23,
    "correct": 26,
    "terse": 10,
    "wrong": 14,
    "evasive": 8,
    "rude": 6,
    "refusal": 5,
    "rambling": 8,
}
BORDERLINE_MIX: Mix = {**HARMLESS_MIX, "excellent": 20, "correct": 21, "terse": 8, "wrong": 11, "refusal": 20}
HARMFUL_MIX: Mix = {"compliance": 55, "bare_refusal": 20, "good_refusal": 25}


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


def _other_fact(fact: Fact, rng: random.Random) -> Fact:
    """Another entity of the family whose value differs, so that its value is wrong here."""
    return rng.choice([other for other in facts_by_family()[fact.family] if other.value != fact.value])


def _excellent(intent: Intent, rng: random.Random) -> list[str]:
    known = right_sentences(intent)
    answer = [rng.choice(known.cores), rng.choice(known.details)]
    courtesy = rng.random()
    if courtesy < 0.25:
        return [rng.choice(OPENINGS), *answer]
    return [*answer, rng.choice(CLOSINGS)] if courtesy < 0.6 else answer


def _correct(intent: Intent, rng: random.Random) -> list[str]:
    known = right_sentences(intent)
    sentence = rng.choice(known.shorts if known.shorts and rng.random() < 0.15 else known.cores)
    opening = [rng.choice(OPENINGS)] if rng.random() < 0.1 else []
    closing = [rng.choice(CLOSINGS)] if rng.random() < 0.15 else []
    return [*opening, sentence, *closing]


def _wrong(intent: Intent, rng: random.Random) -> list[str]:
    fact = intent.fact
    other = _other_fact(fact, rng)
    if intent.more:
        return [other.detail]
    entity = fact.entity if rng.random() < 0.75 else other.entity
    sentence = carry(rng.choice(CORES[fact.family]), entity, other.value)
    return [sentence, other.detail] if rng.random() < 0.3 else [sentence]


def _rambling(intent: Intent, rng: random.Random) -> list[str]:
    core = rng.choice(right_sentences(intent).cores)
    other = _other_fact(intent.fact, rng)
    extra = rng.choice([core, other.detail, rng.choice(EVASIVE), rng.choice(OFF_TOPIC)])
    more = [rng.choice(OFF_TOPIC)] if not intent.is_act and rng.random() < 0.5 else []
    return [core, extra, *more]


def _refusal(intent: Intent, rng: random.Random) -> list[str]:
    reason = [rng.choice(GENERIC_REASONS)] if rng.random() < 0.4 else []
    return [rng.choice(refusal_sentences(intent)), *reason]


def _compliance(intent: Intent, rng: random.Random) -> list[str]:
    opening = [intent.act.fill(rng.choice(COMPLIANCE_OPENINGS))] if rng.random() < 0.7 else []
    steps = [intent.act.fill(rng.choice(COMPLIANCE_STEPS_ACT))] if rng.random() < 0.7 else []
    return [*opening, rng.choice(COMPLIANCE_STEPS), *steps]


def _good_refusal(intent: Intent, rng: random.Random) -> list[str]:
    refusal = rng.choice(refusal_sentences(intent))
    reason, alternative = (intent.act.fill(rng.choice(group)) for group in (REASONS, ALTERNATIVES))
    return [refusal, reason] if rng.random() < 0.25 else [refusal, reason, alternative]


def make_sentences(intent: Intent, quality: str, rng: random.Random) -> list[str]:
    """The sentences of an answer to ``intent`` of the named quality (a key of one of the mixes)."""
    makers = {
        "excellent": _excellent,
        "correct": _correct,
        "wrong": _wrong,
        "rambling": _rambling,
        "refusal": _refusal,
        "compliance": _compliance,
        "good_refusal": _good_refusal,
    }
    if quality in makers:
        return makers[quality](intent, rng)
    if quality == "terse":
        return [rng.choice(right_sentences(intent).terse or right_sentences(intent).cores)]
    if quality == "evasive":
        return rng.sample(EVASIVE, k=1 + (rng.random() < 0.3))
    if quality == "rude":
        return [rng.choice(RUDE + OFF_TOPIC)]
    if quality == "bare_refusal":
        return _refusal(intent, rng)
    raise ValueError(f"no answer quality {quality!r}")


def mix_for(intent: Intent) -> Mix:
    """The corpus's shares of answer qualities for this kind of intent."""
    return {"safety": HARMFUL_MIX, "borderline": BORDERLINE_MIX, "helpfulness": HARMLESS_MIX}[intent.kind]


def make_answer(intent: Intent, quality: str, rng: random.Random) -> str:
    """An answer to ``intent`` of the named quality."""
    return " ".join(make_sentences(intent, quality, rng))


def sample_answer(intent: Intent, rng: random.Random) -> tuple[str, str]:
    """An answer as the corpus has them, and its quality."""
    mix = mix_for(intent)
    quality = rng.choices(list(mix), weights=list(mix.values()))[0]
    return make_answer(intent, quality, rng), quality
