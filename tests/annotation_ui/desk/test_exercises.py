"""Training examples, test questions and guidelines: what ships is sound, and drawing, marking and scoring are right."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import child_process
import pytest

import annotation_ui
from alignment.data.records import GRADES, Dimension
from alignment.data.splits import dialogue_key
from alignment.errors import UserError
from annotation_ui import texts
from annotation_ui.app_settings import QualificationSettings
from annotation_ui.desk.exercises import (
    Exercise,
    Reply,
    Use,
    agrees,
    feedback,
    mark,
    questions_for,
    read_exercises,
    score,
)

DIMENSIONS: tuple[Dimension, ...] = ("helpfulness", "safety")
USES: tuple[Use, ...] = ("training", "qualification", "attention")
GUIDELINES = Path(annotation_ui.__file__).parent / "guidelines"
THRESHOLD = 0.8
BY_DIMENSION = pytest.mark.parametrize("dimension", DIMENSIONS)


def row(number: int = 1, **changes: Any) -> dict[str, Any]:
    """One line of a user's own file."""
    line = {
        "id": f"own-{number}",
        "use": "qualification",
        "messages": [{"role": "user", "content": f"How much is {number} plus {number}?"}],
        "answers": {"a": f"It is {2 * number}.", "b": f"It is {2 * number + 1}."},
        "expected": {"choice": "a", "grades": ["significantly_better", "better"], "safety": None},
        "explanation": "A sum.",
    }
    return line | changes


def expected(**changes: Any) -> dict[str, Any]:
    return {"expected": {"choice": "a", "grades": ["better"], "safety": None} | changes}


def made(number: int = 1, **changes: Any) -> Exercise:
    return Exercise.model_validate(row(number, **changes))


def save(file: Path, *lines: dict[str, Any] | str) -> Path:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(text) + "\n", encoding="utf-8")
    return file


def shipped(dimension: Dimension) -> list[Exercise]:
    return [exercise for use in USES for exercise in read_exercises(dimension, use)]


# -- what ships -------------------------------------------------------------------------------------------------------


@BY_DIMENSION
def test_there_are_enough_of_each_use_for_two_different_attempts(dimension: Dimension) -> None:
    settings = QualificationSettings()  # type: ignore[call-arg]
    assert len(read_exercises(dimension, "training")) == 5
    assert len(read_exercises(dimension, "qualification")) == 14 > settings.questions
    assert len(read_exercises(dimension, "attention")) == 1


def test_no_id_and_no_prompt_is_there_twice() -> None:
    everything = [exercise for dimension in DIMENSIONS for exercise in shipped(dimension)]
    assert len({exercise.id for exercise in everything}) == len(everything) == 40
    assert len({dialogue_key(exercise.messages[-1:]) for exercise in everything}) == 40
    answers = [text for exercise in everything for text in (exercise.answers.a, exercise.answers.b)]
    assert len(set(answers)) == 80


@BY_DIMENSION
def test_neither_slot_nor_length_tells_the_right_answer(dimension: Dimension) -> None:
    questions = read_exercises(dimension, "qualification")
    assert Counter(exercise.expected.choice for exercise in questions) == {"a": 7, "b": 7}
    longer = ["a" if len(exercise.answers.a) > len(exercise.answers.b) else "b" for exercise in questions]
    right = sum(slot == exercise.expected.choice for slot, exercise in zip(longer, questions, strict=True))
    assert right == 7  # so whoever goes by length, either way, agrees with 7 of 10 at the most and fails every draw


def test_safety_is_asked_in_one_dimension_only_and_every_bin_occurs_in_training_and_test() -> None:
    assert all(exercise.expected.safety is None for exercise in shipped("helpfulness"))
    for use in ("training", "qualification"):
        bins = Counter(exercise.expected.safety for exercise in read_exercises("safety", use))
        assert set(bins) == {"preferred_safe_other_unsafe", "both_safe", "both_unsafe"}
        assert max(bins.values()) / bins.total() < THRESHOLD  # the same bin throughout does not pass


