"""No label is lost without a word: it is used, the row or file is refused, or the key is named as not used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment.data.jsonl_and_raw_rows import ReadReport
from alignment.data.readers import load_comparisons, load_demonstrations, load_prompts
from alignment.data.records import Comparison, Demonstration, Prompt
from alignment.errors import UserError

Turns = list[dict[str, str]]


def turns(*texts: str) -> Turns:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


TRL = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}
TRL_MESSAGES = {"prompt": turns("Hi?"), "chosen": turns("", "Yes.")[1:], "rejected": turns("", "No.")[1:]}
ALPACA = {"instruction": "Hi?", "chosen": "Yes.", "rejected": "No."}
HH = {"chosen": "\n\nHuman: Hi?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Hi?\n\nAssistant: No."}
ALPACA_EVAL = {"instruction": "Hi?", "output_1": "Yes.", "output_2": "No.", "preference": 1.45}
SHAPES = {"trl": TRL, "messages": TRL_MESSAGES, "alpaca": ALPACA, "hh": HH, "alpaca_eval": ALPACA_EVAL}
"""One pair in the shapes of README's table, by the shape's name."""
Write = Callable[..., str]


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def write(*rows: dict[str, Any]) -> str:
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def pair(source: str, **options: Any) -> Comparison:
    (found,), report = load_comparisons(source, dimension=options.pop("dimension", "helpfulness"), **options)
    assert report.is_whole
    return found


def said(record: Comparison | Demonstration | Prompt) -> list[tuple[str, str]]:
    messages = record.prompt if isinstance(record, Comparison) else record.messages
    return [(message.role, message.content) for message in messages]


def refusal(load: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
class TestInEveryShape:
    def test_grade_and_safety_bin_are_kept(self, shape: dict[str, Any], file: Write) -> None:
        labels = {"grade": "better", "safety": {"bin": "both_safe"}}
        found = pair(file({**shape, **labels}))
        assert (found.grade, found.safety and found.safety.bin) == ("better", "both_safe")
        assert pair(file({**shape, **labels, "safety": "both_unsafe"})).safety == found.safety.model_copy(  # type: ignore[union-attr]
            update={"bin": "both_unsafe"}
        )

    @pytest.mark.parametrize("key", ["dimension", "tag"])
    def test_a_row_about_something_else_is_counted(self, key: str, shape: dict[str, Any], file: Write) -> None:
        rows = file({**shape, key: "safety"}, {**shape, key: "helpfulness"})
        found, report = load_comparisons(rows, dimension="safety")
        assert [item.dimension for item in found] == ["safety"]
        assert report.skipped == {"about helpfulness": 1}
        prompts, _ = load_prompts(rows)
        assert [item.dimension for item in prompts] == ["safety", "helpfulness"]

    @pytest.mark.parametrize(
        ("margin", "grade"),
        [
            (3, "significantly_better"),
            (2.9, "better"),
            (2, "better"),
            (1, "slightly_better"),
            (0.99, "negligibly_better"),
            (0, "negligibly_better"),
        ],
    )
    def test_margins_and_scores_become_grades(
        self, margin: float, grade: str, shape: dict[str, Any], file: Write
    ) -> None:
        assert pair(file({**shape, "margin": margin})).grade == grade
        if margin:
            assert pair(file({**shape, "score_chosen": 5 + margin, "score_rejected": 5})).grade == grade

    def test_scores_that_say_otherwise_are_no_preference(self, shape: dict[str, Any], file: Write) -> None:
        rows = [{**shape, "score_chosen": chosen, "score_rejected": 5} for chosen in (4, 5, 6)]
        found, report = load_comparisons(file(*rows, {**shape, "margin": -1}), dimension="helpfulness")
        assert len(found) == 1
        assert report.skipped == {
            "without a preference (the other answer has the higher score)": 1,
            "without a preference (equal scores)": 1,
            "without a preference (negative margin)": 1,
        }

    def test_what_stands_before_the_prompt_is_kept(self, shape: dict[str, Any], file: Write) -> None:
        row = {**shape, "system": "Be kind.", "history": [["One?", "1."]]}
        assert said(pair(file(row))) == [("system", "Be kind."), ("user", "One?"), ("assistant", "1."), ("user", "Hi?")]
        (prompt,), _ = load_prompts(file(row))
        (demonstration,), _ = load_demonstrations(file(row))
        assert said(prompt) == said(pair(file(row)))
        assert said(demonstration) == [*said(prompt), ("assistant", "Yes.")]
        assert said(pair(file({**shape, "context": "It rains."}))) == [("user", "Hi?\n\nIt rains.")]
        earlier = [("user", "One?"), ("assistant", "1.")]
        assert said(pair(file({**shape, "context": turns("One?", "1.")}))) == [*earlier, ("user", "Hi?")]

    def test_a_conversation_stays_one(self, shape: dict[str, Any], file: Write) -> None:
        assert pair(file({**shape, "conversation_id": "c7"})).conversation_id == "c7"

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("grade", "A+"),
            ("safety", {"level": 3}),
            ("dimension", "honesty"),
            ("tag", "math"),
            ("margin", "wide"),
            ("score_chosen", 4),
            ("score_overall", 4),
            ("label", True),
            ("system", 7),
            ("history", "earlier"),
            ("context", 3),
        ],
    )
    def test_a_label_without_a_meaning_is_refused_with_the_line_that_lets_it_pass(
        self, key: str, value: object, shape: dict[str, Any], file: Write
    ) -> None:
        rows = file({**shape, key: value})
        message = refusal(load_comparisons, rows, dimension="helpfulness")
        assert f"{rows}, line 1" in message and f"data.unused=[{key}]" in message
        (found,), report = load_comparisons(rows, dimension="helpfulness", unused=[key])
        assert (found.chosen_text, report.unread) == ("Yes.", {key: 1})

    def test_any_other_key_is_named_once(self, shape: dict[str, Any], file: Write) -> None:
        rows = file({**shape, "model": "m", "empty": None}, {**shape, "model": "m", "note": "n"})
        found, report = load_comparisons(rows, dimension="helpfulness")
        assert (len(found), report.unread) == (2, {"model": 2, "note": 1})
        assert report.summary().endswith("not used: model, note")


def test_a_label_that_may_go_unread_is_read_where_it_has_a_meaning(file: Write) -> None:
    """One list is for all files: a tag without a meaning in one is the tag of the prompts in another."""
    rows = [{**TRL, "tag": "safety"}, {**TRL, "tag": "math"}, {**TRL, "grade": "better"}]
    found, report = load_comparisons(file(*rows), dimension="safety", unused=["tag", "grade"])
    assert [item.grade for item in found] == [None, None, "better"]
    assert report.unread == {"tag": 1}
    prompts, _ = load_prompts(file(*rows), unused=["tag"])
    assert [item.dimension for item in prompts] == ["safety", "helpfulness", "helpfulness"]


def test_a_dimension_and_a_tag_have_to_agree(file: Write) -> None:
    assert pair(file({**TRL, "dimension": "safety", "tag": "safety"}), dimension="safety").dimension == "safety"
    row = file({**TRL, "dimension": "safety", "tag": "helpfulness"})
    assert "data.unused=[label,tag]" in refusal(load_comparisons, row, dimension="safety", unused=["label"])


OWN = {
    "id": "c1",
    "prompt": turns("Hi?"),
    "chosen": [{"role": "assistant", "content": "Yes."}],
    "rejected": [{"role": "assistant", "content": "No."}],
    "dimension": "helpfulness",
    "grade": "better",
    "safety": {"bin": "both_safe"},
    "objective": "honesty",
    "conversation_id": "k1",
}


@pytest.mark.parametrize("without", [[], ["id"], ["conversation_id"], ["id", "conversation_id"]])
def test_own_comparisons_are_known_with_a_key_more_or_without_an_id(without: list[str], file: Write) -> None:
    row = {key: value for key, value in OWN.items() if key not in without} | {"reviewer": "ada"}
    (found,), report = load_comparisons(file(row), dimension="helpfulness")
    assert (found.grade, found.objective, found.safety and found.safety.bin) == ("better", "honesty", "both_safe")
    assert (found.id == "c1") == ("id" not in without)
    assert (found.conversation_id == "k1") == ("conversation_id" not in without)
    assert report.unread == {"reviewer": 1}


@pytest.mark.parametrize("key", ["dimension", "tag"])
def test_own_prompts_keep_their_tag_with_a_key_more_or_without_an_id(key: str, file: Write) -> None:
    row = {"id": "p1", "messages": turns("Hi?"), key: "safety", "source": "web"}
    (found,), report = load_prompts(file(row))
    assert (found.id, found.dimension, report.unread) == ("p1", "safety", {"source": 1})
    (found,), report = load_prompts(file({name: row[name] for name in row if name != "id"}))
    assert (found.dimension, report.unread) == ("safety", {"source": 1})


def test_what_is_labelled_bad_is_never_imitated(file: Write) -> None:
    rows = [{"prompt": "Hi?", "completion": str(label), "label": label} for label in (True, False, 1, 0)]
    found, report = load_demonstrations(file(*rows))
    assert [item.messages[-1].content for item in found] == ["True", "1"]
    assert report.skipped == {"label is false": 2}
    assert "data.unused=[label]" in refusal(load_demonstrations, file({**rows[0], "label": "good"}))


def test_a_list_of_turns_written_as_a_text_is_no_prompt(file: Write) -> None:
    """As in the Chatbot Arena's conversations of 2024."""
    turns_as_text = json.dumps(["How are you?", "And now?"])
    arena = {"id": 1, "prompt": turns_as_text, "response_a": "[]", "response_b": "[]", "winner_tie": 0}
    assert "is a JSON list of 2 texts" in refusal(load_prompts, file(arena))
    (found,), report = load_prompts(file(arena, {**arena, "prompt": '["quoted" words are fine'}), on_error="skip")
    assert found.messages[0].content.startswith('["quoted"')
    assert list(report.skipped) == ["malformed"]


