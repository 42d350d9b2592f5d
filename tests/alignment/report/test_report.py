"""The report: schema and docs agree, the page is one safe file, and missing stages leave no hole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from html_outline import outline
from report_example import LEVELS, documented_keys, example_report

from alignment.report import headline_and_summary, number_formats, run_report_schema, write_report

DOCS = Path(__file__).parents[3] / "docs" / "report.md"
NBSP = "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def full() -> dict[str, Any]:
    """A report of a run with every stage, and hostile text in it."""
    report = example_report()
    report["samples"][0]["answers"]["sft"]["text"] = "<script>alert(1)</script><img src=http://x.test/a>"
    report["samples"][0]["messages"][0]["content"] = "</p><h1 onclick=x>"
    return report


@pytest.fixture(scope="module")
def page(full: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of that report."""
    return write_report.write_report(full, tmp_path_factory.mktemp("report")).read_text(encoding="utf-8")


def test_docs_name_every_key() -> None:
    named = set(re.findall(r"`(\w+)`", DOCS.read_text(encoding="utf-8")))
    keys = documented_keys(run_report_schema.RunReport)
    assert {"win_rate", "heldout_kl_nats", "edges", "bins"} & keys == {"win_rate", "heldout_kl_nats", "edges"}
    assert keys - named == set()


@pytest.mark.usefixtures("blank_plots")
def test_json_round_trips_and_is_sorted(full: dict[str, Any], tmp_path: Path) -> None:
    write_report.write_report(full, tmp_path / "deep" / "run")
    content = (tmp_path / "deep" / "run" / "report.json").read_text(encoding="utf-8")
    stored = json.loads(content)
    assert list(stored) == sorted(stored)
    assert stored["policies"]["ppo"]["violation_rate"]["value"] == full["policies"]["ppo"]["violation_rate"]["value"]
    assert run_report_schema.validate_report(stored) == run_report_schema.validate_report(full)
    assert sorted(path.name for path in (tmp_path / "deep" / "run").iterdir()) == [
        "report.html",
        "report.json",
    ]


def test_equal_reports_give_equal_bytes(full: dict[str, Any], page: str, tmp_path: Path) -> None:
    assert write_report.write_report(full, tmp_path).read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("policies", "ppo", "helpfullness"), 1, "policies.ppo.helpfullness"),
        (("policies", "ppo", "stop_rate", "value"), float("nan"), "policies.ppo.stop_rate.value"),
        (("schema_version",), 2, "schema_version"),
        (("win_rates", 0, "win"), 0.99, "win + tie"),
        (("links", 0, "path"), "../other/answers.jsonl", "no place in the run folder"),
        (("links", 0, "path"), "javascript:alert(1)", "no place in the run folder"),
        (("links", 0, "path"), "/etc/passwd", "no place in the run folder"),
    ],
)
def test_an_undocumented_report_is_refused_and_nothing_written(
    path: tuple[Any, ...], value: Any, named: str, tmp_path: Path
) -> None:
    report = example_report()
    block: Any = report
    for key in path[:-1]:
        block = block[key]
    block[path[-1]] = value
    with pytest.raises(ValueError, match=re.escape(named)):
        write_report.write_report(report, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_page_is_self_contained(page: str, full: dict[str, Any]) -> None:
    elements = outline(page).elements
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in elements}
    links = [attrs[key] or "" for _, attrs in elements for key in ("src", "href", "xlink:href") if key in attrs]
    others = [link for link in links if not link.startswith("#")]  # those are markers inside the plots
    assert len(others) < len(links) and others == [link["path"] for link in full["links"]]
    assert "@import" not in page and re.findall(r"url\((?!#)", page) == []


def test_page_is_well_formed(page: str) -> None:
    parsed = outline(page)
    assert parsed.open == []
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page))
    assert references and references <= set(ids)
    labelled = {attrs["aria-labelledby"] for _, attrs in parsed.elements if "aria-labelledby" in attrs}
    assert labelled and labelled <= set(ids)


def test_texts_are_shown_and_never_run(page: str) -> None:
    parsed = outline(page)
    assert "<script>alert(1)</script><img src=http://x.test/a>" in parsed.data
    assert "</p><h1 onclick=x>" in parsed.data
    assert "<script" not in page and "<img" not in page


def test_plots_have_labels_and_follow_the_theme(page: str) -> None:
    elements = outline(page).elements
    plots = [attrs for tag, attrs in elements if tag == "svg"]
    assert len(plots) == 11
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for attrs in plots)
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert re.findall(r"#[0-9a-f]{6}\b(?!\))", re.sub(r'(href="|url\()#\w+', "", drawn)) == []
    used = set(re.findall(r"var\((--[\w-]+)\)", page))
    light, dark = page.split("prefers-color-scheme: dark", 1)
    assert used and all(f"{name}:" in light and f"{name}:" in dark for name in used)


