"""Prompts, pairs and gold items from files: what becomes an item, what is counted, and what is refused."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from annotation_fixtures import Office, app_settings, assistant, new_item, rows, user

from alignment.data.jsonl_and_raw_rows import write_jsonl
from alignment.data.records import Comparison
from alignment.errors import UserError
from annotation_ui.desk.exercises import read_exercises
from annotation_ui.exchange import imports, pair_lines
from annotation_ui.exchange.export_judgments import export
from annotation_ui.exchange.imports import Filing, Imported, attention_items, import_items, read_pairs, read_prompts
from annotation_ui.exchange.selection import ExportFilter
from annotation_ui.quality.stored_judgments import as_known
from annotation_ui.store import tables
from annotation_ui.store.database import Store
from annotation_ui.store.items import NewItem, add_items
from annotation_ui.store.pairs import NewAnswer
from annotation_ui.store.projects import project_named

HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye?\n\nAssistant: Good bye.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye?\n\nAssistant: No.",
}
SAME = {slot: NewAnswer("Same.", pair_lines.IMPORTED) for slot in ("a", "b")}
OWN = {"id": "p1", "prompt": "Why is the sky blue?", "answer_a": "Scattering.", "answer_b": "Paint."}


def write(folder: Path, *lines: Any, name: str = "data.jsonl") -> str:
    """A file with these records, or with these very lines."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    file = folder / name
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(file)


def texts(item: NewItem) -> tuple[str, str]:
    assert item.answers is not None
    return item.answers["a"].text, item.answers["b"].text


def comparison(number: int, **changes: Any) -> Comparison:
    fields: dict[str, Any] = {
        "id": f"round-1-train-helpfulness-{number:05d}",
        "prompt": [{"role": "user", "content": f"ask {number}"}],
        "chosen": [{"role": "assistant", "content": f"good {number}"}],
        "rejected": [{"role": "assistant", "content": f"bad {number}"}],
        "conversation_id": f"c{number}",
    }
    return Comparison.model_validate(fields | changes)


# -- prompts ----------------------------------------------------------------------------------------------------------


def test_own_prompts_keep_what_they_say(tmp_path: Path) -> None:
    source = write(
        tmp_path,
        {"id": "mine", "messages": [{"role": "user", "content": "Sky?"}], "kind": "nature"},
        {"id": "bomb", "messages": [{"role": "user", "content": "Bomb?"}], "dimension": "safety"},
        {"id": "again", "messages": [{"role": "user", "content": "  sky? "}]},
    )
    items, report = read_prompts(source, "helpfulness", filing=Filing("heldout", "b7", 3))
    assert items == [NewItem("mine", (user("Sky?"),), part="heldout", batch="b7", priority=3, kind="nature")]
    assert (report.read, report.skipped) == (1, {"about safety": 1, "there twice": 1})


def test_hh_and_alpaca_prompts(tmp_path: Path) -> None:
    (item,), report = read_prompts(write(tmp_path, HH, HH, name="hh.jsonl.gz"), "safety")
    assert item == NewItem("hh-000001", (user("Hi"), assistant("Hello."), user("Bye?")), kind="safety")
    assert report.skipped == {"there twice": 1}
    (item,), _ = read_prompts(write(tmp_path, {"instruction": "Add.", "input": "1 + 1", "output": "2"}), "helpfulness")
    assert item.messages == (user("Add.\n\n1 + 1"),)