def test_a_system_turn_is_not_written_over(file: Write) -> None:
    row = {"messages": [{"role": "system", "content": "A."}, *turns("Hi?", "Yes.")], "system": "B."}
    assert "begins with a system turn" in refusal(load_demonstrations, file(row))


def test_reports_say_whether_a_file_was_used_whole() -> None:
    assert ReadReport(path="f", read=1).is_whole
    assert not ReadReport(path="f", read=1, unread={"k": 1}).is_whole
    assert not ReadReport(path="f", read=1, skipped={"malformed": 1}).is_whole


@pytest.mark.parametrize("turns_before", [[], [{"role": "system", "content": "Be kind."}]])
def test_a_context_without_a_question_is_refused_or_skipped(turns_before: Turns, file: Write) -> None:
    for row in ({"messages": turns_before, "context": "It rains."}, {**TRL, "prompt": turns_before, "context": "Rain"}):
        rows = file(row, {"messages": turns("Hi?")})
        assert f"{rows}, line 1: 'context' is a text that belongs to a question" in refusal(load_prompts, rows)
        (found,), report = load_prompts(rows, on_error="skip")
        assert (said(found), report.n_skipped) == ([("user", "Hi?")], 1)


def test_what_else_a_turn_holds_is_named(file: Write) -> None:
    asked, answered = turns("Hi?", "Yes.")
    row = {"messages": [{**asked, "name": "ada", "thread": None}, {**answered, "weight": 1, "tool_calls": [{"id": 1}]}]}
    found, report = load_demonstrations(file(row, row))
    assert said(found[0]) == [("user", "Hi?"), ("assistant", "Yes.")]
    assert report.unread == {"messages[].name": 2, "messages[].tool_calls": 2}


def test_a_turn_that_is_not_to_be_learned_is_refused(file: Write) -> None:
    asked, answered = turns("Hi?", "Yes.")
    message = refusal(load_demonstrations, file({"messages": [asked, {**answered, "weight": 0}]}))
    assert "messages[1] has weight 0" in message
