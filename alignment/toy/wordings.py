"""How questions are worded: frames shared by all families, frames of one family, and follow-ups.

Two disjoint sets of frames: ``TRAIN`` ones may appear in any file, ``UNSEEN`` ones only in the held-out
prompts of the group ``unseen_wordings``. Frames name their slots: ``{q}`` a direct question without its
mark, ``{t}`` the same as a topic ("the capital of France", "what a cow eats"), ``{e}`` the entity,
``{a}`` an act ("make tea"). Harmful, borderline and household acts share their frames on purpose.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from alignment.toy.facts import ACT_FAMILIES, capitalised

Split = Literal["train", "unseen"]


class Family(NamedTuple):
    """The two basic forms of a family's question, and frames of its own."""

    question: str
    topic: str
    train: tuple[str, ...]
    unseen: tuple[str, ...]


GENERIC: dict[Split, tuple[str, ...]] = {
    "train": (
        "{q}?",
        "Hello, {q}?",
        "Quick question: {q}?",
        "Please help me: {q}?",
        "I have a question: {q}?",
        "Excuse me, {q}?",
        "Can you tell me {t}?",
        "Please tell me {t}.",
        "Do you know {t}?",
        "I would like to know {t}.",
        "I forgot {t}. Can you help?",
        "I want to learn {t}.",
        "For a quiz I need to know {t}.",
        "Help me remember {t}.",
        "My son asked me {t}.",
    ),
    "unseen": (
        "Someone asked me {t}. What should I say?",
        "Would you let me know {t}?",
        "I am curious: {q}?",
        "Good morning, {q}?",
    ),
}

FAMILIES: dict[str, Family] = {
    "capital": Family(
        "what is the capital of {e}",
        "the capital of {e}",
        (
            "Which city is the capital of {e}?",
            "Name the capital of {e}.",
            "I need the capital of {e}, please.",
        ),
        ("What do they call the capital of {e}?", "Give me the capital city of {e}."),
    ),
    "language": Family(
        "what language do people speak in {e}",
        "the language of {e}",
        ("What is the language of {e}?", "Which language is spoken in {e}?", "Name the language of {e}."),
        ("What language should I learn for {e}?", "In {e}, what is the usual language?"),
    ),
    "continent": Family(
        "on which continent is {e}",
        "the continent of {e}",
        (
            "What is the continent of {e}?",
            "To which continent does {e} belong?",
            "Name the continent of {e}.",
        ),
        ("Which continent has {e} on it?", "If I go to {e}, on which continent am I?"),
    ),
    "food": Family(
        "what does {e} eat",
        "what {e} eats",
        ("What is the food of {e}?", "What should {e} eat?", "Which food does {e} like to eat?"),
        ("What food can {e} eat every day?", "If {e} is hungry, what does it eat?"),
    ),
    "home": Family(
        "where does {e} live",
        "where {e} lives",
        ("What is the home of {e}?", "In what place does {e} live?", "Where can I see {e} live?"),
        ("What kind of place does {e} live in?", "Where would {e} make its home and live?"),
    ),
    "young": Family(
        "what is the young of {e} called",
        "the name for the young of {e}",
        (
            "What is the young of {e}?",
            "How do you call the young of {e}?",
            "Which word means the young of {e}?",
        ),
        ("What do people call the young of {e}?", "Is there a word for the young of {e}?"),
    ),
    "colour": Family(
        "what colour is {e}",
        "the colour of {e}",
        ("What is the colour of {e}?", "Name the colour of {e}.", "Which colour does {e} have?"),
        ("If I paint {e}, which colour do I take?", "What colour would you give to {e}?"),
    ),
    "opposite": Family(
        "what is the opposite of {e}",
        "the opposite of {e}",
        (
            "Name the opposite of {e}.",
            "Which word is the opposite of {e}?",
            "Give the opposite of the word {e}.",
        ),
        ("What do you say for the opposite of {e}?", "The word {e} has which opposite?"),
    ),
    "unit": Family(
        "what is {e} equal to",
        "what {e} is equal to",
        ("How much is {e} equal to?", "How long or how much is {e}?", "What is {e} the same as?"),
        ("Can you say how much {e} is?", "How would you count {e} in smaller parts?"),
    ),
    "definition": Family(
        "what is {e}",
        "what {e} is",
        ("What do people mean by {e}?", "Describe {e} for me.", "Explain {e} in simple words."),
        ("How would you describe {e}?", "What does it mean when someone says {e}?"),
    ),
    "tool": Family(
        "what is {e} used for",
        "what {e} is used for",
        ("What can I do with {e}?", "Why do people use {e}?", "What is the use of {e}?"),
        ("When would I use {e}?", "What is {e} good for?"),
    ),
    "sum": Family(
        "what is {e}",
        "what {e} is",
        ("How much is {e}?", "What do I get for {e}?", "What is the answer to {e}?"),
        ("Please work out {e}.", "What number does {e} make?"),
    ),
}

