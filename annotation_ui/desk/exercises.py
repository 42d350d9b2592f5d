"""Training examples and test questions: pairs of answers for which we say what should be chosen, and why.

They stand in ``training/helpfulness.jsonl`` and ``training/safety.jsonl``, one ``Exercise`` a line, or in a file of the
user's own. Here they are read, drawn for an attempt, marked and scored; what an annotator has done with them is in
the store, which this module does not know.

The paper's annotators passed four tests (appendix A.5.2): (1) general skills, timed at 50 minutes: 90 % in its first
part, then a mean mark of 4 in the two others; (2) 42 questions on sensitive subjects and on ranking answers, with 80 %
agreement, and written answers marked 4 of 5; (3) 31 questions on judging quality, more than 26 of them in agreement;
(4) at least 6 of 18 prompts answered in writing, with a mean mark above 4. This test follows the parts of (2) and (3)
that need no marker, and departs from them:

1. Choices only: here nobody writes answers, so nothing tests whether somebody could ((1), (4), the rest of (2)).
2. One short test per dimension in place of 42 + 31 questions for everybody, on the page where the work is done; gold
   items go on testing afterwards. Ten questions measure coarsely: somebody who gets each one right with probability
   0.7 passes at 8 of 10 in 38 % of attempts.
3. Agreement means the same choice and, where it is asked, the same safety of both answers. How strong a preference is
   has no single right answer: each question accepts several grades, and they are counted apart from passing.
4. Training comes first and explains every judgment; the test explains nothing.
5. No time limit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from alignment.data.jsonl_and_raw_rows import iter_json_lines
from alignment.data.records import GRADES, SAFETY_LABELS, Dimension, Grade, Prompt, Record, SafetyBin, explain
from alignment.data.splits import dialogue_key
from alignment.errors import UserError
from annotation_ui import texts
from annotation_ui.vocabulary import UNSAFE_PREFERRED, Slot

Use = Literal["training", "qualification", "attention"]
Text = Annotated[str, Field(pattern=r"\S")]

_FOLDER = Path(__file__).resolve().parents[1] / "training"


class Answers(Record):
    """The two answers by slot; which of them stands on the left is drawn when they are shown."""

    a: Text
    b: Text

    @model_validator(mode="after")
    def _differ(self) -> Answers:
        if self.a.split() == self.b.split():
            raise ValueError("the two answers are equal")
        return self


class Expected(Record):
    """The key: the slot to choose, the grades that can be defended, and the safety bin of that choice if it has one."""

    choice: Slot
    grades: tuple[Grade, ...] = Field(min_length=1)
    safety: SafetyBin | None

    @field_validator("grades")
    @classmethod
    def _strongest_first(cls, grades: tuple[Grade, ...]) -> tuple[Grade, ...]:
        if len(set(grades)) < len(grades):
            raise ValueError("a grade is there twice")
        return tuple(sorted(grades, key=GRADES.index))

    @field_validator("safety")
    @classmethod
    def _prefers_safe(cls, safety: SafetyBin | None) -> SafetyBin | None:
        if safety == UNSAFE_PREFERRED:
            raise ValueError(f"{safety} cannot be a key: of a safe and an unsafe answer, the safe one is to be chosen")
        return safety


class Exercise(Prompt):
    """A prompt with two answers and the key.

    Attributes:
        use: ``training`` is explained, ``qualification`` tests, ``attention`` is put between the items of the queue.
        answers: the two answers.
        expected: what should be chosen.
        explanation: why, as Markdown; it names no slot or side, since those are shuffled.
        cut_off: slots of answers that only the length limit ended.
    """

    use: Use
    answers: Answers
    expected: Expected
    explanation: Text
    cut_off: tuple[Slot, ...] = ()


@dataclass(frozen=True)
class Mark:
    """What agrees with the key, part by part; ``grade`` says nothing where the choice does not agree."""

    choice: bool
    grade: bool
    safety: bool

    @property
    def agrees(self) -> bool:
        """Whether the answer counts as agreement."""
        return self.choice and self.safety


@dataclass(frozen=True)
class Reply:
    """What somebody said to a question; ``choice`` is None where they skipped it, ``safety`` where it was not asked."""

    exercise: Exercise
    choice: Slot | None
    grade: Grade | None = None
    safety: SafetyBin | None = None


@dataclass(frozen=True)
class Score:
    """The result of an attempt.

    Attributes:
        n_questions: how many were put.
        n_agreed: with how many keys the replies agree.
        n_chosen: how many choices agree, whatever was said of safety.
        n_graded: how many of those choices have a grade that the key accepts.
        min_agreement: share of the questions to agree with.
    """

    n_questions: int
    n_agreed: int
    n_chosen: int
    n_graded: int
    min_agreement: float

    @property
    def agreement(self) -> float:
        """Share of the questions in agreement."""
        return self.n_agreed / self.n_questions

    @property
    def grade_agreement(self) -> float | None:
        """Share of the right choices with an accepted grade; None where no choice is right."""
        return self.n_graded / self.n_chosen if self.n_chosen else None

    @property
    def passed(self) -> bool:
        """Whether the attempt succeeded; exactly the share that is asked for is enough."""
        return self.agreement >= self.min_agreement


def read_exercises(dimension: Dimension, use: Use, file: str | Path | None = None) -> tuple[Exercise, ...]:
    """The exercises of one dimension for one use, in the order of the file.

    Args:
        dimension: what answers are compared by.
        use: what the exercises are for.
        file: JSON Lines of the user's own; default: the ones that come with the app.

    Raises:
        UserError: the file is missing or a line of it is malformed, is of another dimension, or repeats an id or a
            prompt; names file and line.
    """
    path = _FOLDER / f"{dimension}.jsonl" if file is None else Path(file)
    return tuple(exercise for exercise in _read(path, dimension) if exercise.use == use)


def _read(path: Path, dimension: Dimension) -> Iterator[Exercise]:
    seen: dict[tuple[str, str], int] = {}
    for number, line in iter_json_lines(path):
        try:
            exercise = _parse(line, dimension)
            for name, value in (("id", exercise.id), ("prompt", dialogue_key(exercise.messages))):
                first = seen.setdefault((name, value), number)
                if first != number:
                    raise ValueError(f"the same {name} as in line {first}")
        except ValueError as error:  # not JSON, not an exercise, or a repetition
            reason = explain(error) if isinstance(error, ValidationError) else str(error)
            raise UserError(f"{path}, line {number}: {reason}. Mend the line, or remove it.") from error
        yield exercise


def _parse(line: str, dimension: Dimension) -> Exercise:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"expected an object with the keys of an exercise, found {type(row).__name__}")
    exercise = Exercise.model_validate({"dimension": dimension, **row})
    if exercise.dimension != dimension:
        raise ValueError(f"dimension is {exercise.dimension}, expected {dimension}")
    return exercise


def questions_for(annotator_id: str, attempt: int, known: Sequence[Exercise], count: int) -> tuple[Exercise, ...]:
    """The questions of one attempt, in the order to put them.

    Every annotator has an order of their own, by a hash, and each attempt takes the next ``count`` of it, beginning
    again at the end: a question comes back only when all others have been put. The same arguments give the same
    questions, whatever the order of ``known``.

    Args:
        annotator_id: whose attempt it is.
        attempt: from 1.
        known: all questions there are.
        count: how many to put.

    Raises:
        UserError: there are fewer questions than that.
    """
    if len(known) < count:
        raise UserError(
            f"qualification.questions={count}, but there are only {len(known)} questions. Lower it, or add questions."
        )
    assert attempt >= 1, attempt
    order = _shuffled(known, annotator_id)
    start = (attempt - 1) * count
    drawn = [order[(start + place) % len(order)] for place in range(count)]
    return tuple(_shuffled(drawn, f"{annotator_id}/{attempt}"))


def _shuffled(known: Sequence[Exercise], salt: str) -> list[Exercise]:
    return sorted(known, key=lambda exercise: hashlib.sha256(f"{salt}/{exercise.id}".encode()).digest())


def mark(exercise: Exercise, choice: Slot | None, grade: Grade | None, safety: SafetyBin | None) -> Mark:
    """Compare a reply with the key, part by part.

    Safety is compared answer by answer, so that somebody who chose the other answer can still be right about it. It
    counts only where the key has it and it was asked (``safety`` is not None): that it is answered where it is asked
    is for the desk to see to.

    Args:
        exercise: with the key.
        choice: the chosen slot; ``None``: it was skipped.
        grade: how strongly.
        safety: the bin; ``None``: it was not asked.
    """
    expected = exercise.expected
    right = choice == expected.choice
    if choice is None or safety is None or expected.safety is None:
        safe = True
    else:
        safe = _safety_by_slot(choice, safety) == _safety_by_slot(expected.choice, expected.safety)
    return Mark(choice=right, grade=right and grade in expected.grades, safety=safe)


def _safety_by_slot(choice: Slot, safety: SafetyBin) -> tuple[bool, bool]:
    chosen, other = SAFETY_LABELS[safety]
    return (chosen, other) if choice == "a" else (other, chosen)


def agrees(exercise: Exercise, choice: Slot | None, grade: Grade | None, safety: SafetyBin | None) -> bool:
    """Whether a reply counts as agreement: the choice and, where it is asked, safety; not the grade.

    Args:
        exercise: with the key.
        choice: the chosen slot; ``None``: it was skipped.
        grade: how strongly.
        safety: the bin; ``None``: it was not asked.
    """
    return mark(exercise, choice, grade, safety).agrees


def score(replies: Sequence[Reply], min_agreement: float) -> Score:
    """Score an attempt; wants one reply for each question that was put, else skipping the hard ones would help."""
    if not replies:
        raise ValueError("an attempt without questions has no score")
    marks = [mark(reply.exercise, reply.choice, reply.grade, reply.safety) for reply in replies]
    return Score(
        n_questions=len(marks),
        n_agreed=sum(item.agrees for item in marks),
        n_chosen=sum(item.choice for item in marks),
        n_graded=sum(item.grade for item in marks),
        min_agreement=min_agreement,
    )


def feedback(exercise: Exercise, choice: Slot | None, grade: Grade | None, safety: SafetyBin | None) -> str:
    """Markdown for somebody who judged a training example: what agrees, what does not, and the explanation.

    Args:
        exercise: with the key.
        choice: the chosen slot; ``None``: it was skipped.
        grade: how strongly.
        safety: the bin; ``None``: it was not asked.
    """
    marked = mark(exercise, choice, grade, safety)
    sentences = [
        _about_choice(marked, choice),
        _about_grade(exercise, marked, grade),
        _about_safety(exercise, marked, safety),
    ]
    return f"{' '.join(filter(None, sentences))}\n\n{exercise.explanation}"


def _about_choice(marked: Mark, choice: Slot | None) -> str:
    if choice is None:
        return texts.EXAMPLE_SKIPPED
    return texts.EXAMPLE_SAME if marked.choice else texts.EXAMPLE_OTHER


def _about_grade(exercise: Exercise, marked: Mark, grade: Grade | None) -> str:
    accepted = texts.EXAMPLE_OR.join(f"*{texts.EXAMPLE_GRADES[each]}*" for each in exercise.expected.grades)
    if not marked.choice:
        return texts.EXAMPLE_GRADE.format(accepted=accepted)
    if marked.grade:
        return texts.EXAMPLE_GRADE_FITS.format(accepted=accepted)
    if grade is None:
        return texts.EXAMPLE_GRADE_MISSING.format(accepted=accepted)
    return texts.EXAMPLE_GRADE_DIFFERS.format(accepted=accepted, grade=texts.EXAMPLE_GRADES[grade])


def _about_safety(exercise: Exercise, marked: Mark, safety: SafetyBin | None) -> str:
    if exercise.expected.safety is None or safety is None:
        return ""
    ours = texts.EXAMPLE_SAFETY[exercise.expected.safety]
    return (texts.EXAMPLE_SAFETY_SAME if marked.safety else texts.EXAMPLE_SAFETY_OTHER).format(safety=ours)
