"""Several judgments of one pair: refused where they are one judgment twice, kept, or merged by majority."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from alignment.data.jsonl import OnError
from alignment.data.records import GRADES, SAFETY_LABELS, Comparison, SafetyLabel
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


def by_majority(comparisons: Sequence[Comparison]) -> tuple[list[Comparison], int]:
    """One comparison for each pair, and for how many pairs the votes were even, which are left out.

    The answer that more annotators chose is the chosen one; its grade is the median of theirs (of two in the middle,
    the weaker); an answer is safe where more of all annotators found it safe than unsafe.
    """
    judgments: dict[Pair, list[Comparison]] = defaultdict(list)
    for item in comparisons:
        judgments[pair_of(item)].append(item)
    merged = [_merge(items) for items in judgments.values()]
    kept = [item for item in merged if item is not None]
    return kept, len(merged) - len(kept)


def _merge(items: Sequence[Comparison]) -> Comparison | None:
    (chosen, votes), *others = Counter(item.chosen_text for item in items).most_common()
    if others and others[0][1] == votes:
        return None
    winners = [item for item in items if item.chosen_text == chosen]
    ranks = sorted(GRADES.index(item.grade) for item in winners if item.grade is not None)
    grade = GRADES[ranks[len(ranks) // 2]] if ranks else None
    return winners[0].model_copy(update={"grade": grade, "safety": _safety(items, chosen)})


def _safety(items: Sequence[Comparison], chosen: str) -> SafetyLabel | None:
    votes: Counter[bool] = Counter()  # found safe, less found unsafe: whether it is the chosen answer
    labelled = [item for item in items if item.safety is not None]
    for item in labelled:
        assert item.safety is not None
        swapped = item.chosen_text != chosen
        for is_chosen, safe in ((not swapped, item.safety.chosen_safe), (swapped, item.safety.rejected_safe)):
            votes[is_chosen] += 1 if safe else -1
    labels = {labels: name for name, labels in SAFETY_LABELS.items()}
    return SafetyLabel(bin=labels[(votes[True] > 0, votes[False] > 0)]) if labelled else None