def test_limit(tmp_path: Path) -> None:
    lines = [{"id": f"p{n}", "messages": [{"role": "user", "content": f"ask {n // 2}"}]} for n in range(8)]
    items, report = read_prompts(write(tmp_path, *lines), "helpfulness", limit=3)
    assert [item.id for item in items] == ["p0", "p2", "p4"]
    assert report.skipped == {"there twice": 3, "beyond the limit": 2}


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["{"], r"data\.jsonl, line 1"),
        ([{"id": "a", "messages": [{"role": "user", "content": "x"}]}, {"id": "b", "messages": []}], r"line 2: .*turn"),
        ([{"id": "a", "messages": [{"role": "user", "content": text}]} for text in "xy"], "records have the id 'a'"),
        (
            [{"id": "a", "messages": [{"role": "user", "content": "x"}], "dimension": "safety"}],
            "nothing to import.*1 about safety",
        ),
    ],
)
def test_prompts_that_cannot_be(tmp_path: Path, lines: list[Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        read_prompts(write(tmp_path, *lines), "helpfulness")


def test_no_such_file(tmp_path: Path) -> None:
    for read in (read_prompts, read_pairs):
        with pytest.raises(UserError, match="no such file"):
            read(str(tmp_path / "none.jsonl"), "helpfulness")


# -- pairs ------------------------------------------------------------------------------------------------------------


def test_own_pairs(tmp_path: Path) -> None:
    dialogue = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Go on"},
    ]
    source = write(
        tmp_path,
        OWN | {"model_a": "sft@0.7", "kind": "nature", "cut_off": ["b"]},
        {"id": "p2", "messages": dialogue, "answer_a": "One", "answer_b": "Two"},
        {"id": "p3", "prompt": dialogue[:1], "answer_a": "One", "answer_b": "Two", "dimension": "safety"},
    )
    (first, second), report = read_pairs(source, "helpfulness", filing=Filing(priority=1))
    assert (first.messages, texts(first), first.kind) == (
        (user("Why is the sky blue?"),),
        ("Scattering.", "Paint."),
        "nature",
    )
    assert first.answers is not None
    assert [first.answers[slot].variant.name for slot in ("a", "b")] == ["sft@0.7", "imported"]
    assert [first.answers[slot].finish_reason for slot in ("a", "b")] == [None, "length"]
    assert (first.source, first.expected, first.priority) == ("queue", None, 1)
    assert second.messages == (user("Hi"), assistant("Hello"), user("Go on"))
    assert report.skipped == {"about safety": 1}


def test_the_same_pair_in_other_slots_is_there_twice(tmp_path: Path) -> None:
    other = {"id": "p2", "prompt": "why is the SKY blue?", "answer_a": "Paint.", "answer_b": "Scattering."}
    third = OWN | {"id": "p3", "answer_b": "Magic."}
    items, report = read_pairs(write(tmp_path, OWN, other, third), "helpfulness")
    assert [item.id for item in items] == ["p1", "p3"]
    assert report.skipped == {"there twice": 1}


def test_gold_items(tmp_path: Path) -> None:
    expected = {"choice": "b", "grades": ["slightly_better", "better"], "kind": "attention"}
    (item,), _ = read_pairs(write(tmp_path, OWN | {"expected": expected}), "helpfulness")
    assert (item.source, texts(item)) == ("gold", ("Scattering.", "Paint."))
    assert item.expected == {**expected, "grades": ["better", "slightly_better"], "safety": None}
    (item,), _ = read_pairs(write(tmp_path, OWN | {"expected": {"choice": "a", "grades": ["better"]}}), "helpfulness")
    assert item.expected is not None and item.expected["kind"] == "gold"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"answer_b": " Scattering. "}, "two answers are equal"),
        ({"answer_b": "  "}, "answer_b"),
        ({"answer_c": "x"}, "answer_c"),
        ({"model": "x"}, "model: "),
        ({"messages": [{"role": "user", "content": "x"}]}, "either prompt or messages"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "expected 'user'"),
        ({"expected": {"choice": "c", "grades": ["better"]}}, "expected.choice"),
        ({"expected": {"choice": "a", "grades": ["best"]}}, "expected.grades"),
        ({"expected": {"choice": "a", "grades": ["better"], "kind": "trap"}}, "expected.kind"),
    ],
)
def test_pairs_that_cannot_be(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    """The second line is wrong; it can be left out and counted."""
    source = write(tmp_path, OWN, OWN | {"id": "p2"} | changes)
    with pytest.raises(UserError, match=rf"data\.jsonl, line 2: .*{complaint}"):
        read_pairs(source, "helpfulness")
    items, report = read_pairs(source, "helpfulness", on_error="skip")
    assert ([item.id for item in items], report.skipped) == (["p1"], {"malformed": 1})


def test_comparisons_become_pairs_on_mixed_slots(tmp_path: Path) -> None:
    """The better answer is in slot a in about half of them, and always in the same half."""
    write_jsonl(tmp_path / "comparisons.jsonl", [comparison(number) for number in range(400)])
    items, _ = read_pairs(str(tmp_path / "comparisons.jsonl"), "helpfulness")
    in_a = [texts(item)[0].startswith("good") for item in items]
    assert 160 < sum(in_a) < 240  # 4 standard deviations
    assert [{text.split()[0] for text in texts(item)} for item in items] == [{"good", "bad"}] * 400
    again, _ = read_pairs(str(tmp_path / "comparisons.jsonl"), "helpfulness")
    assert again == items


def test_comparisons_keep_their_sources(tmp_path: Path) -> None:
    source = {"variant": "ppo-1@1.3", "checkpoint": "ppo/7", "temperature": 1.3, "max_new_tokens": 9, "seed": 5}
    made = comparison(1, rejected_source=source | {"n_tokens": 3, "finish_reason": "length"}, kind="nature")
    write_jsonl(tmp_path / "c.jsonl", [made])
    (item,), _ = read_pairs(str(tmp_path / "c.jsonl"), "helpfulness")
    assert item.answers is not None and item.kind == "nature"
    by_text = {answer.text: answer for answer in item.answers.values()}
    bad, good = by_text["bad 1"], by_text["good 1"]
    assert (bad.variant.name, bad.variant.checkpoint) == ("ppo-1@1.3", "ppo/7")
    assert bad.variant.sampling == {"temperature": 1.3, "max_new_tokens": 9}
    assert (bad.seed, bad.n_tokens, bad.finish_reason) == (5, 3, "length")
    assert (good.variant.name, good.seed) == ("imported", None)


def test_hh_pairs(tmp_path: Path) -> None:
    (item,), _ = read_pairs(write(tmp_path, HH), "safety")
    assert item.messages == (user("Hi"), assistant("Hello."), user("Bye?"))
    assert set(texts(item)) == {"Good bye.", "No."}


def test_attention_checks() -> None:
    for dimension in ("helpfulness", "safety"):
        items, known = attention_items(dimension), read_exercises(dimension, "attention")
        assert len(items) == len(known) > 0
        for item, exercise in zip(items, known, strict=True):
            assert item.source == "gold" and item.expected is not None and item.expected["kind"] == "attention"
            assert texts(item) == (exercise.answers.a, exercise.answers.b)
            choice = exercise.expected.choice
            assert as_known(json.dumps(item.expected), choice, None)
            assert not as_known(json.dumps(item.expected), "b" if choice == "a" else "a", None)


def test_what_a_database_refuses_is_replaced_at_once(store: Store, tmp_path: Path) -> None:
    """Zero bytes: in prompts, answers, ids and names; imported again, it is the same item."""
    Office(store, live=False)
    bad = {"id": "p\0", "prompt": "Why\0?", "answer_a": "So\0.", "answer_b": "No.", "model_a": "m\0", "kind": "k\0"}
    for expected in (Imported(2, 0), Imported(0, 2)):
        items, _ = read_pairs(write(tmp_path, OWN, bad), "helpfulness")
        assert import_items(store, "helpfulness", items) == expected
    (row,) = rows(store, tables.item, id="helpfulness/p\ufffd")
    assert row.kind == "k\ufffd"
    assert "So\ufffd." in {found.text for found in rows(store, tables.answer)}
    assert "m\ufffd" in {found.name for found in rows(store, tables.variant)}
    assert "Why\ufffd?" in row.messages_json


# -- into the store ---------------------------------------------------------------------------------------------------


def test_import_twice_is_import_once(store: Store, tmp_path: Path) -> None:
    Office(store, live=False)
    items, _ = read_pairs(write(tmp_path, OWN, OWN | {"id": "p2", "prompt": "Grass?"}), "helpfulness")
    assert import_items(store, "helpfulness", items, overlap=3) == Imported(2, 0)
    more = [*items, NewItem("p3", (user("Sun?"),))]
    assert import_items(store, "helpfulness", more) == Imported(1, 2)
    assert [(row.id, row.overlap, row.remaining) for row in rows(store, tables.item)] == [
        ("helpfulness/p1", 3, 3),
        ("helpfulness/p2", 3, 3),
        ("helpfulness/p3", 1, 1),
    ]
    assert len(rows(store, tables.pair)) == 2
    written = {(row.slot, row.text) for row in rows(store, tables.answer)}
    assert written == {("a", "Scattering."), ("b", "Paint.")}


def test_another_record_under_a_known_id(sqlite_store: Store, tmp_path: Path) -> None:
    """Nothing is imported, not even what comes before it."""
    Office(sqlite_store, live=False)
    items, _ = read_pairs(write(tmp_path, OWN), "helpfulness")
    import_items(sqlite_store, "helpfulness", items)
    for changes in ({"prompt": "Why is it red?"}, {"answer_b": "Magic."}):
        others, _ = read_pairs(write(tmp_path, OWN | {"id": "p0"}, OWN | changes), "helpfulness")
        with pytest.raises(UserError, match="helpfulness has an item 'p1' that says something else"):
            import_items(sqlite_store, "helpfulness", others)
    assert [row.id for row in rows(sqlite_store, tables.item)] == ["helpfulness/p1"]


@pytest.mark.parametrize("answered", [False, True])
def test_answers_made_meanwhile_do_not_matter(sqlite_store: Store, answered: bool) -> None:
    """A prompt whose answers a model has written since, to it or to a later turn, is still the same item."""
    office = Office(sqlite_store)
    import_items(sqlite_store, "helpfulness", [new_item("sky", answered=answered)])
    ada = office.person("ada")
    ada.fetch()
    ada.judge()
    ada.ask("and then")
    office.close()
    assert len(rows(sqlite_store, tables.pair)) == 2
    assert import_items(sqlite_store, "helpfulness", [new_item("sky", answered=answered)]) == Imported(0, 1)


def test_answers_of_a_model_are_not_those_of_a_file(sqlite_store: Store) -> None:
    office = Office(sqlite_store)
    import_items(sqlite_store, "helpfulness", [new_item("sky")])
    office.person("ada").fetch()
    office.close()
    with pytest.raises(UserError, match="says something else"):
        import_items(sqlite_store, "helpfulness", [new_item("sky", answered=True)])


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (NewItem("x", (assistant("Hi"),)), "x: .*expected 'user'"),
        (NewItem("x", (user(" "),)), "x: .*empty"),
        (NewItem("x", (user("Hi"),), answers=SAME), "x: an answer is empty, or both are the same"),
    ],
)
def test_items_that_nobody_could_judge(sqlite_store: Store, bad: NewItem, complaint: str) -> None:
    Office(sqlite_store, live=False)
    with pytest.raises(UserError, match=complaint):
        import_items(sqlite_store, "helpfulness", [new_item("sky"), bad])
    with pytest.raises(UserError, match="no project 'help'"):
        import_items(sqlite_store, "help", [new_item("sky")])
    with pytest.raises(UserError, match="at least 1, not 0"):
        import_items(sqlite_store, "helpfulness", [new_item("sky")], overlap=0)
    assert rows(sqlite_store, tables.item) == []


