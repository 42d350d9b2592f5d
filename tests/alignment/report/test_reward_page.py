"""The page of reward models: one safe file that shows what was measured and leaves out what was not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from html_outline import outline
from report_example import documented_keys
from reward_example import example_evaluation, example_pairs

from alignment.figures.reward_model_figures import side_by_side
from alignment.report import number_formats
from alignment.report.blocks_and_reward_schema import RewardEvaluation, validate_evaluation
from alignment.report.write_reward_report import draw_reward_plots, write_reward_report

DOCS = Path(__file__).parents[3] / "docs" / "report.md"


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    return example_evaluation(120)


@pytest.fixture(scope="module")
def page(evaluation: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_reward_report(evaluation, tmp_path_factory.mktemp("page")).read_text(encoding="utf-8")


def small(**changes: Any) -> dict[str, Any]:
    """Four pairs without grades, labels, turns, shorter chosen answers or a second model."""
    pairs = [pair for pair in example_pairs(40) if pair.chosen_tokens > pair.rejected_tokens][:4]
    scored = {"only": {"set": [type(pair)(**{**vars(pair), "grade": None, "turns": 1, **changes}) for pair in pairs]}}
    return {
        "seed": 0,
        "threshold_probability": 0.15,
        "models": {"only": "<script>alert(1)</script>"},
        "test_sets": {"set": {"source": "a&b.jsonl", "n": 4, "left_out": {}}},
        **side_by_side(scored, seed=0, threshold_probability=0.15),
    }


def test_docs_name_every_key() -> None:
    named = set(re.findall(r"`(\w+)`", DOCS.read_text(encoding="utf-8")))
    keys = documented_keys(RewardEvaluation)
    assert {"ece", "at_paper_precision", "same_preference"} <= keys
    assert keys - named == set()


@pytest.mark.usefixtures("blank_plots")
def test_json_holds_what_was_measured(evaluation: dict[str, Any], tmp_path: Path) -> None:
    page = write_reward_report(evaluation, tmp_path / "deep" / "folder")
    assert sorted(path.name for path in page.parent.iterdir()) == ["reward_models.html", "reward_models.json"]
    stored = json.loads((page.parent / "reward_models.json").read_text(encoding="utf-8"))
    assert validate_evaluation(stored) == validate_evaluation(evaluation)
    found = evaluation["figures"]["safety"]["safety"]["unsafe_detection"]["at_gate"]["recall"]["value"]
    assert stored["figures"]["safety"]["safety"]["unsafe_detection"]["at_gate"]["recall"]["value"] == found


def test_an_undocumented_evaluation_is_refused_and_nothing_written(tmp_path: Path) -> None:
    wrong = small()
    wrong["figures"]["only"]["set"]["reliability"]["ece"]["value"] = float("nan")
    wrong["acuracy"] = 1
    with pytest.raises(ValueError, match=r"ece\.value.*acuracy"):
        write_reward_report(wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_page_is_one_well_formed_file_in_the_pages_colours(page: str) -> None:
    parsed = outline(page)
    assert parsed.open == []
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in parsed.elements}
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page))
    assert references and references <= set(ids)
    labelled = {attrs["aria-labelledby"] for _, attrs in parsed.elements if "aria-labelledby" in attrs}
    assert labelled <= set(ids)
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert re.findall(r"#[0-9a-f]{6}\b(?!\))", re.sub(r'(href="|url\()#\w+', "", drawn)) == []


def test_every_plot_says_how_to_read_it(page: str, evaluation: dict[str, Any]) -> None:
    """By grade for each set; reliability and scores for each model and set; detection where there are labels."""
    names = set(draw_reward_plots(validate_evaluation(evaluation)))
    assert names == {
        *(f"grades_{test_set}" for test_set in (0, 1)),
        *(
            f"{kind}_{model}_{test_set}"
            for kind in ("reliability", "scores")
            for model in (0, 1)
            for test_set in (0, 1)
        ),
        *(f"detection_{model}_1" for model in (0, 1)),
    }
    figures = re.findall(r"<figure.*?</figure>", page, flags=re.DOTALL)
    assert len(figures) == len(names)
    assert all(re.search(r'<p class="reading">\w', figure) for figure in figures)


def test_the_page_shows_the_figures(page: str, evaluation: dict[str, Any]) -> None:
    shown = "".join(outline(page).data)
    assert "2 reward models on 2 sets of comparisons" in shown
    assert "None" not in shown and "nan" not in shown.lower().replace("finance", "")
    for model, sets in evaluation["figures"].items():
        assert evaluation["models"][model] in shown
        for figures in sets.values():
            assert number_formats.percent(figures["length"]["balanced"]["value"]) in shown
            assert number_formats.thousandths(figures["reliability"]["ece"]["value"]) in shown
    assert "left out: 3 too long" in shown
    assert "helpfulness and safety" in shown


def test_what_was_not_measured_leaves_no_hole(tmp_path: Path) -> None:
    page = write_reward_report(small(), tmp_path).read_text(encoding="utf-8")
    parsed = outline(page)
    shown = "".join(parsed.data)
    assert parsed.open == []
    assert "None" not in shown and "nan" not in shown.lower()
    for title in ("Unsafe answers", "Agreement", "By safety", "By length of the dialogue", "By dimension"):
        assert title not in shown
    assert "<script>alert(1)</script>" in shown and "<script" not in page
    assert "1 reward model on 1 set of comparisons" in shown


def test_models_without_the_further_blocks_have_no_empty_sections(tmp_path: Path) -> None:
    bare = small()
    accuracy = bare["figures"]["only"]["set"]["accuracy"]
    bare["figures"]["only"]["set"] = {"accuracy": accuracy}
    page = write_reward_report(bare, tmp_path).read_text(encoding="utf-8")
    assert "<svg" not in page
    assert "Calibration" not in page and "Length" not in "".join(outline(page).data)


def test_safe_answers_alone_draw_no_curve(tmp_path: Path) -> None:
    page = write_reward_report(small(chosen_safe=True, rejected_safe=True), tmp_path).read_text(encoding="utf-8")
    shown = "".join(outline(page).data)
    assert "Unsafe answers" in shown and "Both safe" in shown
    assert "None" not in shown and "precision and recall against" not in shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.15, "0.15"), (0.2189, "0.219"), (1e-7, "1e-07"), (0.98765, "0.988"), (0.99996, "0.99996")]
)
def test_probabilities_have_as_many_digits_as_they_need(value: float, shown: str) -> None:
    assert number_formats.probability(value) == shown
