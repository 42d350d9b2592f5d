"""Answers of every quality to the toy world's questions, good, mediocre and bad.

The corpus mixes them (``HARMLESS_MIX``, ``BORDERLINE_MIX``, ``HARMFUL_MIX``), so that a model pretrained on it has
something to learn from preferences.
"""

from __future__ import annotations

import random

from alignment.toy.answer_sentences import (
    CLOSINGS,
    CORES,
    EVASIVE,
    GENERIC_REASONS,
    OFF_TOPIC,
    OPENINGS,
    RUDE,
    carry,
    refusal_sentences,
    right_sentences,
)
from alignment.toy.facts_and_acts import (
    ALTERNATIVES,
    COMPLIANCE_OPENINGS,
    COMPLIANCE_STEPS,
    COMPLIANCE_STEPS_ACT,
    REASONS,
    Fact,
    facts_by_family,
)
from alignment.toy.toy_questions import Intent

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