def test_a_safe_answer_is_never_graded_negligibly_better_than_an_unsafe_one() -> None:
    for exercise in shipped("safety"):
        if exercise.expected.safety == "preferred_safe_other_unsafe":
            assert not {"negligibly_better", "slightly_better"} & set(exercise.expected.grades), exercise.id


@BY_DIMENSION
def test_explanations_name_no_slot_and_no_side(dimension: Dimension) -> None:
    named = re.compile(r"\b(answer|response|reply|option) [AB1-8]\b|\b(left|right)[- ](hand|side|answer|one)\b", re.I)
    for exercise in shipped(dimension):
        assert not named.search(exercise.explanation.replace("right answer is", "")), exercise.id


@BY_DIMENSION
def test_there_are_conversations_and_a_cut_off_answer(dimension: Dimension) -> None:
    for use in ("training", "qualification"):
        assert any(len(exercise.messages) >= 3 for exercise in read_exercises(dimension, use))
    (cut,) = [exercise for exercise in shipped(dimension) if exercise.cut_off]
    assert cut.use == "training"
    for slot in cut.cut_off:
        assert getattr(cut.answers, slot)[-1].isalpha()  # it ends in mid-sentence, as if the limit had ended it


@BY_DIMENSION
def test_the_attention_check_says_itself_what_to_choose(dimension: Dimension) -> None:
    (check,) = read_exercises(dimension, "attention")
    telling = [slot for slot in ("a", "b") if "attention check" in getattr(check.answers, slot)]
    assert telling == [check.expected.choice]
    assert check.expected.grades == ("significantly_better",)
    assert "significantly better" in getattr(check.answers, check.expected.choice)


@BY_DIMENSION
def test_guidelines_take_less_than_four_minutes_and_explain_every_grade_and_reason(dimension: Dimension) -> None:
    text = (GUIDELINES / f"{dimension}.md").read_text(encoding="utf-8")
    assert len(text.split()) < 4 * 230  # words a minute
    for reason in texts.SKIP_REASONS.values():
        assert f"**{reason.removesuffix(' (see note)')}**" in text
    for grade in GRADES:
        (line,) = [line for line in text.splitlines() if line.startswith(f"- **{grade.replace('_', ' ').capitalize()}")]
        assert re.search(r"\*[^*]{15,}\*", line), f"no example of {grade}"


def test_the_content_warning_takes_less_than_a_minute_and_names_the_way_out() -> None:
    text = (GUIDELINES / "content_warning.md").read_text(encoding="utf-8")
    assert len(text.split()) < 230
    assert "voluntary" in text and "way out" in text and texts.SKIP_REASONS["disturbing"] in text


# -- files of one's own -----------------------------------------------------------------------------------------------


def test_a_file_of_ones_own_is_read_in_its_order_and_filtered_by_use(tmp_path: Path) -> None:
    file = save(tmp_path / "own.jsonl", row(2), "", row(1, use="training"), row(3))
    assert [exercise.id for exercise in read_exercises("safety", "qualification", file)] == ["own-2", "own-3"]
    assert [exercise.dimension for exercise in read_exercises("safety", "training", file)] == ["safety"]
    assert read_exercises("safety", "attention", file) == ()


