"""The words that all layers of the app share: slots and sides, options, kinds, flags, and what is refused."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from alignment.data.records import GRADES, Grade, SafetyBin

Slot = Literal["a", "b"]
SLOTS: tuple[Slot, Slot] = ("a", "b")
Side = Literal["left", "right"]
Phase = Literal["warning", "idle", "generating", "failed", "open", "judged", "explained", "empty"]
"""
- ``warning``: a safety project whose content warning is not accepted yet
- ``idle``: nothing on the desk; the next item can be fetched, or a prompt written
- ``generating``: both answers are being written
- ``failed``: a model did not answer; may be tried again
- ``open``: both answers are there and can be judged
- ``judged``: saved; the conversation can go on with the chosen answer, or the next one begin
- ``explained``: a training example was judged; its explanation is shown
- ``empty``: the queue has nothing more for this annotator
"""
TaskKind = Literal["work", "training", "qualification"]
AccountRole = Literal["annotator", "reviewer", "admin"]
SkipReason = Literal["both_equal", "unclear_prompt", "no_expertise", "other_language", "disturbing", "broken", "other"]
Flag = Literal["chosen_unsafe_other_safe", "for_review"]

FLAG: Flag = "for_review"
"""The flag that annotators set themselves; others are set by what they answer."""
UNSAFE_PREFERRED: SafetyBin = "preferred_unsafe_other_safe"


class Refused(Exception):
    """Something that an annotator cannot do now; the text says why and what to do instead."""


def option_of(side: Side, grade: Grade) -> int:
    """The option from 1 to 8 on the judging strip: 1 to 4 prefer the left answer, strongest first, 5 to 8 the right."""
    place = GRADES.index(grade)
    return place + 1 if side == "left" else 8 - place


def meaning_of(option: int) -> tuple[Side, Grade]:
    """Side and grade of an option from 1 to 8: 1 left significantly, 4 left negligibly, 8 right significantly."""
    assert 1 <= option <= 8, option
    return ("left", GRADES[option - 1]) if option <= 4 else ("right", GRADES[8 - option])


def draw_left_slot(order_seed: int) -> Slot:
    """Which slot stands on the left, each with probability one half, as a function of the seed alone."""
    return "a" if random.Random(order_seed).random() < 0.5 else "b"


def slot_on(side: Side, left_slot: Slot) -> Slot:
    """The slot that stands on a side."""
    other: Slot = "b" if left_slot == "a" else "a"
    return left_slot if side == "left" else other


def side_of(slot: Slot, left_slot: Slot) -> Side:
    """The side on which a slot stands."""
    return "left" if slot == left_slot else "right"


@dataclass(frozen=True)
class Pane:
    """One answer as it stands: ``done`` once it has ended, ``cut_off`` if only the length limit ended it."""

    text: str
    done: bool = True
    cut_off: bool = False


LOCAL_USER = "local"
"""The account of the one person on this machine, while nobody has made others."""
SIMULATED = "sim-"
"""User names of simulated annotators begin with this; nobody else's do."""


def is_simulated(username: str) -> bool:
    """Whether a user name is a simulated annotator's."""
    return username.startswith(SIMULATED)
