"""Several judgments of one pair: copies refused, kept as they are, or merged by majority."""

from __future__ import annotations

from typing import Any

import pytest

from alignment.data.judgments_by_majority import Vote, by_majority, majority, without_duplicates
from alignment.data.records import Comparison, Grade, Message, SafetyBin, SafetyLabel
from alignment.errors import UserError


def judgment(number: int, chosen: str = "A", **changes: Any) -> Comparison:
    """One annotator's choice between the answers A and B to one question."""
    other = {"A": "B", "B": "A"}[chosen]
    values = {
        "id": f"c{number}",
        "prompt": (Message(role="user", content="question"),),
        "chosen": (Message(role="assistant", content=chosen),),
        "rejected": (Message(role="assistant", content=other),),
        "conversation_id": "one",
        "annotator_id": f"annotator {number}",
        **changes,
    }
    return Comparison(**values)


class TestCopies:
    def test_are_refused_with_both_ids(self) -> None:
        rows = [judgment(1, annotator_id=None), judgment(2, annotator_id=None)]
        with pytest.raises(UserError, match=r"c2 is a copy of c1.*data\.on_error=skip"):
            without_duplicates(rows, on_error="raise", name="the data")

    def test_are_left_out_and_counted_on_request(self) -> None:
        rows = [judgment(1, annotator_id=None), judgment(2, annotator_id=None), judgment(1, annotator_id=None)]
        assert without_duplicates(rows, on_error="skip", name="the data") == (rows[:1], 2)

    @pytest.mark.parametrize(
        "second",
        [
            judgment(2, "B", annotator_id=None),
            judgment(2, annotator_id=None, grade="better"),
            judgment(2, annotator_id=None, safety=SafetyLabel(bin="both_safe")),
            judgment(2, annotator_id="somebody"),
            judgment(2, annotator_id=None, dimension="safety"),
            judgment(2, annotator_id=None, prompt=(Message(role="user", content="another question"),)),
        ],
    )
    def test_another_judgment_is_no_copy(self, second: Comparison) -> None:
        rows = [judgment(1, annotator_id=None), second]
        assert without_duplicates(rows, on_error="raise", name="the data") == (rows, 0)

    def test_one_annotator_may_judge_a_pair_twice(self) -> None:
        rows = [judgment(1, annotator_id="x"), judgment(2, annotator_id="x")]
        assert without_duplicates(rows, on_error="raise", name="the data") == (rows, 0)

    def test_the_same_record_twice_is_a_copy_whoever_made_it(self) -> None:
        with pytest.raises(UserError, match="c1 is a copy of c1"):
            without_duplicates([judgment(1), judgment(1)], on_error="raise", name="the data")

    def test_one_id_for_two_judgments_is_refused(self) -> None:
        with pytest.raises(UserError, match="two comparisons have the id 'c1'"):
            without_duplicates([judgment(1), judgment(1, "B")], on_error="skip", name="the data")


def vote(choice: str, grade: Grade | None = "better", safety: SafetyBin | None = None) -> Vote:
    return Vote(choice, grade, safety)


class TestMajorityOfVotes:
    def test_has_the_middle_grade_of_those_who_are_in_it(self) -> None:
        votes = [vote("b"), vote("a", "significantly_better"), vote("a", "slightly_better")]
        assert majority([*votes, vote("a", "negligibly_better")]) == Vote("a", "slightly_better", None)
        of_two = [vote("b", "significantly_better"), vote("b", "better")]
        assert majority(of_two) == Vote("b", "better", None)  # the weaker of two in the middle

    def test_has_no_grade_where_nobody_gave_one(self) -> None:
        assert majority([vote("a", None), vote("b"), vote("a", None)]) == Vote("a", None, None)

    def test_is_none_where_votes_are_even(self) -> None:
        assert majority([vote("a"), vote("b")]) is None

    def test_counts_what_everybody_said_of_safety(self) -> None:
        # Answer a is found safe by two of three, b by one of three; the second chose b.
        votes = [vote(choice, safety="preferred_safe_other_unsafe") for choice in "aba"]
        assert majority(votes) == Vote("a", "better", "preferred_safe_other_unsafe")


class TestMajority:
    def test_the_answer_with_more_votes_wins_with_the_median_grade_of_its_voters(self) -> None:
        rows = [
            judgment(1, "B", grade="significantly_better"),
            judgment(2, "A", grade="better"),
            judgment(3, "A", grade="negligibly_better"),
            judgment(4, "A", grade="significantly_better"),
        ]
        kept, even = by_majority(rows)
        assert even == 0
        assert [(item.chosen_text, item.rejected_text, item.grade) for item in kept] == [("A", "B", "better")]

    def test_of_two_grades_in_the_middle_the_weaker_counts(self) -> None:
        kept, _ = by_majority([judgment(1, grade="better"), judgment(2, grade="slightly_better")])
        assert kept[0].grade == "slightly_better"

    def test_even_votes_are_left_out_and_counted(self) -> None:
        alone = judgment(3, prompt=(Message(role="user", content="another question"),))
        assert by_majority([judgment(1, "A"), judgment(2, "B"), alone]) == ([alone], 1)

    def test_safety_is_voted_on_by_answer_whichever_was_chosen(self) -> None:
        # A: safe, safe, unsafe. B: unsafe, safe, unsafe (the third annotator chose B, which is then the first label).
        rows = [
            judgment(1, "A", safety=SafetyLabel(bin="preferred_safe_other_unsafe")),
            judgment(2, "A", safety=SafetyLabel(bin="both_safe")),
            judgment(3, "B", safety=SafetyLabel(bin="both_unsafe")),
        ]
        kept, _ = by_majority(rows)
        assert kept[0].safety == SafetyLabel(bin="preferred_safe_other_unsafe")

    def test_an_answer_is_unsafe_where_votes_on_it_are_even(self) -> None:
        rows = [
            judgment(1, "A", safety=SafetyLabel(bin="both_safe")),
            judgment(2, "A", safety=SafetyLabel(bin="preferred_safe_other_unsafe")),
        ]
        assert by_majority(rows)[0][0].safety == SafetyLabel(bin="preferred_safe_other_unsafe")

    def test_dimensions_are_judged_apart(self) -> None:
        rows = [judgment(1, "A"), judgment(2, "B", dimension="safety")]
        assert by_majority(rows) == (rows, 0)