ASSISTANT_LAST = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "Expecting property name"),
        ("[1, 2]", "found list"),
        (row(2, hint="b"), "hint: Extra inputs"),
        (row(2, use="exam"), "use: Input should be 'training'"),
        (row(2, messages=ASSISTANT_LAST), "must end with a turn by 'user'"),
        (row(2, answers={"a": "Four."}), "answers.b: Field required"),
        (row(2, answers={"a": "Four.", "b": " Four. "}), "answers: the two answers are equal"),
        (row(2, answers={"a": "Four.", "b": "  "}), "answers.b: String should match"),
        (row(2, explanation=""), "explanation: String should match"),
        (row(2, **expected(choice="left")), "expected.choice: Input should be 'a' or 'b'"),
        (row(2, **expected(grades=[])), "expected.grades: Tuple should have at least 1 item"),
        (row(2, **expected(grades=["much_better"])), "expected.grades.0: Input should be"),
        (row(2, **expected(grades=["better", "better"])), "expected.grades: a grade is there twice"),
        (row(2, **expected(safety="preferred_unsafe_other_safe")), "the safe one is to be chosen"),
        (row(2, dimension="helpfulness"), "dimension is helpfulness, expected safety"),
        (row(1, messages=[{"role": "user", "content": "Another?"}]), "the same id as in line 1"),
        (row(1, id="own-9"), "the same prompt as in line 1"),
    ],
)
def test_a_malformed_line_is_one_clear_error(tmp_path: Path, line: dict[str, Any] | str, reason: str) -> None:
    file = save(tmp_path / "own.jsonl", row(1), "", line)
    with pytest.raises(UserError) as caught:
        read_exercises("safety", "training", file)  # although the line is no training example
    said = str(caught.value)
    assert said.startswith(f"{file}, line 3: ") and reason in said and "\n" not in said


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file: .*gone\.jsonl"):
        read_exercises("safety", "training", tmp_path / "gone.jsonl")


# -- drawing the questions of an attempt ------------------------------------------------------------------------------

FOURTEEN = tuple(made(number) for number in range(1, 15))


def drawn(annotator: str, attempt: int, count: int = 10) -> list[str]:
    return [exercise.id for exercise in questions_for(annotator, attempt, FOURTEEN, count)]


def test_a_draw_depends_on_annotator_and_attempt_alone() -> None:
    again = questions_for("ann_1", 1, FOURTEEN[::-1], 10)
    assert [exercise.id for exercise in again] == drawn("ann_1", 1)
    assert len(set(drawn("ann_1", 1))) == 10
    assert drawn("ann_1", 1) != drawn("ann_2", 1)


def test_the_second_attempt_begins_with_what_the_first_left_out() -> None:
    first, second = set(drawn("ann_1", 1)), set(drawn("ann_1", 2))
    assert len(second) == 10 and len(second - first) == 4 and len(first | second) == 14
    assert not set(drawn("ann_1", 1, 7)) & set(drawn("ann_1", 2, 7))


def test_with_no_questions_to_spare_the_second_attempt_has_another_order() -> None:
    first, second = drawn("ann_1", 1, 14), drawn("ann_1", 2, 14)
    assert sorted(first) == sorted(second) and first != second


def test_every_question_comes_equally_often() -> None:
    counts = Counter(name for number in range(400) for name in drawn(f"ann_{number}", 1))
    assert len(counts) == 14
    assert all(abs(count - 400 * 10 / 14) < 45 for count in counts.values())  # five standard deviations of 9.0


def test_too_few_questions_are_a_mistake_in_the_settings() -> None:
    with pytest.raises(UserError, match=r"qualification\.questions=15, but there are only 14"):
        questions_for("ann_1", 1, FOURTEEN, 15)


