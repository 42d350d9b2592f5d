"""Readers of other people's formats: what is kept, left out, counted or refused."""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignment.data import jsonl_and_raw_rows
from alignment.data.formats.alpaca import alpaca_eval_grade
from alignment.data.formats.hh import parse_transcript
from alignment.data.formats.row_format import (
    FORMATS,
    Format,
    Row,
    comparison_reader,
    demonstration_reader,
    has_keys,
    make_pair,
    prompt_reader,
    text_at,
)
from alignment.data.jsonl_and_raw_rows import read_jsonl, write_jsonl
from alignment.data.readers import load_comparisons, load_demonstrations, load_prompts
from alignment.data.records import Comparison, Demonstration, Dialogue, Message, Prompt
from alignment.data.splits import first_turn_key, split_by_conversation
from alignment.errors import UserError

REAL_DATA = Path(__file__).parents[4] / "shared" / "real_data"
needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"needs the data sets in {REAL_DATA}")

HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye?\n\nAssistant: Good bye.\n\nSee you.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye?\n\nAssistant: No.",
}
ALPACA = {"instruction": "Add.", "input": "1 + 1", "output": "2", "chosen": "2", "rejected": "3"}
ALPACA_EVAL = {"instruction": "Add.", "output_1": "2", "output_2": "3", "preference": 1.0}


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def said(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """Write rows (or raw text) to a file and return its path."""

    def write(rows: list[Any] | str, name: str = "data.jsonl") -> str:
        path = tmp_path / name
        if name.endswith(".parquet"):
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), path)
            return str(path)
        text = rows if isinstance(rows, str) else "\n".join(json.dumps(row) for row in rows) + "\n"
        if isinstance(rows, list) and ".json" in path.suffixes:
            text = json.dumps(rows, indent=1)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return str(path)

    return write


def comparison(source: str, **options: Any) -> Comparison:
    records, _ = load_comparisons(source, dimension="safety", **options)
    assert len(records) == 1
    return records[0]


def test_hh(file: Callable[..., str]) -> None:
    record = comparison(file([HH]))
    assert said(record.prompt) == [("user", "Hi"), ("assistant", "Hello."), ("user", "Bye?")]
    assert (record.chosen_text, record.rejected_text) == ("Good bye.\n\nSee you.", "No.")
    assert (record.dimension, record.grade, record.id) == ("safety", None, "data-000001")
    (demonstration,), _ = load_demonstrations(file([HH]))
    assert said(demonstration.messages)[-2:] == [("user", "Bye?"), ("assistant", "Good bye.\n\nSee you.")]
    (prompt,), _ = load_prompts(file([HH]), dimension="safety")
    assert (prompt.messages, prompt.dimension, prompt.kind) == (record.prompt, "safety", "safety")


def test_a_name_inside_a_sentence_opens_no_turn() -> None:
    assert [m.content for m in parse_transcript("Human: Who is\nHuman: or Assistant: ?\n\nAssistant: me")] == [
        "Who is\nHuman: or Assistant: ?",
        "me",
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({**HH, "rejected": "\n\nHuman: Hey\n\nAssistant: No."}, "differ before the last answer"),
        (
            {**HH, "rejected": HH["chosen"] + "\n\nHuman: More?\n\nAssistant: No."},
            "differ before the last answer",
        ),
        (
            {**HH, "chosen": "\n\nHuman: Hi\n\nAssistant:", "rejected": "\n\nHuman: Hi\n\nAssistant: a"},
            "empty",
        ),
        (
            {k: f"\n\nHuman: Hi\n\nAssistant:\n\nHuman: Hi\n\nAssistant: {k}" for k in ("chosen", "rejected")},
            r"turn 2 \(assistant\) is empty",
        ),
        (
            {k: f"\n\nHuman: Hi\n\nHuman: Hi\n\nAssistant: {k}" for k in ("chosen", "rejected")},
            "turn 2 is by 'user', expected 'assistant'",
        ),
        ({**HH, "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye?"}, "does not end with a turn"),
        ({**HH, "chosen": "Preface\n\nHuman: Hi\n\nAssistant: x"}, "does not start with"),
        ({"chosen": HH["chosen"]}, "'rejected' is missing"),
        ({**HH, "rejected": None}, "'rejected' must be a text, is null"),
        ({**HH, "rejected": 3}, "'rejected' must be a text, is int"),
    ],
)
def test_malformed_transcripts(file: Callable[..., str], row: dict[str, Any], problem: str) -> None:
    source = file([HH, row, HH])
    with pytest.raises(UserError, match=problem) as caught:
        load_comparisons(source, dimension="safety", format="hh")
    assert f"{source}, line 2: " in str(caught.value)
    records, report = load_comparisons(source, dimension="safety", format="hh", on_error="skip")
    assert [record.id for record in records] == ["data-000001", "data-000003"], "ids do not shift"
    assert (report.read, report.skipped) == (2, {"malformed": 1})
    assert report.examples["malformed"].startswith("line 2: ")