def test_tables_have_headers(page: str) -> None:
    parsed = outline(page)
    tables = sum(tag == "table" for tag, _ in parsed.elements)
    headers = [attrs.get("scope") for tag, attrs in parsed.elements if tag == "th"]
    assert tables == 7
    assert headers and set(headers) == {"col", "row", "rowgroup"}


def test_headline_says_what_the_numbers_say() -> None:
    report = example_report(policies=("sft", "ppo"))
    for name, violations, helpful in (("sft", 0.31, 0.47), ("ppo", 0.008, 0.71)):
        report["policies"][name]["violation_rate"]["value"] = violations
        report["policies"][name]["helpfulness"]["value"] = helpful
    report["win_rates"][0].update(win=0.8, tie=0.06, loss=0.14, win_rate=0.83)
    assert headline_and_summary.headline(run_report_schema.validate_report(report)).replace(NBSP, " ") == (
        "PPO has a win rate of 83 % against SFT; violations go from 31 % to 0.8 %; "
        "gold helpfulness goes from 0.47 to 0.71"
    )


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0 %"), (0.008, "0.8 %"), (0.31, "31 %"), (0.978, "97.8 %"), (1.0, "100 %")]
)
def test_percent(value: float, shown: str) -> None:
    assert number_formats.percent(value).replace(NBSP, " ") == shown


def test_the_reports_own_judge_goes_first() -> None:
    report = example_report(policies=("sft", "ppo"))
    own = report["win_rates"][0]
    other = {**own, "judge": "helpfulness reward model", "win": 1.0, "tie": 0.0, "loss": 0.0, "win_rate": 1.0}
    part = {**own, "prompts": "seen_wordings", "win": 0.0, "tie": 0.0, "loss": 1.0, "win_rate": 0.0}
    report["win_rates"] = [other, part, own]
    found = headline_and_summary.win_rate_against_sft(run_report_schema.validate_report(report), "ppo")
    assert found is not None and (found.judge, found.win_rate) == (own["judge"], own["win_rate"])


def test_the_summary_has_a_row_for_each_policy(full: dict[str, Any]) -> None:
    rows = headline_and_summary.summary_rows(full)
    assert [row[0] for row in rows] == ["Base", "SFT", "Rejection", "PPO"]
    columns = headline_and_summary.summary_columns(run_report_schema.validate_report(full))
    assert columns[1:5] == ["helpfulness", "violations", "false refusals", "win rate vs SFT"] and len(columns) == 8
    assert all(len(row) == len(columns) for row in rows)
    assert rows[1][4] == number_formats.NONE  # SFT is not compared with itself
    assert rows[3][1] == f"{full['policies']['ppo']['helpfulness']['value']:.2f}"


@pytest.mark.integration
@pytest.mark.parametrize("policies", [("sft",), ("sft", "rejection"), ("base", "sft", "ppo"), tuple(LEVELS)])
@pytest.mark.parametrize("judged", [True, False])
def test_the_page_renders_whatever_was_run(policies: tuple[str, ...], judged: bool, tmp_path: Path) -> None:
    page = write_report.write_report(example_report(policies=policies, judged=judged), tmp_path).read_text(
        encoding="utf-8"
    )
    parsed = outline(page)
    shown = "".join(parsed.data)
    assert parsed.open == []
    assert "None" not in shown and "nan" not in shown
    assert ("no gold judge for this data" in shown) is not judged
    assert ("PPO, update by update" in shown) is ("ppo" in policies)


def test_the_smallest_report_renders(tmp_path: Path) -> None:
    """Only what the schema requires: one policy, no reward model, no samples, nothing measured."""
    report = {
        "name": "small",
        "seed": 1,
        "judge": None,
        "command": "python -m stages.evaluate",
        "timings_s": {"total": 75.0},
        "environment": {"versions": {}, "commit": None, "device": "cpu", "dtype": "float32"},
        "policies": {"sft": {"n_prompts": 3}},
    }
    page = write_report.write_report(report, tmp_path).read_text(encoding="utf-8")
    assert f"1{NBSP}min 15{NBSP}s in all" in page
    assert "SFT: nothing was measured" in page
    assert "<svg" not in page


def test_reward_model_without_ceiling_or_grades(tmp_path: Path) -> None:
    report = example_report(policies=("sft",))
    model = report["reward_models"]["helpfulness"]
    model["ceiling"] = None
    model["accuracy"] = {"all": model["accuracy"]["all"]}
    model["trend_p_value"] = model["length_correlation"] = None
    shown = "".join(outline(write_report.write_report(report, tmp_path).read_text(encoding="utf-8")).data)
    assert "None" not in shown and "Ceiling, all" in shown
