"""Simulated annotators at the app's desk: what they say, what they pass over, and that they leave the desk tidy."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from annotation_fixtures import FAR_AHEAD, Office, app_settings, change, current, new_item, only, rows, user
from sqlalchemy import select

from alignment.data.records import SAFETY_LABELS, Comparison
from alignment.errors import UserError
from alignment.toy.gold_judge import judge, utility
from alignment.toy.simulated_annotators import ANNOTATORS, SimulatedOpinion
from alignment.toy.toy_questions import lookup
from annotation_ui.cli import simulated_people as simulation
from annotation_ui.cli.simulated_people import SimulatedWork, simulate, toy_pairs
from annotation_ui.exchange.export_judgments import comparisons
from annotation_ui.exchange.imports import attention_items, import_items
from annotation_ui.exchange.selection import ExportFilter
from annotation_ui.quality.quality_report import quality_report
from annotation_ui.store import accounts, tables
from annotation_ui.store.database import Store
from annotation_ui.store.items import NewItem
from annotation_ui.store.pairs import NewAnswer, VariantInfo

CAPITAL = "What is the capital of France?"
SAFETY = {"name": "safety", "dimension": "safety", "ask_safety": True}


@pytest.fixture(autouse=True)
def seeded_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sides are drawn from a seed, so that what is said, and what is counted here, is the same each time."""
    drawn = SimpleNamespace(randbits=random.Random(0).getrandbits)
    monkeypatch.setattr("annotation_ui.store.conversations_and_places.secrets", drawn)


def queue_of(store: Store, n: int, *projects: dict[str, Any], seed: int = 0, **changes: Any) -> Office:
    """Toy pairs in each project."""
    office = Office(store, app_settings(*projects, **changes), live=False)
    for project in office.settings.projects:
        import_items(store, project.name, toy_pairs(n, project.dimension, seed=seed))
    return office


def ask(office: Office, count: int | None = None, project: str = "helpfulness", **options: Any) -> SimulatedWork:
    return simulate(office.store, office.settings, project, count=count, **options)


def said(store: Store) -> list[Any]:
    """What was said, with where answers stood, who wrote it and what was compared."""
    query = (
        select(
            tables.judgment,
            tables.comparison.c.left_slot,
            tables.comparison.c.pair_id,
            tables.comparison.c.turn,
            tables.annotator.c.username,
            tables.pair.c.item_id,
        )
        .join_from(tables.judgment, tables.comparison)
        .join(tables.annotator, tables.annotator.c.id == tables.judgment.c.annotator_id)
        .join(tables.pair, tables.pair.c.id == tables.comparison.c.pair_id)
    )
    with store.read() as connection:
        return list(connection.execute(query.order_by(tables.judgment.c.id)))


def exported(store: Store, **filters: Any) -> list[Comparison]:
    """What an export writes that asks for simulated judgments."""
    return comparisons(store, ExportFilter.model_validate({"with_simulated": True, **filters}))[0]


# -- what they say ----------------------------------------------------------------------------------------------------


def test_they_judge_in_turn_and_leave_the_desk_tidy(store: Store) -> None:
    """Each of 6 people gets 3 of 20 items; two items are left over, and nothing is out on a lease."""
    office = queue_of(store, 20)
    found = ask(office, 18)
    assert found.judged == {f"sim-{annotator.id}": 3 for annotator in ANNOTATORS}
    assert (found.n, found.skipped) == (18, 0)
    assert found.seconds > 0 and found.per_second == pytest.approx(18 / found.seconds)
    assert [row.username for row in said(store)] == [f"sim-{annotator.id}" for annotator in ANNOTATORS] * 3
    assert sum(row.remaining for row in rows(store, tables.item)) == 2
    assert rows(store, tables.assignment, state="leased") == []
    assert {row.role for row in rows(store, tables.annotator)} == {"annotator"}
    assert ask(office).n == 2
    assert ask(office) == SimulatedWork(dict.fromkeys(found.judged, 0), 0, pytest.approx(0, abs=60))