def test_alpaca(file: Callable[..., str]) -> None:
    record = comparison(file([ALPACA], "a.json"))
    assert said(record.prompt) == [("user", "Add.\n\n1 + 1")]
    assert (record.chosen_text, record.rejected_text, record.id) == ("2", "3", "a-000001")
    rows = [
        {"instruction": "Add 1 and 1.", "input": "", "output": "2"},
        {"instruction": "Hi", "output": "Ho"},
    ]
    records, report = load_demonstrations(file(rows))
    assert [said(r.messages) for r in records] == [
        [("user", "Add 1 and 1."), ("assistant", "2")],
        [("user", "Hi"), ("assistant", "Ho")],
    ]
    assert report.summary().endswith(": 2 records")
    (best,), _ = load_demonstrations(file([{**ALPACA, "output": "3"}]))
    assert best.messages[-1].content == "2", "of a comparison, the preferred answer"
    (prompt,), _ = load_prompts(file([{"instruction": "Add."}]))
    assert said(prompt.messages) == [("user", "Add.")]


@pytest.mark.parametrize(
    ("preference", "grade"),
    [
        (1.0, "significantly_better"), (2.0, "significantly_better"), (1.995, "significantly_better"),
        (1.98, "better"), (1.05, "better"), (1.91, "better"),
        (1.89, "slightly_better"), (1.2, "slightly_better"), (1.71, "slightly_better"),
        (1.69, "negligibly_better"), (1.4999, "negligibly_better"), (1.51, "negligibly_better"),
    ],
)  # fmt: skip
def test_alpaca_eval(file: Callable[..., str], preference: float, grade: str) -> None:
    record = comparison(file([{**ALPACA_EVAL, "preference": preference}]))
    assert record.grade == grade == alpaca_eval_grade(preference)
    expected = ("2", "3") if preference < 1.5 else ("3", "2")
    assert (record.chosen_text, record.rejected_text) == expected


def test_rows_without_a_preference_are_left_out_and_counted(file: Callable[..., str]) -> None:
    rows = [ALPACA_EVAL, {**ALPACA_EVAL, "preference": 1.5}, {**ALPACA_EVAL, "output_2": " 2"}, ALPACA_EVAL]
    records, report = load_comparisons(file(rows), dimension="helpfulness")
    assert len(records) == report.read == 2
    assert report.skipped == {
        "without a preference (exact tie)": 1,
        "without a preference (equal answers)": 1,
    }
    assert report.examples["without a preference (exact tie)"] == "line 2"
    assert "1 without a preference (equal answers) (first: line 3)" in report.summary()


@pytest.mark.parametrize("value", [0.99, 2.01, "1.2", None, True, float("nan"), [1]])
def test_alpaca_eval_strength_out_of_range(file: Callable[..., str], value: object) -> None:
    with pytest.raises(UserError, match=r"line 1: 'preference' must be a number from 1 to 2"):
        comparison(file([{**ALPACA_EVAL, "preference": value}]))


SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, ["Hi"]),
        ({"prompt": "Hi", "chosen": [turns("", "a")[1]], "rejected": [turns("", "b")[1]]}, ["Hi"]),
        ({"prompt": turns("Hi", "x", "Ho"), "chosen": "a", "rejected": "b"}, ["Hi", "x", "Ho"]),
        ({"prompt": [SYSTEM, *turns("Hi")], "chosen": "a", "rejected": "b"}, ["Be kind.", "Hi"]),
        ({"chosen": turns("Hi", "a"), "rejected": turns("Hi", "b")}, ["Hi"]),
        ({"prompt": "Hi", "chosen": turns("Hi", "a"), "rejected": turns("Hi", "b")}, ["Hi"]),
        (
            {"chosen": [SYSTEM, *turns("Hi", "a")], "rejected": [SYSTEM, *turns("Hi", "b")]},
            ["Be kind.", "Hi"],
        ),
        ({"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": "a", "rejected": "b"}, ["Hi"]),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_trl_preferences(file: Callable[..., str], row: dict[str, Any], prompt: list[str], name: str) -> None:
    source = file([row], name)
    record = comparison(source)
    assert [message.content for message in record.prompt] == prompt
    assert (record.chosen_text, record.rejected_text) == ("a", "b")
    (demonstration,), _ = load_demonstrations(source)
    assert demonstration.messages == record.prompt + record.chosen
    (loaded,), _ = load_prompts(source)
    assert loaded.messages == record.prompt


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"chosen": "a", "rejected": "b"}, "'chosen' is a text, so 'prompt' is needed"),
        ({"prompt": "Hi", "chosen": [{"role": "tool", "content": "a"}], "rejected": "b"}, "role 'tool'"),
        (
            {"prompt": "Hi", "chosen": [{"from": "gpt"}], "rejected": "b"},
            r"chosen\[0\] must be an object with",
        ),
        (
            {"prompt": "Hi", "chosen": [{"role": "assistant", "content": None}], "rejected": "b"},
            "content that is null",
        ),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "'prompt' must be a list of messages, is int"),
        ({"prompt": "Hi", "chosen": " ", "rejected": "b"}, "preferred answer is empty"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "empty"),
        ({"chosen": turns("Hi", "a"), "rejected": turns("Ho", "b")}, "differ before the last answer"),
    ],
)
def test_malformed_trl_rows(file: Callable[..., str], row: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=rf"line 1: .*{problem}"):
        load_comparisons(file([row]), dimension="safety")


def test_trl_demonstrations(file: Callable[..., str]) -> None:
    for row in ({"messages": turns("Hi", "a")}, {"prompt": "Hi", "completion": "a"},
                {"prompt": turns("Hi"), "completion": turns("", "a")[1:], "source": "x"}):  # fmt: skip
        (record,), _ = load_demonstrations(file([row]))
        assert said(record.messages) == [("user", "Hi"), ("assistant", "a")]
        (prompt,), _ = load_prompts(file([row]))
        assert said(prompt.messages) == [("user", "Hi")]
    (prompt,), _ = load_prompts(file([{"prompt": "Hi"}]))
    assert said(prompt.messages) == [("user", "Hi")]


def own_comparison(number: int, **changes: Any) -> Comparison:
    return Comparison.model_validate(
        {
            "id": f"c{number}", "prompt": turns(f"Hi {number}"), "chosen": turns("", "a")[1:],
            "rejected": turns("", "b")[1:], "conversation_id": f"talk{number}", **changes,
        }
    )  # fmt: skip


def test_own_records_come_back_unchanged(tmp_path: Path) -> None:
    records = [own_comparison(1, grade="better", safety={"bin": "both_safe"}), own_comparison(2)]
    other = own_comparison(3, dimension="safety", kind="borderline")
    path = tmp_path / "own.jsonl.gz"
    write_jsonl(tmp_path / "own.jsonl", [*records, other])
    path.write_bytes(gzip.compress((tmp_path / "own.jsonl").read_bytes()))
    loaded, report = load_comparisons(str(path), dimension="helpfulness")
    assert loaded == records
    assert report.skipped == {"about safety": 1}
    demonstrations, _ = load_demonstrations(str(path))
    assert demonstrations[0] == Demonstration(id="c1", messages=records[0].prompt + records[0].chosen)
    prompts, _ = load_prompts(str(path))
    assert [(p.id, p.dimension, p.kind) for p in prompts] == [
        ("c1", "helpfulness", "helpfulness"),
        ("c2", "helpfulness", "helpfulness"),
        ("c3", "safety", "borderline"),
    ]


