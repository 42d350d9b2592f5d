"""What an export holds, leaves out and says of itself; that Tandem, ``datasets`` and TRL can read it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import child_process
import pytest
from annotation_fixtures import Office, Person, app_settings, assistant, new_item, rows, slot_of, user
from sqlalchemy import func, select

from alignment.data.jsonl_and_raw_rows import read_jsonl, write_jsonl
from alignment.data.judgments_by_majority import by_majority
from alignment.data.readers import load_comparisons
from alignment.data.records import GRADES, Comparison, Grade, SafetyBin, features_of
from alignment.errors import UserError
from annotation_ui.desk import training_and_test
from annotation_ui.desk.view import View
from annotation_ui.exchange.export_judgments import Manifest, comparisons, export, manifest_file
from annotation_ui.exchange.selection import ExportFilter, Selection, as_moment, filter_from
from annotation_ui.store import accounts, tables
from annotation_ui.store.database import Store
from annotation_ui.store.projects import project_named
from annotation_ui.store.tables import current_judgment, export_log, judgment
from annotation_ui.vocabulary import UNSAFE_PREFERRED, Slot, option_of

BETTER: Grade = "better"
SAFETY_PROJECT = {"name": "safety", "dimension": "safety", "ask_safety": True}


def prefer(person: Person, slot: Slot = "a", grade: Grade = BETTER, **changes: Any) -> View:
    """Judge what is on the desk, by slot; fetch it first where nothing is."""
    view = person.view()
    if view.phase == "warning":
        view = person.accept()
    view = view if view.phase == "open" else person.fetch()
    return person.judge(option_of("left" if slot_of(view.left) == slot else "right", grade), **changes)


def exported(office: Office, folder: Path, **filters: Any) -> tuple[list[Comparison], Manifest]:
    """The records and the manifest of an export, of both parts unless it says which."""
    target, filters = folder / "out.jsonl", {"part": "all", **filters}
    manifest = export(office.store, target, ExportFilter(**filters))
    return read_jsonl(target, Comparison)[0], manifest


def n_current(store: Store) -> int:
    with store.read() as connection:
        return connection.execute(select(func.count()).select_from(current_judgment)).scalar_one()


def quiet(store: Store, *projects: dict[str, Any], items: int = 3, **changes: Any) -> Office:
    """Pairs sampled before: an item is one comparison."""
    office = Office(store, app_settings(*projects, **changes), live=False)
    for project in office.settings.projects:
        office.add_items(items, project.name)
    return office


# -- records ----------------------------------------------------------------------------------------------------------


def test_second_turn_goes_on_from_the_chosen_answer(office: Office, tmp_path: Path) -> None:
    """The whole record, by hand: the first turn chose slot b, the second slot a."""
    office.add_items([new_item("sky", kind="nature", batch="round-1", part="heldout")])
    ada = office.person("ada")
    ada.fetch()
    prefer(ada, "b", "slightly_better", active_ms=1500, input_method="keyboard")
    view = ada.ask("and at night")
    chose_left = slot_of(view.left) == "a"
    prefer(ada, "a", "significantly_better", flagged=True, note="well put")
    records, manifest = exported(office, tmp_path)
    first, second = records
    assert [record.turn for record in records] == [1, 2]
    assert first.prompt == (user("sky"),)
    assert second.prompt == (user("sky"), assistant("blue to 1: sky"), user("and at night"))
    assert (first.chosen_text, first.rejected_text) == ("blue to 1: sky", "red to 1: sky")
    assert (second.chosen_text, second.rejected_text) == ("red to 3: and at night", "blue to 3: and at night")
    assert (first.grade, first.margin, second.grade, second.margin) == (
        "slightly_better",
        1 / 3,
        "significantly_better",
        1.0,
    )
    assert first.conversation_id == second.conversation_id != ""
    assert first.id != second.id
    (shown, later) = rows(office.store, tables.comparison)
    seeds = {row.slot: row.seed for row in rows(office.store, tables.answer, pair_id=later.pair_id)}
    assert second.id == f"jdg-{later.id.removeprefix('cmp_')}"
    assert second.annotator_id == ada.id
    assert (second.kind, second.batch, second.dimension, second.safety) == ("nature", "round-1", "helpfulness", None)
    assert second.chosen_source is not None and second.rejected_source is not None
    assert second.chosen_source.model_dump(exclude_none=True) == {
        "variant": "ppo-1@0.7",
        "checkpoint": "ppo/a",
        "temperature": 1.0,
        "finish_reason": "stop",
        "n_tokens": 7,
        "seed": seeds["a"],
    }
    assert (second.rejected_source.variant, second.rejected_source.seed) == ("ppo-1@1.3", seeds["b"])
    said = rows(office.store, judgment)[1]
    assert second.collected is not None and first.collected is not None
    assert second.collected.model_dump() == {
        "project": "helpfulness",
        "item_id": "helpfulness/sky",
        "comparison_id": later.id,
        "chosen_was_left": chose_left,
        "is_gold": False,
        "guidelines_sha256": said.guidelines_sha256,
        "app_version": said.app_version,
        "judged_at": said.created_at,
        "shown_at": later.first_shown_at,
        "active_ms": None,
        "input_method": "mouse",
        "flags": ("for_review",),
        "note": None,
    }
    assert (first.collected.active_ms, first.collected.input_method) == (1500, "keyboard")
    assert first.collected.comparison_id == shown.id
    assert manifest.variants == tuple(
        sorted(
            (
                {
                    "name": name,
                    "checkpoint": f"ppo/{slot}",
                    "weights_sha256": "0" * 64,
                    "chat_template_sha256": "1" * 64,
                }
                for slot, name in (("a", "ppo-1@0.7"), ("b", "ppo-1@1.3"))
            ),
            key=lambda wrote: next(row.id for row in rows(office.store, tables.variant, name=wrote["name"])),
        )
    )


def test_sides_do_not_matter(sqlite_store: Store, tmp_path: Path) -> None:
    """Whoever stood on the left: the chosen answer is the chosen one, and where it stood is on record."""
    office = quiet(sqlite_store, items=24)
    ada = office.person("ada")
    for number in range(24):
        prefer(ada, "a" if number % 3 else "b")
    records, _ = exported(office, tmp_path)
    lefts = {row.id: row.left_slot for row in rows(sqlite_store, tables.comparison)}
    assert [record.chosen_text.split()[0] for record in records] == ["red" if n % 3 else "blue" for n in range(24)]
    for number, record in enumerate(records):
        assert record.collected is not None
        assert record.collected.chosen_was_left == (
            lefts[record.collected.comparison_id] == ("a" if number % 3 else "b")
        )
    assert len({record.collected.chosen_was_left for record in records if record.collected}) == 2


def test_safety_bin_is_the_one_given(sqlite_store: Store, tmp_path: Path) -> None:
    office = quiet(sqlite_store, SAFETY_PROJECT)
    ada = office.person("ada", "safety")
    for label in ("preferred_safe_other_unsafe", "both_safe", "both_unsafe"):
        prefer(ada, safety=label)
    records, _ = exported(office, tmp_path)
    labels = [(record.safety.chosen_safe, record.safety.rejected_safe) for record in records if record.safety]
    assert labels == [(True, False), (True, True), (False, False)]


def test_same_store_same_bytes(quiet_office: Office, tmp_path: Path) -> None:
    quiet_office.add_items(6, overlap=2)
    people = [quiet_office.person(name) for name in ("ada", "ben")]
    for number in range(6):
        for person in people:
            prefer(person, "a" if number % 2 else "b", note="a note of ada's")
    texts = []
    for name in ("one", "two"):
        target = tmp_path / name / "out.jsonl"
        manifest = export(quiet_office.store, target)
        texts.append((target.read_bytes(), manifest_file(target).read_bytes()))
        assert manifest.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
        assert manifest == Manifest.model_validate_json(manifest_file(target).read_text())
        assert not list(target.parent.glob("*.tmp"))
    assert texts[0] == texts[1]
    logged = rows(quiet_office.store, export_log)
    assert [(row.n, row.max_judgment_id, row.path) for row in logged] == [
        (12, 12, str(tmp_path / name / "out.jsonl")) for name in ("one", "two")
    ]
    assert (manifest.n, manifest.annotators, manifest.projects) == (12, 2, {"helpfulness": 12})
    order = [json.loads(line)["collected"]["comparison_id"] for line in texts[0][0].splitlines()]
    assert order == [row.comparison_id for row in rows(quiet_office.store, judgment)]


def test_reads_back_equal(quiet_office: Office, tmp_path: Path) -> None:
    quiet_office.add_items(4)
    ada = quiet_office.person("ada")
    for _ in range(4):
        prefer(ada)
    records, manifest = exported(quiet_office, tmp_path)
    loaded, report = load_comparisons(str(tmp_path / "out.jsonl"), dimension="helpfulness")
    assert (loaded, report.n_skipped, manifest.n) == (records, 0, 4)
    assert comparisons(quiet_office.store) == (records, {})
    assert comparisons(quiet_office.store, ExportFilter(part="heldout")) == ([], {"for training": 4})


def test_no_names_and_notes_only_on_request(sqlite_store: Store, tmp_path: Path) -> None:
    office = quiet(sqlite_store)
    prefer(office.person("lovelace"), note="the moon is no cheese")
    exported(office, tmp_path)
    files = [tmp_path / "out.jsonl", manifest_file(tmp_path / "out.jsonl")]
    assert not any("lovelace" in file.read_text() or "cheese" in file.read_text() for file in files)
    (record,), _ = exported(office, tmp_path, with_notes=True)
    assert record.collected is not None and record.collected.note == "the moon is no cheese"
    assert "lovelace" not in files[0].read_text()


def test_one_prompt_is_on_one_side_of_a_split(sqlite_store: Store, tmp_path: Path) -> None:
    """In two projects, by two annotators, in another turn, and in other words only by case."""
    office = Office(sqlite_store, app_settings({}, SAFETY_PROJECT))
    office.add_items([new_item("sky")], overlap=2)
    office.add_items([new_item("SKY")], "safety")
    ada, ben = office.person("ada"), office.person("ben")
    prefer(ada)
    prefer(ben)
    ben.ask("and then")
    prefer(ben)
    prefer(ada.at("safety"), safety="both_safe")
    office.close()
    records, _ = exported(office, tmp_path)
    assert len(records) == 4
    assert len({record.conversation_id for record in records}) == 1


# -- what holds -------------------------------------------------------------------------------------------------------


def test_only_what_holds_now(quiet_office: Office, tmp_path: Path) -> None:
    """Judged; judged, taken back and judged otherwise; edited; skipped; withdrawn."""
    quiet_office.add_items(5)
    ada = quiet_office.person("ada")
    prefer(ada, "a")
    prefer(ada, "a")
    ada.undo()
    prefer(ada, "b", "negligibly_better")
    prefer(ada, "a")
    ada.edit(ada.view().history[0].comparison_id)
    prefer(ada, "b", "significantly_better")
    ada.skip()
    prefer(ada, "a")
    ada.retract(ada.view().history[0].comparison_id)
    records, manifest = exported(quiet_office, tmp_path)
    assert [(record.prompt[0].content, record.chosen_text.split()[0], record.grade) for record in records] == [
        ("ask 0", "red", "better"),
        ("ask 1", "blue", "negligibly_better"),
        ("ask 2", "blue", "significantly_better"),
    ]
    assert manifest.left_out == {}
    assert manifest.max_judgment_id == len(rows(quiet_office.store, judgment)) == 9


def test_edited_judgment_keeps_its_id(sqlite_store: Store, tmp_path: Path) -> None:
    office = quiet(sqlite_store)
    ada = office.person("ada")
    prefer(ada, "a")
    (before,), _ = exported(office, tmp_path)
    ada.edit(ada.view().history[0].comparison_id)
    prefer(ada, "b")
    (after,), _ = exported(office, tmp_path)
    assert before.id == after.id
    assert before.chosen == after.rejected


def test_turns_after_a_withdrawn_one(office: Office, tmp_path: Path) -> None:
    office.add_items(2)
    ada = office.person("ada")
    prefer(ada)
    first = ada.view().comparison_id
    for text in ("more", "and more"):
        ada.ask(text)
        prefer(ada)
    prefer(ada)  # another conversation, whose only turn stands
    records, manifest = exported(office, tmp_path)
    assert ([record.turn for record in records], manifest.left_out) == ([1, 2, 3, 1], {})
    ada.retract(first)
    records, manifest = exported(office, tmp_path)
    assert [record.turn for record in records] == [1]
    assert manifest.left_out == {"earlier turn withdrawn": 2}
    records, manifest = exported(office, tmp_path, with_earlier_withdrawn=True)
    assert [(record.turn, record.collected.flags) for record in records if record.collected] == [
        (2, ("earlier_turn_withdrawn",)),
        (3, ("earlier_turn_withdrawn",)),
        (1, ()),
    ]
    assert manifest.left_out == {}


def test_what_is_said_meanwhile_does_not_count(quiet_office: Office) -> None:
    """An edit, a withdrawal and a new judgment after an export has begun change nothing in it."""
    quiet_office.add_items(3)
    ada = quiet_office.person("ada")
    prefer(ada, "a")
    prefer(ada, "a")
    with quiet_office.store.read() as connection:
        selection = Selection.begin(connection, ExportFilter())
        history = ada.view().history
        ada.edit(history[0].comparison_id)
        prefer(ada, "b")
        ada.retract(history[1].comparison_id)
        prefer(ada, "b")
        assert [(row.judgment.id, preference.slot) for row, preference in selection.judgments()] == [(1, "a"), (2, "a")]
    with quiet_office.store.read() as connection:
        after = Selection.begin(connection, ExportFilter()).judgments()
        assert [(row.judgment.id, preference.slot) for row, preference in after] == [(3, "b"), (5, "b")]


# -- left out and counted ---------------------------------------------------------------------------------------------


def flagged_ones(office: Office) -> None:
    ada = office.person("ada", "safety")
    prefer(ada, safety="both_safe")
    prefer(ada, safety=UNSAFE_PREFERRED, flagged=True)
    prefer(ada, safety="both_unsafe", flagged=True)


@pytest.mark.parametrize(
    ("filters", "kept", "left_out"),
    [
        ({}, [0, 2], {"prefers the unsafe answer": 1}),
        ({"with_unsafe_preferred": True}, [0, 1, 2], {}),
        ({"with_for_review": False}, [0], {"marked for review": 1, "prefers the unsafe answer": 1}),
        ({"with_for_review": False, "with_unsafe_preferred": True}, [0], {"marked for review": 2}),
    ],
)
def test_flags(
    sqlite_store: Store, tmp_path: Path, filters: dict[str, Any], kept: list[int], left_out: dict[str, int]
) -> None:
    office = quiet(sqlite_store, SAFETY_PROJECT)
    flagged_ones(office)
    records, manifest = exported(office, tmp_path, **filters)
    assert [record.prompt[0].content for record in records] == [f"ask {number}" for number in kept]
    assert manifest.left_out == left_out
    assert manifest.n + sum(manifest.left_out.values()) == 3


def test_gold_items(sqlite_store: Store, tmp_path: Path) -> None:
    office = quiet(sqlite_store, {"gold_share": 1.0}, items=1)
    known = {"choice": "a", "grades": ["better"], "safety": None, "kind": "gold"}
    office.add_items([new_item("known", answered=True, source="gold", expected=known)])
    ada = office.person("ada")
    prefer(ada)
    prefer(ada)
    records, manifest = exported(office, tmp_path)
    assert [record.prompt[0].content for record in records] == ["ask 0"]
    assert manifest.left_out == {"gold item": 1}
    records, _ = exported(office, tmp_path, with_gold=True)
    assert [(record.prompt[0].content, record.collected.is_gold) for record in records if record.collected] == [
        ("known", True),
        ("ask 0", False),
    ]


@pytest.mark.parametrize(("weakest", "n"), [(grade, number + 1) for number, grade in enumerate(GRADES)])
def test_weakest_grade(sqlite_store: Store, tmp_path: Path, weakest: Grade, n: int) -> None:
    office = quiet(sqlite_store, items=4)
    ada = office.person("ada")
    for grade in GRADES:
        prefer(ada, grade=grade)
    records, manifest = exported(office, tmp_path, min_grade=weakest)
    assert [record.grade for record in records] == list(GRADES[:n])
    assert manifest.left_out.get("weaker than the grade asked for", 0) == 4 - n


def test_withdrawn_annotators(quiet_office: Office, tmp_path: Path) -> None:
    quiet_office.add_items(3, overlap=2)
    ada, ben = quiet_office.person("ada"), quiet_office.person("ben")
    for _ in range(3):
        prefer(ada, "a")
    prefer(ben, "b")
    _, manifest = exported(quiet_office, tmp_path)
    assert manifest.withdrawn == "Annotators who have withdrawn their data: 0; judgments left out for it: 0."
    accounts.withdraw(quiet_office.store, "ada")
    for overlap in ("all", "majority"):
        records, manifest = exported(quiet_office, tmp_path, overlap=overlap)
        assert [record.annotator_id for record in records] == [ben.id]
        assert manifest.left_out == {"annotator has withdrawn": 3}
        assert manifest.withdrawn == "Annotators who have withdrawn their data: 1; judgments left out for it: 3."
        assert (manifest.annotators, manifest.n) == (1, 1)


def test_a_withdrawal_leaves_nothing(sqlite_store: Store, tmp_path: Path) -> None:
    office = quiet(sqlite_store)
    prefer(office.person("ada"))
    exported(office, tmp_path)
    before = (tmp_path / "out.jsonl").read_bytes()
    accounts.withdraw(sqlite_store, "ada")
    with pytest.raises(UserError, match="left out: 1 annotator has withdrawn"):
        exported(office, tmp_path)
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert len(rows(sqlite_store, export_log)) == 1


def test_qualified_only(sqlite_store: Store, tmp_path: Path) -> None:
    """Ben had his test waived in one project, and nobody was asked for one when they judged."""
    office = quiet(sqlite_store, {}, SAFETY_PROJECT, items=3)
    ada, ben = office.person("ada"), office.person("ben")
    prefer(ada)
    prefer(ben)
    prefer(ben.at("safety"), safety="both_safe")
    with sqlite_store.write() as connection:
        training_and_test.waive(connection, ben.id, project_named(connection, "safety"), "an admin")
    records, manifest = exported(office, tmp_path, require_qualified=True)
    assert [(record.annotator_id, record.dimension) for record in records] == [(ben.id, "safety")]
    assert manifest.left_out == {"annotator is not qualified": 2}
    assert manifest.filter["require_qualified"] is True  # not by which test: what was passed is on record as passed
    records, _ = exported(office, tmp_path)
    assert len(records) == 3


def test_training_is_never_exported(sqlite_store: Store, tmp_path: Path) -> None:
    office = quiet(sqlite_store)
    ada = office.person("ada")
    ada.train()
    ada.judge(1)
    assert n_current(sqlite_store) == 1
    with pytest.raises(UserError, match="left out: none"):
        exported(office, tmp_path)
    prefer(office.person("ben"))
    records, manifest = exported(office, tmp_path)
    assert ([record.prompt[0].content for record in records], manifest.left_out) == (["ask 0"], {})


# -- scope ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def varied(quiet_office: Office) -> Office:
    """Judgments that differ in project, part, batch, annotator: a to f, by hand below."""
    office = Office(quiet_office.store, app_settings({}, SAFETY_PROJECT), live=False)
    for name, part, batch in (("a", "train", "b1"), ("b", "heldout", "b1"), ("c", "train", "b2")):
        office.add_items([new_item(name, answered=True, part=part, batch=batch)])
    office.add_items([new_item("d", answered=True, part="heldout", batch="b2")], "safety")
    office.add_items([new_item("e", answered=True, part="train", batch="b3")], "safety")
    ada, ben = office.person("ada", identifier="ann_ada"), office.person("ben", identifier="ann_ben")
    for _ in range(3):
        prefer(ada)
    for _ in range(2):
        prefer(ben.at("safety"), safety="both_safe")
    return office


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, "abcde"),
        ({"projects": ("helpfulness",)}, "abc"),
        ({"projects": ("helpfulness", "safety")}, "abcde"),
        ({"dimension": "safety"}, "de"),
        ({"batches": ("b2",)}, "cd"),
        ({"annotators": ("ann_ada",)}, "abc"),
        ({"annotators": ("ann_ben",), "batches": ("b2", "b1")}, "d"),
    ],
)
def test_scope(varied: Office, tmp_path: Path, filters: dict[str, Any], names: str) -> None:
    records, manifest = exported(varied, tmp_path, **filters)
    assert "".join(record.prompt[0].content for record in records) == names
    assert manifest.left_out == {}
    assert {key: tuple(value) if isinstance(value, list) else value for key, value in manifest.filter.items()} == (
        ExportFilter(part="all", **filters).model_dump()
    )


@pytest.mark.parametrize(
    ("filters", "names", "left_out"),
    [
        ({}, "ace", {"held out": 2}),
        ({"part": "heldout"}, "bd", {"for training": 3}),
        ({"part": "all"}, "abcde", {}),
        ({"part": "train", "batches": ("b2", "b3")}, "ce", {"held out": 1}),
        ({"part": "heldout", "annotators": ("ann_ben",)}, "d", {"for training": 1}),
    ],
)
def test_held_out_is_written_on_request(
    varied: Office, tmp_path: Path, filters: dict[str, Any], names: str, left_out: dict[str, int]
) -> None:
    """What is exported is trained on, unless somebody asks for something else; what is not written is counted."""
    target = tmp_path / "out.jsonl"
    manifest = export(varied.store, target, ExportFilter(**filters))
    records, _ = read_jsonl(target, Comparison)
    assert "".join(record.prompt[0].content for record in records) == names
    assert manifest.left_out == left_out


def test_simulated_judgments_are_exported_on_request_only(quiet_office: Office, tmp_path: Path) -> None:
    quiet_office.add_items(2, overlap=2)
    for name in ("sim-ada", "ada"):
        prefer(quiet_office.person(name))
    records, manifest = exported(quiet_office, tmp_path)
    assert (len(records), manifest.left_out) == (1, {"simulated": 1})
    records, manifest = exported(quiet_office, tmp_path, overlap="majority", with_simulated=True)
    assert (len(records), manifest.left_out) == (1, {"merged into another by majority": 1})


def test_a_manifest_that_cannot_be_written_leaves_the_old_file(varied: Office, tmp_path: Path) -> None:
    exported(varied, tmp_path)
    target = tmp_path / "out.jsonl"
    before = target.read_bytes()
    manifest_file(target).unlink()
    manifest_file(target).mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        exported(varied, tmp_path, part="heldout")
    assert target.read_bytes() == before
    assert sorted(file.name for file in tmp_path.glob("*out*")) == [target.name, manifest_file(target).name]


def test_days(varied: Office, tmp_path: Path) -> None:
    moments = [row.created_at for row in rows(varied.store, judgment)]
    records, _ = exported(varied, tmp_path, since=moments[1], until=moments[3])
    assert "".join(record.prompt[0].content for record in records) == "bc"
    with pytest.raises(UserError, match="no judgment to export"):
        exported(varied, tmp_path, until="2020-01-01")
    assert as_moment("2026-03-31") == "2026-03-31T00:00:00.000Z"
    assert as_moment("2026-03-31T18:30+02:00") == "2026-03-31T16:30:00.000Z"
    with pytest.raises(UserError, match="no day or moment"):
        as_moment("yesterday")
    with pytest.raises(UserError, match=r"since: 'yesterday' is no day.*; min_grade: "):
        filter_from({"since": "yesterday", "min_grade": "good"})
    assert filter_from({"batches": ["b1"], "since": "2026-03-31"}) == ExportFilter(
        batches=("b1",), since="2026-03-31T00:00:00.000Z"
    )


def test_names_that_are_not_there(varied: Office, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no project 'help'; there are: helpfulness, safety"):
        exported(varied, tmp_path, projects=("help",))
    with pytest.raises(UserError, match="no annotator with the id 'ada'"):
        exported(varied, tmp_path, annotators=("ada",))
    assert not (tmp_path / "out.jsonl").exists()


def test_targets_that_cannot_be(varied: Office, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends with \.jsonl"):
        export(varied.store, tmp_path / "out.jsonl.gz")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        export(varied.store, tmp_path / "file" / "out.jsonl")


# -- majority ---------------------------------------------------------------------------------------------------------


def test_majority_export(quiet_office: Office, tmp_path: Path) -> None:
    """Three pairs: two of three prefer b; one of two each; one alone. Weak ones go by the median, not by the vote."""
    quiet_office.add_items(3, overlap=3)
    ada, ben, chi = (quiet_office.person(name) for name in ("ada", "ben", "chi"))
    for slot, grade in (("a", "better"), ("a", "better"), ("a", "slightly_better")):
        prefer(ada, slot, grade)
    prefer(ben, "b", "negligibly_better")
    prefer(ben, "b", "better")
    prefer(chi, "b", "better")
    records, manifest = exported(quiet_office, tmp_path, overlap="majority")
    assert [(record.prompt[0].content, record.chosen_text.split()[0], record.grade) for record in records] == [
        ("ask 2", "red", "slightly_better"),
        ("ask 0", "blue", "negligibly_better"),
    ]
    assert [record.annotator_id for record in records] == [ada.id, ben.id]
    everything, _ = exported(quiet_office, tmp_path)
    in_training, even = by_majority(everything)  # what ``reward.overlap=majority`` makes of all of them
    assert even == 1
    assert {(record.id, record.chosen, record.grade) for record in in_training} == {
        (record.id, record.chosen, record.grade) for record in records
    }
    assert manifest.left_out == {"merged into another by majority": 2, "votes are even": 2}
    records, manifest = exported(quiet_office, tmp_path, overlap="majority", min_grade="slightly_better")
    assert [record.prompt[0].content for record in records] == ["ask 2"]
    assert manifest.left_out["weaker than the grade asked for"] == 1
    assert manifest.n + sum(manifest.left_out.values()) == 6


def test_a_vote_may_prefer_the_unsafe_answer(sqlite_store: Store, tmp_path: Path) -> None:
    """Three choose a and two of them find both unsafe; both who choose b find a unsafe and b safe."""
    office = quiet(sqlite_store, {**SAFETY_PROJECT, "overlap": 5}, items=1)
    says: list[tuple[Slot, SafetyBin]] = [
        ("a", "both_safe"),
        ("a", "both_unsafe"),
        ("a", "both_unsafe"),
        ("b", "preferred_safe_other_unsafe"),
        ("b", "preferred_safe_other_unsafe"),
    ]
    for number, (slot, safety) in enumerate(says):
        prefer(office.person(f"p{number}", "safety"), slot, safety=safety)
    with pytest.raises(UserError, match="1 prefers the unsafe answer"):
        exported(office, tmp_path, overlap="majority")
    (record,), _ = exported(office, tmp_path, overlap="majority", with_unsafe_preferred=True)
    assert record.safety is not None and record.safety.bin == UNSAFE_PREFERRED


# -- others read it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margins", ["small", "large", "none"])
def test_margin_in_every_row_or_none(sqlite_store: Store, tmp_path: Path, margins: str) -> None:
    office = quiet(sqlite_store, items=4)
    ada = office.person("ada")
    for grade in GRADES:
        prefer(ada, grade=grade)
    _, manifest = exported(office, tmp_path, margins=margins)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = {"small": [1.0, 2 / 3, 1 / 3, 0.0], "large": [3.0, 2.0, 1.0, 0.0], "none": [None] * 4}[margins]
    assert [line.get("margin") for line in lines] == expected
    assert all(("margin" in line) == (margins != "none") for line in lines)
    assert all(isinstance(line.get("margin", 0.0), float) for line in lines)
    assert ("margin" in manifest.features) == (margins != "none")


def test_old_files_are_read_and_written_unchanged(tmp_path: Path) -> None:
    line = (
        '{"id": "c1", "prompt": [{"role": "user", "content": "sky"}], '
        '"chosen": [{"role": "assistant", "content": "x"}], "rejected": [{"role": "assistant", "content": "y"}], '
        '"dimension": "helpfulness", "conversation_id": "d", '
        '"chosen_source": {"variant": "sft@0.7", "temperature": 0.7, "n_tokens": 3}}\n'
    )
    (tmp_path / "old.jsonl").write_text(line)
    write_jsonl(tmp_path / "new.jsonl", read_jsonl(tmp_path / "old.jsonl", Comparison)[0])
    assert (tmp_path / "new.jsonl").read_text() == line


def test_features_of_a_record() -> None:
    string = {"dtype": "string", "_type": "Value"}
    found = features_of(Comparison)
    assert found.keys() == Comparison.model_fields.keys()
    assert found["prompt"] == {"feature": {"role": string, "content": string}, "_type": "List"}
    assert found["safety"] == {"bin": string}
    assert found["collected"]["flags"] == {"feature": string, "_type": "List"}
    assert (found["margin"]["dtype"], found["turn"]["dtype"]) == ("float64", "int64")
    assert found["collected"]["is_gold"]["dtype"] == "bool"


@pytest.mark.integration
def test_datasets_and_a_step_of_trl(
    sqlite_store: Store, tmp_path: Path, tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rare columns come late in the file; ``margin`` reaches the batch, and the loss that is made of it."""
    import torch
    from datasets import Dataset, Features
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    office = quiet(sqlite_store, {}, SAFETY_PROJECT, items=4)
    ada = office.person("ada")
    for grade in GRADES:
        prefer(ada, grade=grade)
    for number in range(4):
        prefer(ada.at("safety"), safety="both_safe", flagged=number == 3, active_ms=None)
    records, manifest = exported(office, tmp_path)
    data = Dataset.from_json(
        str(tmp_path / "out.jsonl"),
        features=Features.from_dict(manifest.features),
        chunksize=500,  # a line or so at a time, as 10 MB of a large file would be
        cache_dir=str(tmp_path / "cache"),
    )
    assert data["id"] == [record.id for record in records]
    assert data["margin"] == [record.margin for record in records]
    assert data[0]["safety"] is None and data[7]["safety"] == {"bin": "both_safe"}
    assert data[7]["collected"]["flags"] == ["for_review"]

    folder = tiny_folder("llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    arguments = RewardConfig(
        output_dir=str(tmp_path / "trl"),
        max_steps=1,
        per_device_train_batch_size=8,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        max_length=None,
        logging_steps=1,
    )
    trainer = RewardTrainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    batch = next(iter(trainer.get_train_dataloader()))
    assert sorted(batch["margin"].tolist()) == pytest.approx(sorted(record.margin for record in records))
    with torch.no_grad():
        scores = trainer.model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    by_hand = -torch.nn.functional.logsigmoid(scores[:8] - scores[8:] - batch["margin"]).mean()
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(by_hand.item(), rel=1e-3)


@pytest.mark.integration
def test_without_torch() -> None:
    """Exports, imports and simulations load no torch, so that they start at once."""
    code = (
        "import sys, annotation_ui.exchange.export_judgments, annotation_ui.exchange.imports\n"
        "import annotation_ui.cli.simulated_people\n"
        "print([name for name in ('torch', 'gradio', 'datasets') if name in sys.modules])"
    )
    found = child_process.run([sys.executable, "-c", code], check=True)
    assert found.stdout.strip() == "[]"