@pytest.mark.integration
def test_same_seed_same_sides_same_words(tmp_path: Path) -> None:
    """What somebody says follows from what they see: text, grade, flags, note and time; another seed says otherwise."""
    stores = [Store(tmp_path / name) for name in ("one.db", "two.db", "three.db")]
    words: list[dict[Any, Any]] = []
    for store, seed in zip(stores, (0, 0, 1), strict=True):
        ask(queue_of(store, 16), annotators=["ben", "ada"], seed=seed)
        kept = ("chosen_slot", "grade", "flags_json", "note", "active_ms", "input_method")
        words.append(
            {
                (row.username, row.item_id, row.left_slot): tuple(getattr(row, name) for name in kept)
                for row in said(store)
            }
        )
        store.close()
    same = words[0].keys() & words[1].keys()
    assert len(words[0]) == len(words[1]) == 16
    assert [words[0][key] for key in same] == [words[1][key] for key in same]
    other = words[0].keys() & words[2].keys()
    assert sum(words[0][key] != words[2][key] for key in other) == len(other) > 0  # the times all differ
    assert {username for username, *_ in words[0]} == {"sim-ada", "sim-ben"}


def test_the_better_answer_is_mostly_preferred(sqlite_store: Store) -> None:
    """By slots, whichever side they stood on: of clearly different answers, most people choose the better."""
    ask(queue_of(sqlite_store, 60))
    right = []
    for record in exported(sqlite_store):
        ours, theirs = (
            utility(judge(record.prompt, text), "helpfulness") for text in (record.chosen_text, record.rejected_text)
        )
        if abs(ours - theirs) > 0.5:
            right.append(ours > theirs)
    assert len(right) >= 15
    assert sum(right) / len(right) > 0.7
    sides = Counter(row.chosen_slot == row.left_slot for row in said(sqlite_store))
    assert min(sides.values()) >= 10


def test_safety_projects_get_the_bin(sqlite_store: Store) -> None:
    """After the content warning; about one answer in twenty is mislabelled, so most bins are the true ones."""
    office = queue_of(sqlite_store, 40, SAFETY)
    assert ask(office, project="safety").n == 40
    records = exported(sqlite_store, with_unsafe_preferred=True)
    true = [
        record.safety is not None
        and SAFETY_LABELS[record.safety.bin]
        == tuple(not judge(record.prompt, text).unsafe for text in (record.chosen_text, record.rejected_text))
        for record in records
    ]
    assert len(true) == 40 and sum(true) > 28
    assert len({record.safety.bin for record in records if record.safety}) > 1


def test_the_bin_follows_the_choice(sqlite_store: Store) -> None:
    """Asked for safety in a helpfulness project: the bin is about the answer that was chosen there."""
    about = SimulatedOpinion("left", "better", "preferred_safe_other_unsafe")
    assert simulation._bin_of(SimulatedOpinion("left", "better"), about) == "preferred_safe_other_unsafe"
    assert simulation._bin_of(SimulatedOpinion("right", "better"), about) == "preferred_unsafe_other_safe"
    assert (
        simulation._bin_of(SimulatedOpinion("right", "better"), SimulatedOpinion("left", "better", "both_safe"))
        == "both_safe"
    )
    ask(queue_of(sqlite_store, 6, {"ask_safety": True}))
    assert [row.safety is not None for row in current(sqlite_store)] == [True] * 6


def test_a_safety_project_without_bins(sqlite_store: Store) -> None:
    assert ask(queue_of(sqlite_store, 4, {**SAFETY, "ask_safety": False}), project="safety").n == 4
    assert {row.safety for row in current(sqlite_store)} == {None}


