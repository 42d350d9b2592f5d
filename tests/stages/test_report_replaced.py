"""A pipeline that repeats an evaluation says which report it replaces, and why, before it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_example import example_report
from stage_fixtures import outcome, reduced_recipe

from alignment.report.write_report import write_report
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import save_recipe
from alignment.settings.recipe import Recipe
from stages.door.preconditions import planned_stages
from stages.pipeline import run_stages


def finish(run: Path, place: str, recipe: Recipe, **result: Any) -> None:
    """Leave a stage as an earlier version did, without a manifest."""
    (run / place).mkdir(parents=True, exist_ok=True)
    save_recipe(recipe, run / place / "config.yaml")
    (run / place / "result.json").write_text(json.dumps({"seconds": 1.0, **result}), encoding="utf-8")


@pytest.fixture
def recipe(files: dict[str, str], tmp_path: Path) -> Recipe:
    """Of a run whose every stage is finished."""
    recipe, folder = reduced_recipe(files, tmp_path / "run"), RunFolder(tmp_path / "run")
    for name, number in planned_stages(recipe):
        finish(folder.root, folder.place(name, number), recipe)
    write_report(example_report(), folder.root)
    return recipe


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What had been said when an evaluation began; none of these evaluates anything."""
    said: list[str] = []
    monkeypatch.setitem(run_stages.WORK, "eval", lambda recipe, number: said.append(capsys.readouterr().err) or {})
    return said


def test_other_heldout_prompts(
    recipe: Recipe, tmp_path: Path, at_work: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, used = tmp_path / "run", recipe.data.heldout_prompts
    other = recipe.model_copy(update={"data": recipe.data.model_copy(update={"heldout_prompts": "other.jsonl"})})
    finish(run, "round-1/eval", other)
    code, _ = outcome(lambda: run_stages.run(recipe), capsys)
    assert code == 0
    [said] = at_work
    assert said.splitlines()[-1] == (
        f"{run}/round-1/eval was made with other settings: data.heldout_prompts=other.jsonl, now {used}; it is made "
        f"again, and {run}/report.html and report.json are replaced once that is done; Ctrl-C until then keeps them"
    )


def test_another_policy(recipe: Recipe, tmp_path: Path, at_work: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    finish(run, "round-1/eval", recipe, made_from={"sft": "what it was", "round-1/ppo": "gone"})
    finish(run, "sft", recipe, output="what it is")
    outcome(lambda: run_stages.run(recipe), capsys)
    [said] = at_work
    assert f"{run}/round-1/eval was made before the present sft and " in said
    assert f"and {run}/report.html and report.json are replaced" in said


def test_a_report_that_stays_is_no_matter(
    recipe: Recipe, at_work: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = outcome(lambda: run_stages.run(recipe), capsys)
    assert code == 0 and at_work == [] and "replaced" not in said


def test_a_report_that_is_replaced_as_asked_is_no_matter(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, at_work: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in run_stages.WORK.keys() - {"eval"}:
        monkeypatch.setitem(run_stages.WORK, name, lambda recipe, number: {})
    again = recipe.model_copy(update={"overwrite": True, "seed": 7})
    outcome(lambda: run_stages.run(again), capsys)
    assert len(at_work) == 1 and "replaced" not in at_work[0]


def test_an_evaluation_that_was_stopped(recipe: Recipe, at_work: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The setting that had it made again was put back."""
    RunFolder(recipe.run_dir).make_again("eval", 1)
    outcome(lambda: run_stages.run(recipe), capsys)
    [said] = at_work
    assert "round-1/eval was begun anew, and stopped; it is made again, and " in said


def test_the_report_of_a_round_before_the_last(
    files: dict[str, str], tmp_path: Path, at_work: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Evaluating an earlier round again left its report where that of the last round was."""
    recipe = reduced_recipe(files, tmp_path / "run", "rounds=2")
    folder = RunFolder(recipe.run_dir)
    for name, number in planned_stages(recipe):
        finish(folder.root, folder.place(name, number), recipe)
    write_report(example_report() | {"rounds": 1}, folder.root)
    outcome(lambda: run_stages.run(recipe), capsys)
    [said] = at_work
    assert "round-2/eval was finished, but the report is of round 1 now; it is made again, and " in said
    write_report(example_report() | {"rounds": 2}, folder.root)
    at_work.clear()
    finish(folder.root, "round-2/eval", recipe)
    outcome(lambda: run_stages.run(recipe), capsys)
    assert not any("report is of round" in line for line in at_work)