def test_own_demonstrations_and_prompts(tmp_path: Path) -> None:
    demonstration = Demonstration.model_validate({"id": "d", "messages": turns("Hi", "a")})
    prompt = Prompt.model_validate({"id": "p", "messages": turns("Hi"), "dimension": "safety", "kind": "k"})
    write_jsonl(tmp_path / "d.jsonl", [demonstration])
    write_jsonl(tmp_path / "p.jsonl", [prompt])
    assert load_demonstrations(str(tmp_path / "d.jsonl"))[0] == [demonstration]
    assert load_prompts(str(tmp_path / "p.jsonl"))[0] == [prompt]
    (of_demonstration,), _ = load_prompts(str(tmp_path / "d.jsonl"), dimension="safety")
    assert (of_demonstration.id, said(of_demonstration.messages)) == ("d", [("user", "Hi")])
    assert of_demonstration.dimension == "safety"


def test_malformed_own_record_names_the_field(file: Callable[..., str]) -> None:
    rows = [own_comparison(1).model_dump(), {**own_comparison(2).model_dump(), "grade": "great"}]
    with pytest.raises(UserError, match=r"line 2: 'grade' must be one of .*negligibly_better"):
        load_comparisons(file(rows), dimension="helpfulness")


def test_unknown_format_names_the_nearest(file: Callable[..., str]) -> None:
    with pytest.raises(UserError, match=r"known are auto, tandem, .*Did you mean 'alpaca'"):
        load_demonstrations(file([ALPACA]), format="alpacca")
    with pytest.raises(UserError, match=r"line 1: 'output_1' is missing"):
        load_demonstrations(file([HH]), format="alpaca_eval")


def test_unrecognised_content_names_its_keys(file: Callable[..., str]) -> None:
    with pytest.raises(UserError, match=r"keys 'question', 'reply'.*Known formats are .*hh"):
        load_demonstrations(file([{"question": "Hi", "reply": "a"}]))
    with pytest.raises(UserError, match="cannot tell which format holds comparisons"):
        load_comparisons(file([{"instruction": "Hi", "output": "a"}]), dimension="helpfulness")


@pytest.mark.parametrize(
    ("text", "name", "problem"),
    [
        ("", "a.jsonl", "is empty"),
        ("\n \n", "a.jsonl", "is empty"),
        ("[]", "a.json", "is empty"),
        ('{"instruction": "Hi", "output": "a"}\n{"instruction": \n', "a.jsonl", r"line 2: not JSON"),
        ('{"instruction"', "a.jsonl", r"line 1: not JSON"),
        ("[1, 2]", "a.json", "item 1: expected an object, found int"),
        ('[{"instruction": "Hi", "output": "a"}, "b"]', "a.json", "item 2: expected an object, found str"),
        ('[{"instruction": "Hi"', "a.json", "not valid JSON"),
        ('{\n "data": []\n}', "a.json", "an object over several lines|a JSON object over several lines"),
        ('[{"instruction": "Hi", "output": ""}]', "a.json", r"item 1: .*turn 2 \(assistant\) is empty"),
    ],
)
def test_broken_files(file: Callable[..., str], text: str, name: str, problem: str) -> None:
    source = file(text, name)
    with pytest.raises(UserError, match=problem) as caught:
        load_demonstrations(source)
    assert source in str(caught.value)


def test_broken_lines_are_skipped_and_counted(file: Callable[..., str]) -> None:
    good = json.dumps({"instruction": "Hi", "output": "a"})
    source = file(f"nonsense\n\n{good}\n[1]\n{good}\n")
    records, report = load_demonstrations(source, on_error="skip")
    assert [record.id for record in records] == ["data-000003", "data-000005"]
    assert report.skipped == {"malformed": 2}
    assert "first: line 1: not JSON" in report.summary()
    with pytest.raises(UserError, match=r"no usable demonstrations .*1 malformed"):
        load_demonstrations(file('{"instruction": "Hi", "output": ""}'), on_error="skip")