def test_draws_are_the_same_in_another_process_which_imports_neither_models_nor_pages() -> None:
    code = (
        "import sys; from annotation_ui.desk.exercises import read_exercises, questions_for\n"
        "known = read_exercises('safety', 'qualification')\n"
        "print(*(exercise.id for exercise in questions_for('ann_1', 2, known, 10)))\n"
        "print(*({'torch', 'gradio', 'sqlalchemy'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    said = child_process.run([sys.executable, "-c", code], check=True, env=environment).stdout.splitlines()
    here = questions_for("ann_1", 2, read_exercises("safety", "qualification"), 10)
    assert said == [" ".join(exercise.id for exercise in here), ""]


# -- marking and scoring ----------------------------------------------------------------------------------------------


def attempt(n_right: int, n_questions: int = 10) -> list[Reply]:
    """The first ``n_right`` replies choose the right slot, the others the wrong one."""
    return [Reply(made(number), "a" if number <= n_right else "b", "better") for number in range(1, n_questions + 1)]


def test_eight_of_ten_pass_and_seven_do_not() -> None:
    assert score(attempt(8), THRESHOLD).passed and score(attempt(8), THRESHOLD).agreement == 0.8
    assert not score(attempt(7), THRESHOLD).passed and score(attempt(7), THRESHOLD).agreement == 0.7


@pytest.mark.parametrize(("n_right", "n_questions", "share"), [(7, 10, 0.7), (3, 10, 0.3), (12, 15, 0.8), (9, 10, 0.9)])
def test_exactly_the_share_passes(n_right: int, n_questions: int, share: float) -> None:
    assert score(attempt(n_right, n_questions), share).passed
    assert not score(attempt(n_right - 1, n_questions), share).passed


def test_grades_are_counted_apart_from_passing() -> None:
    replies = [Reply(made(number), "a", "negligibly_better") for number in range(1, 4)] + attempt(10)[3:9]
    replies.append(Reply(made(10), "b", "better"))  # the wrong answer: its grade counts nowhere
    result = score(replies, THRESHOLD)
    assert (result.n_agreed, result.n_chosen, result.n_graded) == (9, 9, 6)
    assert result.passed and result.grade_agreement == 6 / 9
    assert score(attempt(0), THRESHOLD).grade_agreement is None


def test_a_skipped_question_is_one_without_agreement() -> None:
    replies = [*attempt(8)[:8], Reply(made(9), None), Reply(made(10), None)]
    assert score(replies, THRESHOLD).agreement == 0.8
    assert score([*replies[:7], *replies[8:], Reply(made(8), None)], THRESHOLD).agreement == 0.7


def test_a_score_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="without questions"):
        score([], THRESHOLD)


WITH_BIN = made(1, **expected(safety="preferred_safe_other_unsafe"))


def test_safety_has_to_agree_where_it_is_asked() -> None:
    assert agrees(WITH_BIN, "a", "better", "preferred_safe_other_unsafe")
    assert agrees(WITH_BIN, "a", "better", None)  # a project that does not ask
    assert not agrees(WITH_BIN, "a", "better", "both_safe")
    assert not agrees(WITH_BIN, "a", "better", "preferred_unsafe_other_safe")
    assert agrees(made(1), "a", "better", "both_unsafe")  # the key says nothing of it


def test_safety_is_compared_answer_by_answer() -> None:
    # chose b and says: b unsafe, a safe. That is what the key says of both, though the choice is wrong.
    seen = mark(WITH_BIN, "b", "better", "preferred_unsafe_other_safe")
    assert (seen.choice, seen.safety, seen.agrees) == (False, True, False)
    turned = mark(WITH_BIN, "b", "better", "preferred_safe_other_unsafe")
    assert (turned.choice, turned.safety) == (False, False)


def test_feedback_says_what_agrees_and_explains() -> None:
    def first(*reply: Any) -> str:
        said, explanation = feedback(WITH_BIN, *reply).split("\n\n")
        assert explanation == WITH_BIN.explanation
        return said

    ours = "the answer that we chose is safe, the other is not."
    assert first("a", "better", "preferred_safe_other_unsafe") == (
        f"**We chose the same answer.** Your grade fits: we would say *better*, too. On safety we agree: {ours}"
    )
    assert first("a", "negligibly_better", "both_safe") == (
        "**We chose the same answer.** We would say *better*; you said *negligibly better / unsure*. "
        f"On safety we see it differently: {ours}"
    )
    assert first("b", "better", None) == "**We chose the other answer.** For it we would say *better*."
    assert first(None, None, None) == "**You skipped this one.** For it we would say *better*."
