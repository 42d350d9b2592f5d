"""What a stage read is what it is recorded to be made from, whatever becomes of the files in the meantime."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stage_fixtures import TOY, outcome, reduced_recipe

from alignment.files import read_json
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.workflow.plugins import load_plugins
from stages.annotate import collect as annotate
from stages.base import write_base_model as base
from stages.evaluate import judge_policies as evaluate
from stages.ppo import train_policy as ppo
from stages.reward import train_reward_models as reward
from stages.sft import finetune as sft

pytestmark = pytest.mark.usefixtures("without_plugins")
PLUGIN = (
    "from alignment.reward.losses import LOSSES\nLOSSES.setdefault({name!r}, lambda log_odds, strength: -log_odds)\n"
)
READS: dict[str, tuple[Callable[[Recipe], Any], str]] = {
    "base": (base.run, "pretraining"),
    "sft": (sft.run, "demonstrations"),
    "round-1/annotate": (annotate.run, "prompts"),
    "round-1/reward": (reward.run, "plugin"),
    "round-1/rejection": (partial(ppo.run, method="rejection"), "prompts"),
    "round-1/ppo": (partial(ppo.run, method="ppo"), "selection_prompts"),
    "round-1/eval": (evaluate.run, "heldout_prompts"),
}
"""Place of a stage -> what makes it, a file that it reads before it begins."""


def edited_before_it_begins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a file edited after a stage has read it, just before it begins."""

    def edit_first(begin: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with file.open("a", encoding="utf-8") as lines:
            lines.write("\n")
        return begin(*arguments, **named)

    for method in ("begin", "begin_or_resume"):
        whole = getattr(RunFolder, method)
        monkeypatch.setattr(RunFolder, method, lambda *a, _whole=whole, **k: edit_first(_whole, *a, **k))


@pytest.mark.parametrize("place", READS)
def test_a_file_that_changes_between_reading_and_beginning_is_named_and_nothing_is_begun(
    place: str,
    ppo_run: Path,
    files: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work, name = READS[place]
    run = Path(shutil.copytree(ppo_run, tmp_path / "run"))
    own = {key: shutil.copy(file, tmp_path) for key, file in files.items()}
    plugin = tmp_path / f"{place.replace('/', '_')}.py"
    plugin.write_text(PLUGIN.format(name=f"of {place}"), encoding="utf-8")
    read = plugin if name == "plugin" else Path(own[name])
    settings = ["overwrite=true", *([f"plugins=[{plugin}]"] if name == "plugin" else [])]
    there = (run / place / "result.json").is_file()
    before = read_json(run / place / "result.json") if there else None

    edited_before_it_begins(read, monkeypatch)
    code, said = outcome(lambda: work(reduced_recipe(own, run, *settings)), capsys)
    assert code == 2
    assert f"{read} changed while" in said and "run the same command again" in said, said
    if there:
        assert read_json(run / place / "result.json") == before
        assert not (run / f"{place}.new").exists()
    else:
        assert not (run / place).exists()


@pytest.mark.parametrize("place", ["round-1/annotate", "round-1/rejection", "round-1/ppo"])
def test_comparisons_whose_prompts_are_answered_are_looked_at_too(
    place: str,
    ppo_run: Path,
    files: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are, where ``data.prompts`` is the toy's in a run with own data, and nobody asked for it."""
    run = Path(shutil.copytree(ppo_run, tmp_path / "run"))
    pairs = Path(shutil.copy(run / "round-1" / "annotate" / "comparisons.jsonl", tmp_path / "pairs.jsonl"))
    monkeypatch.setattr(Recipe, "is_typed", lambda self, key: key not in {"data.prompts", "data.selection_prompts"})
    monkeypatch.setattr(RunFolder, "check_settings", lambda *_: None)  # the reward models are from other comparisons
    monkeypatch.setattr(annotate, "fill_queues", lambda *_: [])  # the toy's annotators know the toy's prompts only
    edited_before_it_begins(pairs, monkeypatch)
    settings = [f"reward.{name}.data={pairs}" for name in ("helpfulness", "safety")]
    toys = {"prompts": str(TOY / "prompts.jsonl"), "selection_prompts": str(TOY / "selection_prompts.jsonl")}
    recipe = reduced_recipe(files | toys, run, "overwrite=true", *settings)
    code, said = outcome(lambda: READS[place][0](recipe), capsys)
    assert code == 2 and f"{pairs} changed while" in said, said


def test_a_plugin_that_changed_since_it_was_run_is_named_by_the_next_stage(
    ppo_run: Path, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipeline runs plugins once, and hours may pass before a stage that uses them."""
    run = Path(shutil.copytree(ppo_run, tmp_path / "run"))
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN.format(name="one"), encoding="utf-8")
    load_plugins([str(plugin)])
    settings = (f"plugins=[{plugin}]", "overwrite=true")
    plugin.write_text(PLUGIN.format(name="two"), encoding="utf-8")
    for work in (reward.run, partial(ppo.run, method="ppo")):
        code, said = outcome(lambda work=work: work(reduced_recipe(files, run, *settings)), capsys)
        assert code == 2 and f"{plugin} has changed since it was run" in said, said
