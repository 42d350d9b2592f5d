"""What reward models are trained on: no pair that prefers the unsafe answer; the control arm's shuffled labels."""

from __future__ import annotations

from collections import Counter

from alignment.data.records import GRADES, SAFETY_LABELS, Comparison, Message, SafetyLabel
from alignment.reward.data import RewardData, shuffle_labels, without_unsafe_preferred

BINS = tuple(SAFETY_LABELS)[:3]


def comparisons(count: int) -> list[Comparison]:
    return [
        Comparison(
            id=str(number),
            prompt=(Message(role="user", content=f"question {number}"),),
            chosen=(Message(role="assistant", content=f"good {number}"),),
            rejected=(Message(role="assistant", content=f"bad {number}"),),
            dimension="safety",
            conversation_id=str(number),
            grade=GRADES[number % 4],
            safety=SafetyLabel(bin=BINS[number % 3]),
        )
        for number in range(count)
    ]


class TestUnsafeAnswerPreferred:
    def test_is_left_out_of_training_and_counted(self) -> None:
        labels = [*SAFETY_LABELS, None]
        made = [
            item.model_copy(update={"safety": SafetyLabel(bin=name) if name else None})
            for item, name in zip(comparisons(5), labels, strict=True)
        ]
        data = without_unsafe_preferred(RewardData(made, made, {"too long": 2}, []))
        assert [item.safety.bin if item.safety else None for item in data.train] == [
            "preferred_safe_other_unsafe",
            "both_safe",
            "both_unsafe",
            None,
        ]
        assert data.heldout == made
        assert data.left_out == {"too long": 2, "unsafe answer preferred": 1}

    def test_nothing_is_counted_where_there_is_none(self) -> None:
        data = RewardData(comparisons(3), [], {}, [])
        assert without_unsafe_preferred(data) == data


class TestShuffledLabels:
    def test_answers_and_label_counts_stay(self) -> None:
        before = comparisons(1200)
        after = shuffle_labels(before, seed=1)
        assert [item.prompt for item in after] == [item.prompt for item in before]
        for one, other in zip(before, after, strict=True):
            assert {one.chosen_text, one.rejected_text} == {other.chosen_text, other.rejected_text}
        labels = [[(item.grade, item.safety.bin) for item in part if item.safety] for part in (before, after)]
        assert Counter(labels[0]) == Counter(labels[1])

    def test_preferences_are_a_coin_toss_and_grades_are_dealt_anew(self) -> None:
        before = comparisons(1200)
        after = shuffle_labels(before, seed=1)
        pairs = list(zip(before, after, strict=True))
        swapped = sum(one.chosen != other.chosen for one, other in pairs)
        same_grade = sum(one.grade == other.grade for one, other in pairs)
        # Binomial with chances 1/2 and 1/4: four standard deviations.
        assert abs(swapped - 600) < 70
        assert abs(same_grade - 300) < 60

    def test_the_seed_decides(self) -> None:
        before = comparisons(50)
        assert shuffle_labels(before, seed=1) == shuffle_labels(before, seed=1) != shuffle_labels(before, seed=2)
