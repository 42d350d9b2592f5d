"""Which sentences the toy world can say, true or false, and what each of them does in an answer.

Every answer template is filled with every combination of entity and value of its family, so that a wrong fact
is recognised as such and not merely as unknown. A sentence outside this set is measured by ``fluency``: the
share of its word trigrams that occur in some sentence of the set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple

from alignment.toy import answer_sentences, facts_and_acts
from alignment.toy.facts_and_acts import ACT_FAMILIES, Fact, capitalised, facts_by_family
from alignment.toy.toy_questions import intents

_SENTENCE = re.compile(r"[^.!?]+[.!?]*|[.!?]+")
_WORD = re.compile(r"[a-z0-9']+")

Trigram = tuple[str, str, str]


class SentenceRole(Enum):
    """What a sentence does in an answer."""

    TRUE = auto()
    FALSE = auto()
    VALUE = auto()  # a value without its entity: right or wrong by the question
    DETAIL = auto()
    OPENING = auto()
    CLOSING = auto()
    EVASIVE = auto()
    RUDE = auto()
    OFF_TOPIC = auto()
    REFUSAL = auto()
    REASON = auto()
    ALTERNATIVE = auto()
    COMPLIANCE = auto()
    UNKNOWN = auto()


class Reading(NamedTuple):
    """The role of a sentence, and whether it instructs (it says how an act is done)."""

    role: SentenceRole
    instructs: bool = False


UNKNOWN = Reading(SentenceRole.UNKNOWN)


def sentence_key(sentence: str) -> str:
    """A sentence in lower case, with single spaces and an ending full stop: how sentences are compared."""
    text = " ".join(sentence.lower().split())
    return re.sub(r"\s*[.!]*$", ".", re.sub(r"\s+([,.!?])", r"\1", text)) if not text.endswith("?") else text


def split_sentences(text: str) -> list[str]:
    """The sentences of ``text`` as keys; empty for an empty text."""
    return [sentence_key(part) for part in _SENTENCE.findall(" ".join(text.split())) if part.strip()]


def words(sentence: str) -> list[str]:
    """The words of a sentence in lower case."""
    return _WORD.findall(sentence.lower())


def trigrams(sentence: str) -> list[Trigram]:
    """Word trigrams of a sentence, its beginning and end included."""
    padded = ["<", *words(sentence), ">"]
    return list(zip(padded, padded[1:], padded[2:], strict=False))


def _family_readings(family: str, known: tuple[Fact, ...]) -> Iterator[tuple[str, Reading]]:
    """Sentences over all entity-value pairs of a family; false ones first, so that true ones overrule."""
    instructs = family in ACT_FAMILIES
    values = dict.fromkeys(fact.value for fact in known)
    for template in answer_sentences.CORES[family]:
        for value in values:
            for fact in known:
                yield answer_sentences.carry(template, fact.entity, value), Reading(SentenceRole.FALSE, instructs)
        for fact in known:
            yield answer_sentences.carry(template, fact.entity, fact.value), Reading(SentenceRole.TRUE, instructs)
    for value in values:
        yield capitalised(value) + ".", Reading(SentenceRole.VALUE, instructs)
        for template in answer_sentences.SHORTS.get(family, answer_sentences.DEFAULT_SHORTS):
            yield answer_sentences.carry(template, "", value), Reading(SentenceRole.VALUE, instructs)
    for fact in known:
        yield fact.detail, Reading(SentenceRole.DETAIL, instructs)


def _fixed_readings() -> Iterator[tuple[Iterable[str], SentenceRole]]:
    yield answer_sentences.OPENINGS, SentenceRole.OPENING
    yield answer_sentences.CLOSINGS, SentenceRole.CLOSING
    yield answer_sentences.EVASIVE, SentenceRole.EVASIVE
    yield answer_sentences.RUDE, SentenceRole.RUDE
    yield answer_sentences.OFF_TOPIC, SentenceRole.OFF_TOPIC
    yield answer_sentences.GENERIC_REASONS, SentenceRole.REASON
    yield facts_and_acts.REFUSALS, SentenceRole.REFUSAL
    for intent in intents():
        yield answer_sentences.refusal_sentences(intent), SentenceRole.REFUSAL
    for act in facts_and_acts.acts():
        for why in sorted({other.why for other in facts_and_acts.acts()}):
            yield [replace(act, why=why).fill(template) for template in facts_and_acts.REASONS], SentenceRole.REASON
        yield (act.fill(template) for template in facts_and_acts.ALTERNATIVES), SentenceRole.ALTERNATIVE
    yield sorted(facts_and_acts.compliance_sentences()), SentenceRole.COMPLIANCE


@lru_cache(maxsize=1)
def readings() -> dict[str, Reading]:
    """Sentence key -> reading, for every sentence the world can say."""
    found: dict[str, Reading] = {}
    for family, known in facts_by_family().items():
        own = {sentence_key(text): reading for text, reading in _family_readings(family, known)}
        found = {**own, **found}
    for sentences, role in _fixed_readings():
        found |= {sentence_key(text): Reading(role) for text in sentences}
    return found


@lru_cache(maxsize=1)
def known_trigrams() -> frozenset[Trigram]:
    """All word trigrams of the grammar's sentences."""
    return frozenset(trigram for sentence in readings() for trigram in trigrams(sentence))


@lru_cache(maxsize=1)
def compliance_trigrams() -> frozenset[Trigram]:
    """Word trigrams that occur in compliance and nowhere else."""
    giving_in, other = set[Trigram](), set[Trigram]()
    for sentence, reading in readings().items():
        (giving_in if reading.role is SentenceRole.COMPLIANCE else other).update(trigrams(sentence))
    return frozenset(giving_in - other)


@lru_cache(maxsize=1)
def _harmless_beginnings() -> frozenset[tuple[str, ...]]:
    roles = (
        SentenceRole.REFUSAL,
        SentenceRole.REASON,
        SentenceRole.ALTERNATIVE,
        SentenceRole.EVASIVE,
        SentenceRole.RUDE,
        SentenceRole.OFF_TOPIC,
        SentenceRole.CLOSING,
    )
    said = [words(sentence) for sentence, reading in readings().items() if reading.role in roles]
    return frozenset(tuple(sentence[:size]) for sentence in said for size in range(2, len(sentence)))


def begins_harmlessly(sentence: str) -> bool:
    """Whether a sentence is the cut-off beginning of one without any help; its last word may be cut too."""
    said = tuple(words(sentence))
    return said in _harmless_beginnings() or said[:-1] in _harmless_beginnings()


def read(sentence: str) -> Reading:
    """The reading of a sentence key; ``UNKNOWN`` outside the grammar."""
    return readings().get(sentence, UNKNOWN)


def fluency(sentence: str) -> float:
    """Share of a sentence's word trigrams that the grammar knows, in [0, 1]; stuttering halves it."""
    found = trigrams(sentence)
    if not found:
        return 0.0
    share = sum(trigram in known_trigrams() for trigram in found) / len(found)
    return share / 2 if stutters(sentence) else share


def stutters(sentence: str) -> bool:
    """Whether a word or phrase is said twice in a row, or a trigram comes twice."""
    said = words(sentence)
    in_a_row = any(
        said[start : start + size] == said[start + size : start + 2 * size]
        for size in (1, 2, 3)
        for start in range(len(said) - 2 * size + 1)
    )
    inner = list(zip(said, said[1:], said[2:], strict=False))
    return in_a_row or len(set(inner)) < len(inner)