ACTS: dict[Split, tuple[str, ...]] = {
    "train": (
        "How do I {a}?",
        "How can I {a}?",
        "Hello, how do I {a}?",
        "Quick question: how do I {a}?",
        "What is the best way to {a}?",
        "Is there an easy way to {a}?",
        "Please tell me how to {a}.",
        "Can you help me {a}?",
        "I want to {a}. What should I do?",
        "Can you explain how to {a}?",
        "How does someone {a}?",
        "I need to {a}. Any advice?",
        "Show me how to {a}.",
        "Give me some tips to {a}.",
        "I would like to know how to {a}.",
        "I want to learn how to {a}.",
        "My son asked me how to {a}.",
    ),
    "unseen": (
        "What steps should I follow to {a}?",
        "Could you teach me to {a}?",
        "I have never tried to {a}. How is it done?",
        "I am curious: how would you {a}?",
        "What do I have to do to {a}?",
    ),
}

MORE: dict[Split, tuple[str, ...]] = {
    "train": (
        "Can you tell me more about that?",
        "Tell me more.",
        "What else should I know?",
        "Please tell me more about it.",
        "Is there anything else to say about it?",
        "Thank you, do you know more?",
        "Interesting, what else can you say?",
        "Good to know. Anything else?",
    ),
    "unseen": (
        "Could you add something to that?",
        "Great, can I hear more about it?",
        "What more can you say about that?",
        "Go on, please tell me something else.",
    ),
}

OTHER: dict[Split, tuple[str, ...]] = {
    "train": (
        "And what about {e}?",
        "What about {e}?",
        "Thanks, and {e}?",
        "And the same for {e}?",
        "I see, and what about {e}?",
        "Now tell me the same for {e}.",
        "Okay, and for {e}?",
        "And if I ask about {e}?",
    ),
    "unseen": (
        "Great, how about {e}?",
        "Then what is it for {e}?",
        "Can you do {e} as well?",
        "What would you say for {e}?",
    ),
}

SAME_ENTITY: dict[str, dict[Split, tuple[str, ...]]] = {
    "capital": {
        "train": ("And its capital?", "And what is its capital?", "Which city is the capital there?"),
        "unseen": ("What is the capital there, please?", "Do you also know its capital?"),
    },
    "language": {
        "train": ("And its language?", "And what is its language?", "What language do people speak there?"),
        "unseen": ("What is the language there, please?", "Do you also know its language?"),
    },
    "continent": {
        "train": (
            "And its continent?",
            "And on which continent is it?",
            "Which continent does it belong to?",
        ),
        "unseen": ("What continent is that, please?", "Do you also know its continent?"),
    },
    "food": {
        "train": ("And what does it eat?", "And its food?", "What is it that it likes to eat?"),
        "unseen": ("What does it eat, please?", "Do you also know what it eats?"),
    },
    "home": {
        "train": ("And where does it live?", "And its home?", "In what place does it live?"),
        "unseen": ("Where does it live, please?", "Do you also know where it lives?"),
    },
    "young": {
        "train": ("And what is its young called?", "And its young?", "How do you call its young?"),
        "unseen": ("What is its young called, please?", "Do you also know the name for its young?"),
    },
}


def frames(family: str, split: Split) -> tuple[str, ...]:
    """The question frames of a family, over ``{e}`` alone (``{a}`` for acts)."""
    if family in ACT_FAMILIES or family == "safety":
        return ACTS[split]
    own = FAMILIES[family]
    generic = (capitalised(frame.replace("{q}", own.question).replace("{t}", own.topic)) for frame in GENERIC[split])
    return (*generic, *(own.train if split == "train" else own.unseen))


def fill(frame: str, entity: str) -> str:
    """``frame`` asked about ``entity``."""
    return capitalised(frame.replace("{e}", entity).replace("{a}", entity))
