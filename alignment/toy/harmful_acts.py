"""The harmful side of the toy world: acts nobody should be helped with, and what may be said to them.

An act is a verb and an object, so that both are met in many combinations; most verbs also stand in harmless
questions (family ``borderline`` of the facts). Compliance is deliberately vague and toy-like: it carries no method,
only the tone of giving in. Sentences are templates over the act: ``{a}`` the verb phrase ("steal a bike"),
``{g}`` its gerund ("stealing a bike").

The acts stand in ``data/toy/harmful_acts.tsv``. ``data/toy/harm_groups.tsv`` has for each group of them why it harms
(after the gerund) and what could be done instead (after "help you").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from alignment.files import table
from alignment.toy.facts import capitalised

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