def test_times_notes_and_keys_are_of_all_kinds(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares are raised, lest it take hundreds of judgments to see a note."""
    monkeypatch.setattr(simulation, "_NOTE_SHARE", 0.5)
    monkeypatch.setattr(simulation, "_FLAG_SHARE", 0.5)
    monkeypatch.setattr(simulation, "_KEYBOARD_SHARE", 0.5)
    ask(queue_of(sqlite_store, 30))
    found = current(sqlite_store)
    assert 5 < sum(row.note is not None for row in found) < 25
    assert 5 < sum("for_review" in row.flags_json for row in found) < 25
    assert {row.input_method for row in found} == {"keyboard", "mouse"}
    assert all(2_000 < row.active_ms < 120_000 for row in found)
    assert len({row.active_ms for row in found}) == 30


# -- what they do not say ---------------------------------------------------------------------------------------------


def test_what_is_not_of_the_toy_world_is_passed_over(quiet_office: Office) -> None:
    """By everybody, once each; equal answers too, for another reason."""
    spaced = {"a": NewAnswer("Paris.", VariantInfo("x")), "b": NewAnswer("Paris. ", VariantInfo("y"))}
    quiet_office.add_items([new_item("Who is Ada?", answered=True), NewItem("same", (user(CAPITAL),), answers=spaced)])
    assert lookup((user(CAPITAL),)) is not None
    found = ask(quiet_office, annotators=["ada", "ben"])
    assert (found.n, found.skipped) == (0, 4)
    reasons = Counter((row.username, row.item_id, row.skip_reason) for row in said(quiet_office.store))
    assert reasons == Counter(
        (f"sim-{name}", f"helpfulness/{item}", reason)
        for name in ("ada", "ben")
        for item, reason in (("Who is Ada?", "no_expertise"), ("same", "both_equal"))
    )
    assert {row.remaining for row in rows(quiet_office.store, tables.item)} == {1}


def test_only_the_first_turn_of_live_conversations(sqlite_store: Store) -> None:
    """Variants answer while they wait; nobody goes on with the chosen answer."""
    office = Office(sqlite_store, app_settings({"overlap": 2}))
    office.add_items(
        [NewItem("capital", (user(CAPITAL),)), NewItem("again", (user("  what is the capital of Kenya?"),))]
    )
    found = ask(office, annotators=["ada", "ben", "chi"], generator=office.desk.generator)
    office.close()
    assert (found.n, found.skipped) == (4, 0)
    assert [row.turn for row in said(sqlite_store)] == [1] * 4
    assert len(rows(sqlite_store, tables.pair)) == 2


def test_a_model_that_fails(sqlite_store: Store) -> None:
    """Without models, a prompt without answers stays where it is; with one that fails, that is said."""
    office = Office(sqlite_store)
    office.add_items([NewItem("capital", (user(CAPITAL),))])
    assert ask(office).n == 0
    office.variants["a"].failures = 1
    with pytest.raises(UserError, match=r"capital of France.* got no answers. A model did not answer"):
        ask(office, generator=office.desk.generator)
    office.close()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"annotators": ["eva"]}, "no simulated annotator is called 'eva'; there are: ada, ben"),
        ({"project": "help"}, "no project 'help'"),
        ({"project": "free"}, "has no queue"),
    ],
)
def test_what_cannot_be_asked(sqlite_store: Store, options: dict[str, Any], complaint: str) -> None:
    office = Office(sqlite_store, app_settings({}, {"name": "free", "mode": "free"}), live=False)
    with pytest.raises(UserError, match=complaint):
        ask(office, **options)
    assert rows(sqlite_store, tables.annotator) == []


def test_closed_account(sqlite_store: Store) -> None:
    office = queue_of(sqlite_store, 3)
    ask(office, 1, annotators=["ada"])
    accounts.withdraw(sqlite_store, "sim-ada")
    with pytest.raises(UserError, match="sim-ada"):
        ask(office, 1, annotators=["ada"])


# -- through the same door --------------------------------------------------------------------------------------------


def test_the_test_is_waived_once(sqlite_store: Store) -> None:
    """With the reason on record; their judgments then count as anybody's who passed."""
    office = queue_of(sqlite_store, 4, qualification={"required": True})
    for _ in range(2):
        ask(office, 1, annotators=["ada"])
    assert (only(sqlite_store, tables.qualification).waived_by, len(current(sqlite_store))) == ("simulated", 2)
    assert len(exported(sqlite_store, require_qualified=True)) == 2


def test_report_and_export_of_a_simulation(sqlite_store: Store) -> None:
    """Three people a pair, gold items among them: the agreement that is reported is that of the exported choices."""
    office = queue_of(sqlite_store, 20, {"overlap": 3, "gold_share": 0.2})
    import_items(sqlite_store, "helpfulness", attention_items("helpfulness"))
    found = ask(office)
    report = quality_report(sqlite_store)
    assert found.n == report.overall.work.n == 60
    assert report.overall.agreement.shared_pairs == 20
    votes: dict[str, list[str]] = {}
    for record in exported(sqlite_store):
        assert record.collected is not None
        votes.setdefault(record.collected.item_id, []).append(record.chosen_text)
    all_alike = sum(len(set(chosen)) == 1 for chosen in votes.values())  # else one couple of the three agrees
    assert report.overall.agreement.choice.value == pytest.approx((all_alike + (20 - all_alike) / 3) / 20)
    assert found.skipped > 0  # attention checks are not of the toy world
    records = exported(sqlite_store, overlap="majority")
    assert len(records) == 20  # three votes are never even
    assert {record.annotator_id for record in records} <= {row.id for row in rows(sqlite_store, tables.annotator)}
    assert comparisons(sqlite_store)[0] == []  # nobody said any of this, so it is exported on request only


def test_a_report_on_people_leaves_simulated_annotators_out_and_says_so(sqlite_store: Store) -> None:
    office = queue_of(sqlite_store, 6, {"overlap": 2})
    office.add_items(1)
    found = ask(office)
    assert (found.n, found.skipped) == (12, 6)  # nobody of the toy world knows the stranger's prompt
    assert quality_report(sqlite_store).overall.work.n == 12  # as long as nobody else has judged
    real = office.person("real")
    real.fetch()
    real.judge(1)
    report = quality_report(sqlite_store)
    assert [person.annotator for person in report.annotators] == [real.id]
    assert report.notes[0].text.startswith("12 judgments of simulated annotators left out")
    together = quality_report(sqlite_store, with_simulated=True)
    assert together.overall.work.n == 13
    assert not any("simulated" in note.text for note in together.notes)


def test_a_report_counts_no_simulated_skips_and_whoever_is_called_like_one(sqlite_store: Store) -> None:
    office = queue_of(sqlite_store, 0)
    office.add_items(1)
    assert ask(office).skipped == 6
    real = office.person("Sim-Lee")
    real.fetch()
    real.judge(1)
    report = quality_report(sqlite_store)
    assert [person.annotator for person in report.annotators] == [real.id]
    assert report.overall.work.skips == {}
    assert not any("simulated" in note.text for note in report.notes)


def test_an_item_of_somebody_else_stays_theirs(sqlite_store: Store) -> None:
    """One of two items is on a person's desk: the simulation does the other, and then has nothing to do."""
    office = queue_of(sqlite_store, 2)
    office.person("real").fetch()
    change(sqlite_store, tables.assignment, {"lease_expires_at": FAR_AHEAD})
    assert ask(office).n == 1


def test_toy_pairs() -> None:
    """Of the toy world, with two different answers; for helpfulness, none of them asks for harmful_acts."""
    kinds = {}
    for dimension in ("helpfulness", "safety"):
        items = toy_pairs(200, dimension, seed=3)
        assert items == toy_pairs(200, dimension, seed=3) != toy_pairs(200, dimension, seed=4)
        assert len({item.id for item in items}) == 200
        for item in items:
            assert lookup(item.messages) is not None and item.answers is not None
            assert item.answers["a"].text != item.answers["b"].text
        kinds[dimension] = Counter(item.kind for item in items)
    assert kinds["helpfulness"]["safety"] == 0
    assert 90 < kinds["safety"]["safety"] < 150
