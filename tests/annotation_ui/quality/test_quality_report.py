"""The quality report: its figures by hand, what the store gives it, and what text and page show of it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from annotation_fixtures import Office, add_person, app_settings, change, new_item, only, rows
from html_outline import outline
from quality_example import ANNOTATORS, example, judged, skipped
from scipy import stats
from sqlalchemy import event

from alignment.errors import UserError
from annotation_ui import texts
from annotation_ui.quality.figures_in_words import labels_of
from annotation_ui.quality.judged_pairs import JudgedPair, SkippedPair
from annotation_ui.quality.quality_figures import FEW, QualityReport
from annotation_ui.quality.quality_report import as_json, build_report, quality_report
from annotation_ui.quality.report_as_text import as_text
from annotation_ui.quality.stored_judgments import annotator_names, as_known, judged_pairs, skipped_pairs
from annotation_ui.store import tables
from annotation_ui.store.database import Store
from annotation_ui.vocabulary import option_of
from annotation_ui.web.quality_page import as_html

EDGES: dict[str, tuple[list[JudgedPair], list[SkippedPair]]] = {
    "nothing": ([], []),
    "one judgment": ([judged("p", "x")], []),
    "no overlap": ([judged(f"p{number}", f"x{number}", number % 2 or -1) for number in range(6)], []),
    "all equal": ([judged(f"p{number}", who) for number in range(40) for who in "xy"], []),
    "gold alone": ([judged("p", "x", is_gold=True, gold_ok=True)], []),
    "skips alone": ([], skipped(2)),
    "no times": ([judged("p", who, active_ms=None) for who in "xy"], []),
    "no time at all": ([judged("p", who, active_ms=0) for who in "xy"], []),
}


@pytest.fixture(scope="module")
def report() -> QualityReport:
    return build_report(example(), skipped())


@pytest.fixture(scope="module")
def page(report: QualityReport) -> str:
    return as_html(report)


# -- figures -----------------------------------------------------------------------------------------------------------


def test_habits_by_hand() -> None:
    rows = [
        judged("p1", "x", 4, left_slot="a", active_ms=10_000, part="heldout"),
        judged("p2", "x", -3, left_slot="b", active_ms=20_000, flags=("for_review",)),
        judged("p3", "x", -1, left_slot="a", active_ms=60_000, flags=("chosen_unsafe_other_safe",)),
        judged("p4", "y", 1, left_slot="a", active_ms=None),
        judged("g1", "x", 1, is_gold=True, gold_ok=True, left_slot="b", active_ms=999_000),
        judged("g2", "x", 1, is_gold=True, gold_ok=False),
        judged("g3", "y", 1, is_gold=True, gold_ok=None),
    ]
    work = build_report(rows, skipped(4)).overall.work
    assert (work.n, work.pairs, work.heldout) == (4, 4, 1)
    assert (work.left.value, work.left.n) == (0.75, 4)
    assert work.left_p == pytest.approx(10 / 16)  # 2 (4 + 1) / 2^4: three or four of four, either way
    wilson = stats.binomtest(3, 4).proportion_ci(method="wilson")
    assert work.left.ci95 == pytest.approx((wilson.low, wilson.high))
    assert list(work.grades.values()) == [0.25, 0.25, 0, 0.5]
    assert work.median_seconds == 20
    assert work.per_hour == pytest.approx(3 / (90 / 3600))
    assert (work.flagged.value, work.flagged.n) == (0.25, 4)
    assert (work.gold.value, work.gold.n) == (0.5, 2)
    assert dict(work.skips) == {"both_equal": 2, "disturbing": 1, "no_expertise": 1}
    assert next(iter(work.skips)) == "both_equal"


def test_parts_people_batches_and_days() -> None:
    rows = [
        judged("p1", "x", batch="late", judged_at="2026-03-03T23:59:59.000Z"),
        judged("p2", "x", 4, batch="early", judged_at="2026-03-01T00:00:00.000Z"),
        judged("p3", "y", 1, batch="early", judged_at="2026-03-01T10:00:00.000Z"),
        judged("s1", "y", project="alpha", dimension="safety", judged_at="2026-03-02T10:00:00.000Z"),
    ]
    found = build_report(rows, [SkippedPair("z", "alpha", "broken")])
    assert [(part.name, part.dimension, part.work.n) for part in found.projects] == [
        ("alpha", "safety", 1),
        ("helpful", "helpfulness", 3),
    ]
    assert [dict(part.work.skips) for part in found.projects] == [{"broken": 1}, {}]
    assert [(person.annotator, person.work.n) for person in found.annotators] == [("x", 2), ("y", 2), ("z", 0)]
    assert [(batch.project, batch.name, batch.n, batch.first_day) for batch in found.batches] == [
        ("alpha", "b1", 1, "2026-03-02"),
        ("helpful", "early", 2, "2026-03-01"),
        ("helpful", "late", 1, "2026-03-03"),
    ]
    assert found.batches[1].grades == {
        "significantly_better": 0.5,
        "better": 0,
        "slightly_better": 0,
        "negligibly_better": 0.5,
    }
    assert [(day.project, day.day, day.n) for day in found.days] == [
        ("alpha", "2026-03-02", 1),
        ("helpful", "2026-03-01", 2),
        ("helpful", "2026-03-03", 1),
    ]
    assert (found.first, found.last) == ("2026-03-01T00:00:00.000Z", "2026-03-03T23:59:59.000Z")


def test_gold_items_do_not_touch_the_other_figures() -> None:
    rows = example(120)
    plain = [row for row in rows if not row.is_gold]
    assert len(plain) < len(rows)
    with_gold, without = build_report(rows), build_report(plain)
    assert with_gold.overall.agreement == without.overall.agreement
    assert (with_gold.batches, with_gold.days) == (without.batches, without.days)
    assert with_gold.overall.work.left == without.overall.work.left
    assert [person.agrees for person in with_gold.annotators] == [person.agrees for person in without.annotators]
    assert without.overall.work.gold.missing == texts.NO_DATA


def lefts(annotator: str, left: int, n: int) -> list[JudgedPair]:
    return [
        judged(f"{annotator}{number}", annotator, 2, left_slot="a" if number < left else "b") for number in range(n)
    ]


def test_leaning_is_held_against_the_number_of_annotators() -> None:
    """16 of 20 to the left has p = 0.012: enough for one annotator, not for one of ten."""
    assert stats.binomtest(16, 20).pvalue == pytest.approx(0.0118, abs=1e-4)
    alone = build_report(lefts("x", 16, 20))
    assert [person.leans for person in alone.annotators] == [True]
    among_ten = build_report([*lefts("x", 16, 20), *(row for n in range(9) for row in lefts(f"y{n}", 10, 20))])
    assert not any(person.leans for person in among_ten.annotators)
    right = build_report([*lefts("x", 1, 20), *lefts("y", 10, 20)])
    assert {person.annotator: person.leans for person in right.annotators} == {"x": True, "y": False}


# -- notes -------------------------------------------------------------------------------------------------------------


def notes(rows: Sequence[JudgedPair]) -> set[tuple[str | None, str]]:
    """Whom each note is about, and its first words."""
    return {(note.annotator, " ".join(note.text.split()[:2])) for note in build_report(rows).notes}


def test_little_data_is_said_to_be_little() -> None:
    assert notes([]) == set()
    assert notes([judged("p", "x")]) == {(None, "Only 1"), (None, "No pair")}
    few = [judged(f"p{number}", who, left_slot="ab"[number % 2]) for number in range(FEW - 1) for who in "xy"]
    assert notes(few) == {(None, f"Only {FEW - 1}")}
    more = [judged(f"q{number}", who, left_slot="ab"[number % 2]) for number in range(FEW) for who in "xy"]
    assert notes(more) == set()


def test_habits_that_deserve_a_look_are_named() -> None:
    rows = []
    for number in range(100):
        side, sign = "ab"[number % 2], 1 if number % 4 < 2 else -1
        common: dict[str, Any] = {"left_slot": side, "active_ms": 30_000}
        rows += [judged(f"p{number}", who, 2 * sign, **common) for who in "tuvw"]
        rows.append(judged(f"p{number}", "quick", 2 * sign, **{**common, "active_ms": 9_000}))
        rows.append(judged(f"p{number}", "left", 2 if side == "a" else -2, **common))
        rows.append(judged(f"p{number}", "random", 2 * sign if number % 8 < 4 else -2 * sign, **common))
    rows += [judged(f"g{number}", "careless", is_gold=True, gold_ok=number < 5) for number in range(12)]
    rows += [judged(f"g{number}", "careful", is_gold=True, gold_ok=number < 8) for number in range(12)]
    assert notes(rows) == {
        (None, "Over all"),
        ("left", "chose the"),
        ("left", "chooses as"),
        ("random", "chooses as"),
        ("quick", "takes 9.0"),
        ("careless", "judged 42"),
    }


# -- from the store ----------------------------------------------------------------------------------------------------


def two_projects(store: Store) -> Office:
    """Four items of helpfulness for two people each, one of safety; their answers were sampled before."""
    settings = app_settings(
        {"name": "helpfulness", "overlap": 2}, {"name": "safety", "dimension": "safety", "ask_safety": True}
    )
    office = Office(store, settings, live=False)
    office.add_items([new_item(f"ask {number}", answered=True, batch=f"b{number}") for number in range(4)])
    office.add_items([new_item("unsafe", answered=True, part="heldout")], project="safety")
    return office


@pytest.fixture
def worked(sqlite_store: Store) -> Office:
    return two_projects(sqlite_store)


def test_the_store_gives_what_people_say_now(store: Store) -> None:
    worked = two_projects(store)
    ada, ben = worked.person("ada"), worked.person("ben")
    shown = ada.fetch()
    retracted = ada.judge(1, active_ms=1000).comparison_id
    ada.edit(shown.comparison_id)
    ada.judge(8, active_ms=2000, flagged=True)
    ada.judge(2)
    ada.retract(retracted)
    ada.skip("no_expertise")
    ben.fetch()
    ben.judge(3)
    at_safety = ben.at("safety")
    at_safety.accept()
    at_safety.fetch()
    at_safety.judge(5, safety="both_safe")
    with worked.store.read() as connection:
        found, skips = judged_pairs(connection), skipped_pairs(connection)
    first = only(worked.store, tables.comparison, id=shown.comparison_id)
    assert [(row.annotator, row.project, row.batch, row.part) for row in found] == [
        (ada.id, "helpfulness", "b0", "train"),
        (ben.id, "helpfulness", "b0", "train"),
        (ben.id, "safety", "batch-1", "heldout"),
    ]
    assert found[0].choice != first.left_slot == found[0].left_slot  # option 8 is the right answer
    assert (found[0].grade, found[0].active_ms, found[0].flagged) == ("significantly_better", 2000, True)
    assert (found[0].pair_id, found[1].pair_id) == (first.pair_id, first.pair_id)
    assert found[1].choice == found[1].left_slot and found[1].grade == "slightly_better"
    assert (found[2].safety, found[2].dimension) == ("both_safe", "safety")
    assert found[2].judged_at.endswith("Z") and not found[2].is_gold
    edits = rows(worked.store, tables.judgment, comparison_id=shown.comparison_id)
    assert found[0].judged_at == max(row.created_at for row in edits)  # an edit moves it, as in exports
    assert skips == [SkippedPair(ada.id, "helpfulness", "no_expertise")]


def test_training_tests_and_the_withdrawn_are_left_out(worked: Office) -> None:
    ada, ben = worked.person("ada"), worked.person("ben")
    for person in (ada, ben):
        person.fetch()
        person.judge(1)
        person.skip("broken")
    assert quality_report(worked.store).overall.work.n == 2
    change(worked.store, tables.annotator, {"withdrawn_at": "2026-01-01T00:00:00.000Z"}, username="ben")
    left = quality_report(worked.store)
    assert [person.annotator for person in left.annotators] == [ada.id]
    assert sum(left.overall.work.skips.values()) == 1
    change(worked.store, tables.comparison, {"kind": "qualification"}, annotator_id=ada.id)
    assert quality_report(worked.store).overall.work.n == 0
    change(worked.store, tables.comparison, {"kind": "work"}, annotator_id=ada.id)
    change(worked.store, tables.item, {"source": "training"})
    assert quality_report(worked.store).annotators == ()


def test_a_skip_that_was_judged_after_all_is_no_skip(worked: Office) -> None:
    ada = worked.person("ada")
    ada.fetch()
    ada.skip("other", note="later")
    assert dict(quality_report(worked.store).overall.work.skips) == {"other": 1}
    ada.undo()
    ada.judge(4)
    work = quality_report(worked.store).overall.work
    assert (work.n, dict(work.skips)) == (1, {})


def test_gold_items_come_with_whether_they_were_judged_as_known(sqlite_store: Store) -> None:
    store = sqlite_store
    office = Office(store, app_settings({"gold_share": 1.0}), live=False)
    gold = [new_item(name, answered=True, source="gold", expected={"choice": "a"}) for name in ("first", "second")]
    office.add_items(gold)
    office.add_items(1)  # without ordinary items no gold item comes either
    ada = office.person("ada")
    ada.fetch()
    for side_of_a in (True, False):
        view = ada.view()
        left = only(store, tables.comparison, id=view.comparison_id).left_slot
        ada.judge(option_of("left" if (left == "a") == side_of_a else "right", "better"))
    with store.read() as connection:
        found = judged_pairs(connection)
    assert [(row.is_gold, row.gold_ok) for row in found] == [(True, True), (True, False)]
    work = quality_report(store).overall.work
    assert (work.n, work.gold.value, work.gold.n) == (0, 0.5, 2)
    change(store, tables.comparison, {"turn": 2}, pair_id=found[1].pair_id)  # as if asked by the annotator
    work = quality_report(store).overall.work
    assert (work.n, work.gold.value, work.gold.n) == (0, 1.0, 1)


@pytest.mark.parametrize(
    ("expected", "choice", "safety", "right"),
    [
        (None, "a", None, None),
        ({"grades": ["better"]}, "a", None, None),
        ({"choice": "a"}, "a", "both_unsafe", True),
        ({"choice": "a", "safety": "both_safe"}, "a", None, True),
        ({"choice": "a", "safety": "both_safe"}, "a", "both_unsafe", False),
        ({"choice": "a", "safety": "both_safe"}, "b", "both_safe", False),
        ({"id": "e", "expected": {"choice": "b", "safety": None}}, "b", "both_safe", True),
    ],
)
def test_as_known(expected: Any, choice: Any, safety: Any, right: bool | None) -> None:
    assert as_known(json.dumps(expected) if expected else None, choice, safety) is right


def test_one_project_and_names_and_one_query(worked: Office) -> None:
    ada = worked.person("ada")
    ada.fetch()
    ada.judge(1)
    at_safety = ada.at("safety")
    at_safety.accept()
    at_safety.fetch()
    at_safety.judge(1, safety="both_safe")
    add_person(worked.store, "eve", identifier="ann_eve")
    assert [part.name for part in quality_report(worked.store, project_name="safety").projects] == ["safety"]
    assert annotator_names(worked.store) == {ada.id: "ada", "ann_eve": "eve"}
    with pytest.raises(UserError, match=r"no project 'sefety'.*helpfulness, safety"):
        quality_report(worked.store, project_name="sefety")
    asked: list[str] = []
    with worked.store.read() as connection:
        event.listen(connection, "before_cursor_execute", lambda *given: asked.append(given[2]))
        assert len(judged_pairs(connection)) == 2
    assert sum("SELECT" in statement for statement in asked) == 1


# -- text, page and JSON -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EDGES)
def test_little_or_nothing_is_shown_without_holes(name: str) -> None:
    made = build_report(*EDGES[name])
    written = json.dumps(as_json(made), allow_nan=False)
    seen = " ".join(outline(as_html(made)).data) + as_text(made) + written.replace("null", "")
    assert re.findall(r"\b(nan|NaN|None|inf|Infinity)\b", seen.replace("infin", "")) == []
    if not any(not row.is_gold for row in EDGES[name][0]):
        assert as_text(made).startswith("No judgments yet.")


def test_equal_judgments_give_equal_reports() -> None:
    rows = example(150)
    shuffled = list(rows)
    random.Random(3).shuffle(shuffled)
    one, other = build_report(rows, skipped()), build_report(shuffled, skipped()[::-1])
    assert as_json(one) == as_json(other)
    assert as_html(one) == as_html(other)
    assert as_text(one) == as_text(other)


def test_the_page_is_one_safe_file(page: str) -> None:
    parsed = outline(page)
    assert parsed.open == []
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in parsed.elements}
    assert re.findall(r"https?://|@import|url\((?!#)", page) == []
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    labelled = {attrs["aria-labelledby"] for _, attrs in parsed.elements if "aria-labelledby" in attrs}
    assert labelled and labelled <= set(ids)
    assert [attrs.get("aria-label") for tag, attrs in parsed.elements if tag == "svg"] == [
        "Agreement of each project, 95 % intervals",
        "Shares of the four grades in each batch",
        "Shares of the four grades in each batch",
        "Share of left answers chosen by each annotator, 95 % intervals",
        "Judgments per day in each project",
    ]
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert re.findall(r"#[0-9a-f]{6}\b(?!\))", re.sub(r'(href="|url\()#\w+', "", drawn)) == []


def test_names_are_shown_to_those_who_may_know_only(report: QualityReport, page: str) -> None:
    names = {ANNOTATORS[0]: "ada", ANNOTATORS[1]: "<b>ben$x$</b>"}
    named, text = as_html(report, names), as_text(report, names)
    for seen, hidden in ((named, page), (text, as_text(report))):
        assert "ada" not in hidden and "ada" in seen
        assert ANNOTATORS[0][:9] in hidden and ANNOTATORS[0][:9] not in seen
        assert ANNOTATORS[2][:9] in seen
    assert "<b>" not in named
    plots = re.findall(r"<svg.*?</svg>", named, flags=re.DOTALL)
    assert any("&lt;b&gt;ben$x$&lt;/b&gt;" in plot for plot in plots)
    assert '<th scope="row">&lt;b&gt;ben$x$&lt;/b&gt;</th>' in named
    assert "ada" not in json.dumps(as_json(report))


def test_ids_are_cut_no_further_than_they_differ() -> None:
    rows = [judged("p", "ann_0123456789_one"), judged("q", "ann_0123456789_two"), judged("r", "ann_3")]
    assert labels_of(build_report(rows)) == {
        "ann_0123456789_one": "ann_0123456789_o…",
        "ann_0123456789_two": "ann_0123456789_t…",
        "ann_3": "ann_3",
    }


@pytest.mark.parametrize("width", [80, 100])
def test_text_fits_the_terminal(report: QualityReport, width: int) -> None:
    lines = as_text(report, width=width).splitlines()
    assert max(map(len, lines)) <= width
    (heading,) = [line for line in lines if line.startswith("annotator ")]
    row = next(line for line in lines if line.startswith(ANNOTATORS[-1][:9]) and "%  " in line)
    assert len(row) == len(heading)
    assert heading.split()[:5] == ["annotator", "judged", "agrees", "left", "p"]
    person = next(person for person in report.annotators if person.annotator == ANNOTATORS[-1])
    assert row.split()[1] == str(person.work.n)
    assert row.split()[4:7] == [f"{100 * (person.work.left.value or 0):.0f}", "%", "<0.001"]


def test_rough_figures_are_marked(report: QualityReport) -> None:
    text = as_text(report)
    person = report.annotators[0]
    assert person.work.gold.n < FEW <= person.work.left.n
    row = next(line for line in text.splitlines() if line.startswith(person.annotator[:9]) and "judged" not in line)
    assert row.count("%*") == 1
    assert f"n&nbsp;=&nbsp;{person.work.gold.n}</small>" in as_html(report)