def test_import_cut_short_can_be_repeated(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed stays; the next try adds the rest, in order."""
    Office(sqlite_store, live=False)
    monkeypatch.setattr(imports, "ITEMS_PER_WRITE", 4)
    calls = Counter[str]()

    def fails_the_third_time(*given: Any, **options: Any) -> int:
        calls["n"] += 1
        if calls["n"] == 3:
            raise KeyboardInterrupt
        return add_items(*given, **options)

    monkeypatch.setattr(imports, "add_items", fails_the_third_time)
    items = [new_item(f"p{number}", answered=True) for number in range(10)]
    with pytest.raises(KeyboardInterrupt):
        import_items(sqlite_store, "helpfulness", items)
    assert len(rows(sqlite_store, tables.item)) == 8
    assert import_items(sqlite_store, "helpfulness", items) == Imported(2, 8)
    places = sorted((row.place, row.id) for row in rows(sqlite_store, tables.item))
    assert [name for _, name in places] == [f"helpfulness/p{number}" for number in range(10)]
    assert len({place for place, _ in places}) == 10


def test_known_ids_are_looked_up_in_many_queries(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    Office(sqlite_store, live=False)
    monkeypatch.setattr(imports, "_IDS_PER_QUERY", 2)
    items = [new_item(f"p{number}", answered=True) for number in range(5)]
    import_items(sqlite_store, "helpfulness", items)
    assert import_items(sqlite_store, "helpfulness", items) == Imported(0, 5)


def test_exported_judgments_can_be_judged_again(sqlite_store: Store, tmp_path: Path) -> None:
    """Two people's judgments of one pair are one pair to judge in another project."""
    office = Office(sqlite_store, app_settings({"overlap": 2}, {"name": "again"}), live=False)
    office.add_items(2)
    for name in ("ada", "ben"):
        person = office.person(name)
        person.fetch()
        person.judge()
        person.judge()
    export(sqlite_store, tmp_path / "out.jsonl", ExportFilter.model_validate({}))
    items, report = read_pairs(str(tmp_path / "out.jsonl"), "helpfulness")
    assert report.skipped == {"there twice": 2}
    assert import_items(sqlite_store, "again", items) == Imported(2, 0)
    chi = office.person("chi", "again")
    assert {chi.fetch().prompt, chi.judge().prompt} == {"ask 0", "ask 1"}


def test_gold_comes_from_the_queue(sqlite_store: Store) -> None:
    """A gold item goes to everybody once, and does not use up."""
    office = Office(sqlite_store, app_settings({"gold_share": 1.0}), live=False)
    office.add_items(1)
    one = attention_items("helpfulness")[:1]
    import_items(sqlite_store, "helpfulness", one)
    for name in ("ada", "ben"):
        assert office.person(name).fetch().prompt == one[0].messages[-1].content
    with sqlite_store.read() as connection:
        assert project_named(connection, "helpfulness").overlap == 1