def test_damaged_files(tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps({**ALPACA, "id": random.random()}) + "\n" for _ in range(500)).encode())
    for name, content, problem in (
        ("cut.jsonl.gz", whole[: len(whole) // 2], "damaged or cut off"),
        ("no.jsonl.gz", b'{"instruction": "Hi"}', "damaged or cut off"),
        ("latin.jsonl", '{"instruction": "é"}'.encode("latin-1"), "not UTF-8"),
        ("no.parquet", b"PAR1", "not a readable Parquet file"),
    ):
        (tmp_path / name).write_bytes(content)
        for on_error in ("raise", "skip"):
            with pytest.raises(UserError, match=problem) as caught:
                load_demonstrations(str(tmp_path / name), on_error=on_error)  # type: ignore[arg-type]
            assert name in str(caught.value)


def test_byte_order_mark_and_json_lines_named_json(file: Callable[..., str]) -> None:
    line = json.dumps({"instruction": "Hi", "output": "a"})
    assert len(load_demonstrations(file(f"\ufeff{line}\n{line}\n", "a.json"))[0]) == 2
    assert len(load_demonstrations(file(f"\ufeff[{line}]", "b.jsonl"))[0]) == 1


def test_missing_files_never_ask_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for source in (
        "data/missing",
        "data/missing.jsonl",
        "owner/missing.jsonl.gz",
        "missing",
        str(tmp_path / "x"),
    ):
        with pytest.raises(UserError, match="no such file"):
            load_demonstrations(source)
    with pytest.raises(UserError, match="is a folder"):
        load_demonstrations("data")


def test_hub_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[str, str]] = []

    def answer(name: str, *, split: str) -> list[dict[str, Any]]:
        asked.append((name, split))
        if name == "owner/gone":
            raise ConnectionError("Couldn't reach the Hub\nand a long trace")
        return [ALPACA, {**ALPACA, "output": 3, "chosen": 3}]

    monkeypatch.setattr(jsonl_and_raw_rows, "why_not_there", lambda kind, name: None)
    monkeypatch.setattr(datasets, "load_dataset", answer)
    records, report = load_demonstrations("owner/some.set:test", on_error="skip")
    assert [record.id for record in records] == ["some.set:test-000001"]
    assert report.examples["malformed"].startswith("row 2: ")
    with pytest.raises(UserError, match=r"'owner/gone' is neither a file here nor a Hub .*reach the Hub$"):
        load_demonstrations("owner/gone")
    assert asked == [("owner/some.set", "test"), ("owner/gone", "train")]


def test_conversation_is_the_first_user_turn(file: Callable[..., str]) -> None:
    rows = [
        {"chosen": turns("Hi", "x", "Ho", "a"), "rejected": turns("Hi", "x", "Ho", "b")},
        {"chosen": [SYSTEM, *turns("hi ", "a")], "rejected": [SYSTEM, *turns("hi ", "b")]},
        {"chosen": turns("Hello", "a"), "rejected": turns("Hello", "b")},
    ]
    records, _ = load_comparisons(file(rows), dimension="safety")
    first, second, third = (record.conversation_id for record in records)
    assert first == second != third
    assert first == first_turn_key((Message(role="user", content="HI"),))


def many(n_conversations: int) -> list[Comparison]:
    return [
        own_comparison(10 * talk + turn, conversation_id=f"talk{talk}")
        for talk in range(n_conversations)
        for turn in range(3)
    ]


def test_split_keeps_conversations_together() -> None:
    records = many(600)
    train, heldout = split_by_conversation(records, heldout_fraction=0.2, seed=3)
    assert not {r.conversation_id for r in train} & {r.conversation_id for r in heldout}
    assert sorted(r.id for r in [*train, *heldout]) == sorted(r.id for r in records)
    assert abs(len(heldout) / len(records) - 0.2) < 0.06  # 3.7 standard errors of 600 draws
    shuffled = random.Random(0).sample(records, len(records))
    assert {r.id for r in split_by_conversation(shuffled, heldout_fraction=0.2, seed=3)[1]} == {r.id for r in heldout}
    other = split_by_conversation(records, heldout_fraction=0.2, seed=4)[1]
    assert {r.id for r in other} != {r.id for r in heldout}
    more = split_by_conversation(many(700), heldout_fraction=0.2, seed=3)[1]
    assert {r.id for r in heldout} <= {r.id for r in more}, "new records move no old ones"
    assert split_by_conversation(records, heldout_fraction=0.0, seed=3) == (records, [])
    assert split_by_conversation(records, heldout_fraction=1.0, seed=3) == ([], records)
    with pytest.raises(ValueError, match="from 0 to 1"):
        split_by_conversation(records, heldout_fraction=20, seed=3)


def test_split_of_demonstrations_goes_by_their_first_turn() -> None:
    records = [
        Demonstration.model_validate({"id": f"{n}-{k}", "messages": turns(f"Hi {n}", "x", f"more {k}", "a")})
        for n in range(100)
        for k in range(2)
    ]
    train, heldout = split_by_conversation(records, heldout_fraction=0.3, seed=0)
    assert heldout
    assert not {r.id.split("-")[0] for r in train} & {r.id.split("-")[0] for r in heldout}


def test_table_of_formats() -> None:
    assert set(FORMATS) == {"tandem", "hh", "alpaca", "alpaca_eval", "trl"}


@needs_real_data
@pytest.mark.parametrize(
    ("name", "n_rows", "read", "skipped"),
    [
        ("hh_harmless_base.jsonl.gz", 1500, 1491, {"malformed": 9}),
        (
            "alpaca_eval_weighted.jsonl.gz",
            1516,
            1503,
            {"without a preference (exact tie)": 12, "malformed": 1},
        ),
        ("alpaca_format_preferences.json", 1100, 1094, {"without a preference (equal answers)": 6}),
    ],
)
def test_real_comparisons(name: str, n_rows: int, read: int, skipped: dict[str, int]) -> None:
    records, report = load_comparisons(str(REAL_DATA / name), dimension="helpfulness", on_error="skip")
    assert report.read + report.n_skipped == n_rows, "nothing is left out uncounted"
    assert (len(records), report.skipped) == (read, skipped)
    assert len({record.id for record in records}) == read
    train, heldout = split_by_conversation(records, heldout_fraction=0.2, seed=0)
    assert not {first_turn_key(r.prompt) for r in train} & {first_turn_key(r.prompt) for r in heldout}
    if name.startswith("alpaca_eval"):
        assert {record.grade for record in records} == {
            "significantly_better", "better", "slightly_better", "negligibly_better"
        }  # fmt: skip


@needs_real_data
def test_real_demonstrations() -> None:
    for name, read in (("alpaca_format_instructions.json", 1100), ("alpaca_format_preferences.json", 1100)):
        records, report = load_demonstrations(str(REAL_DATA / name))
        assert (len(records), report.skipped) == (read, {})
    records, report = load_demonstrations(str(REAL_DATA / "hh_harmless_base.jsonl.gz"), on_error="skip")
    assert (len(records), report.skipped) == (1492, {"malformed": 8})


def test_a_new_format_is_an_entry_in_the_table(file: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def dialogue(row: Row) -> Dialogue:
        return (Message(role="user", content=text_at(row, "frage")),)

    has_question = has_keys("frage")
    format = Format(
        comparisons=comparison_reader(has_keys("frage", "gut"), lambda row: make_pair(dialogue(row), row["gut"], "?")),
        demonstrations=demonstration_reader(
            has_question, lambda row: (*dialogue(row), Message(role="assistant", content="!"))
        ),
        prompts=prompt_reader(has_question, dialogue),
    )
    monkeypatch.setitem(sys.modules, "german_format", SimpleNamespace(GERMAN=format))
    monkeypatch.setitem(FORMATS, "german", "german_format:GERMAN")
    source = file([{"frage": "Wie?", "gut": "So."}])
    (prompt,), _ = load_prompts(source, dimension="safety")
    assert (prompt.id, prompt.messages[0].content, prompt.dimension) == ("data-000001", "Wie?", "safety")
    assert comparison(source).chosen_text == "So."
    (demonstration,), _ = load_demonstrations(source)
    assert demonstration.messages[-1].content == "!"
    with pytest.raises(UserError, match=r"line 1: 'frage' must be a text, is int"):
        load_prompts(file([{"frage": 3}]))


def test_a_byte_order_mark_is_no_part_of_our_own_records_either(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    write_jsonl(path, [Prompt(id="p", messages=(Message(role="user", content="Hi"),))])
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert read_jsonl(path, Prompt)[0] == load_prompts(str(path))[0]
