"""Several judgments of one pair: refused where they are one judgment twice, kept, or merged by majority.

``majority`` is the one rule for both: comparisons that training reads, and judgments that the annotation app exports.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from alignment.data.jsonl_and_raw_rows import OnError
from alignment.data.records import GRADES, SAFETY_LABELS, Comparison, Grade, SafetyBin, SafetyLabel
from alignment.data.splits import dialogue_key
from alignment.errors import UserError

Pair = tuple[str, str, frozenset[str]]


def without_duplicates(
    comparisons: Sequence[Comparison], *, on_error: OnError, name: str
) -> tuple[list[Comparison], int]:
    """The comparisons without those that repeat another's judgment, and how many those were.

    The same choice between the same answers is a second judgment where an annotator's name is with it, or where it has
    another grade or label; else it is a copy, which would count double.

    Raises:
        UserError: there is one, and ``on_error`` is ``raise``; or two records share an id and differ.
    """
    seen: dict[object, Comparison] = {}
    ids: dict[tuple[str, str], Comparison] = {}
    kept: list[Comparison] = []
    for item in comparisons:
        by = item.id if item.annotator_id is not None else None
        judgment = (pair_of(item), item.chosen_text, item.grade, item.safety, item.annotator_id, by)
        first = seen.setdefault(judgment, item)
        if first is item:
            if ids.setdefault((item.id, item.dimension), item) is not item:
                raise UserError(f"{name}: two comparisons have the id {item.id!r}. Give each an id of its own.")
            kept.append(item)
        elif on_error == "raise":
            raise UserError(
                f"{name}: comparison {item.id} is a copy of {first.id} and would count double. "
                "Remove one of them, or pass data.on_error=skip."
            )
    return kept, len(comparisons) - len(kept)


def pair_of(comparison: Comparison) -> Pair:
    """What was compared and in which respect, whichever answer won."""
    answers = frozenset((comparison.chosen_text, comparison.rejected_text))
    return comparison.objective or comparison.dimension, dialogue_key(comparison.prompt), answers


class Vote(NamedTuple):
    """What one annotator says of a pair: the better answer, by a name or its text, how much better, and safety."""

    choice: str
    grade: Grade | None
    safety: SafetyBin | None


def majority(votes: Sequence[Vote]) -> Vote | None:
    """What most say of a pair; ``None`` where the votes are even.

    The answer that more annotators chose is the chosen one; its grade is the median of theirs (of two in the middle,
    the weaker); an answer is safe where more of all annotators found it safe than unsafe.
    """
    (choice, count), *others = Counter(vote.choice for vote in votes).most_common()
    if others and others[0][1] == count:
        return None
    ranks = sorted(GRADES.index(vote.grade) for vote in votes if vote.choice == choice and vote.grade is not None)
    grade = GRADES[ranks[len(ranks) // 2]] if ranks else None
    return Vote(choice, grade, _safety_by_majority(votes, choice))


def _safety_by_majority(votes: Sequence[Vote], choice: str) -> SafetyBin | None:
    found_safe: Counter[bool] = Counter()  # found safe, less found unsafe: whether it is the chosen answer
    labelled = [(vote.choice == choice, SAFETY_LABELS[vote.safety]) for vote in votes if vote.safety is not None]
    for is_same_choice, labels in labelled:
        for is_own_choice, is_safe in zip((True, False), labels, strict=True):
            found_safe[is_own_choice == is_same_choice] += 1 if is_safe else -1
    bins = {labels: name for name, labels in SAFETY_LABELS.items()}
    return bins[(found_safe[True] > 0, found_safe[False] > 0)] if labelled else None


def by_majority(comparisons: Sequence[Comparison]) -> tuple[list[Comparison], int]:
    """One comparison for each pair, as most judged it, and for how many pairs the votes were even: those are left out.

    The first comparison that has the answer of the majority stands for it.
    """
    judgments: dict[Pair, list[Comparison]] = defaultdict(list)
    for item in comparisons:
        judgments[pair_of(item)].append(item)
    merged = [_merge(items) for items in judgments.values()]
    decided = [item for item in merged if item is not None]
    return decided, len(merged) - len(decided)


def _vote(item: Comparison) -> Vote:
    return Vote(item.chosen_text, item.grade, None if item.safety is None else item.safety.bin)


def _merge(items: Sequence[Comparison]) -> Comparison | None:
    outcome = majority([_vote(item) for item in items])
    if outcome is None:
        return None
    first = next(item for item in items if item.chosen_text == outcome.choice)
    safety = None if outcome.safety is None else SafetyLabel(bin=outcome.safety)
    return first.model_copy(update={"grade": outcome.grade, "safety": safety})
