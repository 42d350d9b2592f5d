"""A run that lies elsewhere than it was made does everything that it did before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from stage_fixtures import own_data, own_model, reduced_recipe

from stages.__main__ import main as tandem

pytestmark = pytest.mark.integration

NAMES = ("prompts", "selection_prompts", "heldout_prompts", "demonstrations", "pairs")


def write_recipe(folder: Path) -> list[str]:
    """A recipe over model, data and run of a folder; the words that name it."""
    files = {name: str(folder / "data" / f"{name}.jsonl") for name in NAMES}
    settings = [f"model.name_or_path={folder / 'model'}", "evaluate.judge=none", "reward.heldout_share=0.3"]
    settings += [f"reward.{name}.data={files['pairs']}" for name in ("helpfulness", "safety")]
    recipe = reduced_recipe({**files, "pretraining": "none.jsonl"}, folder / "run", *settings)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return ["--config", str(folder / "recipe.yaml")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    own_data(folder / "data")
    own_model(folder / "model")
    assert tandem(["pipeline", *write_recipe(folder)]) == 0
    return folder


EVERYTHING = (
    ["pipeline"],
    ["ppo", "ppo.method=ppo", "overwrite=true"],
    ["evaluate", "overwrite=true"],
    ["reward", "--evaluate-only"],
    ["export", "export.what=safety"],
    ["doctor"],
    ["pipeline"],
)


def does_everything(own: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stage, *words in EVERYTHING:
        more = [f"export.to={folder / 'exported'}"] if stage == "export" else []
        capsys.readouterr()
        code = tandem([stage, *own, *words, *more])
        shown = capsys.readouterr()
        assert code == 0, (stage, shown.err)
        if stage == "pipeline":
            assert shown.err.count("already finished") == 5, shown.err
    assert (folder / "exported" / "model.safetensors").is_file()


def test_the_run_alone_is_moved(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    (made / "run").rename(made / "gone")
    try:
        does_everything([f"run_dir={run}"], tmp_path, capsys)
    finally:
        (made / "gone").rename(made / "run")


def test_model_data_and_recipe_are_moved_with_it(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "moved"))
    made.rename(made.with_name("gone"))
    try:
        does_everything(write_recipe(folder), tmp_path, capsys)
    finally:
        made.with_name("gone").rename(made)
