"""A base model by its Hub name: from the cache, recorded by commit, and the same one for as long as the run lives."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import child_process
import pytest
import yaml
from safetensors.torch import load_file, save_file
from stage_fixtures import own_data, own_model, reduced_recipe

from alignment.files import read_json

pytestmark = pytest.mark.integration

FIRST, SECOND = "1" * 40, "2" * 40


def commit(cache: Path, number: str, *, factor: float) -> Path:
    """Put a commit of ``someone/tiny`` into a cache as the Hub's client does, and have ``main`` point to it."""
    repository = cache / "models--someone--tiny"
    snapshot = own_model(repository / "snapshots" / number)
    weights = load_file(str(snapshot / "model.safetensors"))
    save_file({key: factor * value for key, value in weights.items()}, str(snapshot / "model.safetensors"))
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(number)
    return snapshot


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with one commit, data, and a recipe."""
    folder = tmp_path_factory.mktemp("hub")
    commit(folder / "cache", FIRST, factor=1.0)
    files = own_data(folder / "data")
    settings = ["model.name_or_path=someone/tiny", "evaluate.judge=none", "ppo.method=ppo"]
    recipe = reduced_recipe({**files, "pretraining": "none.jsonl"}, folder / "run", *settings)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return folder


def run(made: Path, stage: str, *words: str) -> tuple[int, str]:
    own = [sys.executable, "-m", f"stages.{stage}", "--config", str(made / "recipe.yaml"), *words]
    environment = {**os.environ, "HF_HUB_CACHE": str(made / "cache"), "HF_HUB_OFFLINE": "1"}
    done = child_process.run(own, env=environment)
    return done.returncode, done.stderr


def test_it_is_recorded_by_commit_and_stays_that_one(made: Path) -> None:
    code, shown = run(made, "sft")
    assert code == 0, shown
    (base,) = [name for name in read_json(made / "run" / "sft" / "manifest.json")["inputs"] if "snapshots" in name]
    assert base.endswith(f"models--someone--tiny/snapshots/{FIRST}")
    code, shown = run(made, "evaluate")
    assert code == 0, shown
    before = (made / "run" / "round-1" / "eval" / "answers.jsonl").read_bytes()
    # The Hub has another commit by now: base is what SFT was trained on, all the same.
    commit(made / "cache", SECOND, factor=3.0)
    code, shown = run(made, "evaluate", "overwrite=true")
    assert code == 0, shown
    assert (made / "run" / "round-1" / "eval" / "answers.jsonl").read_bytes() == before
    # The commit that was used is looked at like any other base.
    snapshot = made / "cache" / "models--someone--tiny" / "snapshots" / FIRST
    shutil.copy2(snapshot.with_name(SECOND) / "model.safetensors", snapshot / "model.safetensors")
    code, shown = run(made, "evaluate", "overwrite=true")
    assert code == 2 and FIRST in shown and "model.safetensors has changed" in shown
