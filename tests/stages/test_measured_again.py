"""A held-out file that has changed: what is measured on it is measured again, and nothing is trained again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from stage_fixtures import outcome, put_right_afterwards, reduced_recipe

from alignment.files import read_json
from alignment.models.scorers.reward_model import RewardModel
from alignment.settings.recipe import Recipe
from stages.annotate import collect
from stages.doctor import __main__ as doctor
from stages.pipeline import run_stages
from stages.ppo import train_policy as ppo
from stages.reward import train_reward_models

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def made(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and a finished run."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(Path(files["prompts"]).parent, folder / "data")
    run_stages.run(recipe_of(folder, files))
    return folder


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder itself; whatever a test does to it is put right afterwards."""
    with put_right_afterwards(made, tmp_path / "kept"):
        yield made


def recipe_of(folder: Path, files: dict[str, str], *overrides: str) -> Recipe:
    own = {name: str(folder / "data" / Path(file).name) for name, file in files.items()}
    return reduced_recipe(own, folder / "run", *overrides)


def drop_the_last_line(folder: Path) -> Path:
    """Of the held-out prompts; the session's own reduced file has it still."""
    file = folder / "data" / "heldout_prompts.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    return file


def trained(run: Path) -> dict[str, bytes]:
    """Weights, and what they were trained on."""
    files = [*run.rglob("*.safetensors"), *run.rglob("comparisons.jsonl"), *run.rglob("winners.jsonl")]
    return {file.relative_to(run).as_posix(): file.read_bytes() for file in files}


OF_TRAINING = ("steps", "final_loss", "n_train", "mixture", "calibration")


def heldout_pairs(run: Path) -> bytes:
    return (run / "round-1" / "annotate" / "heldout_comparisons.jsonl").read_bytes()


def test_the_pipeline_measures_again_and_trains_nothing(
    own: Path, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = own / "run"
    before, pairs, result = trained(run), heldout_pairs(run), read_json(run / "round-1" / "reward" / "result.json")
    changed = drop_the_last_line(own)
    code, shown = outcome(lambda: run_stages.run(recipe_of(own, files)), capsys)
    assert code == 0
    assert f"{run}/round-1/annotate: measured before the present {changed}; measured again" in shown
    assert f"{run}/round-1/reward: measured before the present round-1/annotate; measured again" in shown
    for stage in ("base", "sft", "round-1/rejection", "round-1/ppo"):
        assert f"{run / stage}: already finished" in shown
    assert trained(run) == before
    assert heldout_pairs(run) != pairs
    again = read_json(run / "round-1" / "reward" / "result.json")
    for name, model in again["models"].items():
        was = result["models"][name]
        assert {key: model[key] for key in OF_TRAINING} == {key: was[key] for key in OF_TRAINING}
        assert model["score_histograms"] != was["score_histograms"]
    assert again["seconds"] == result["seconds"]
    # As if the run had been made with the file as it is now, from its beginning.
    (fresh := tmp_path / "fresh").mkdir()
    shutil.copytree(own / "data", fresh / "data")
    run_stages.run(recipe_of(fresh, files))
    assert heldout_pairs(fresh / "run") == heldout_pairs(run)
    new = read_json(fresh / "run" / "round-1" / "reward" / "result.json")
    assert {**new["models"]} == {**again["models"]}
    # All is up to date now.
    assert doctor.main(["--run", str(run), "--verify"]) == 0
    code, shown = outcome(lambda: run_stages.run(recipe_of(own, files)), capsys)
    assert code == 0 and shown.count("already finished") == 7


def test_stage_by_stage_each_hint_measures_again(
    own: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, recipe = own / "run", recipe_of(own, files)
    before = trained(run)
    drop_the_last_line(own)
    assert doctor.main(["--run", str(run), "--verify"]) == 1
    assert "it was measured before the present" in capsys.readouterr().out
    code, shown = outcome(lambda: train_reward_models.run(recipe), capsys)
    assert code == 2 and "round-1/reward is finished" in shown, "it was measured on the pairs that there are"
    collect.run(recipe)
    # The policy needs no figures of the reward models; the evaluation does.
    ppo.run(recipe_of(own, files, "ppo.method=ppo", "overwrite=true"))
    train_reward_models.run(recipe)
    assert trained(run) == before


def test_a_kill_while_it_is_measured_again_leaves_what_was_there(
    own: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recipe = own / "run", recipe_of(own, files)
    before = trained(run)
    drop_the_last_line(own)
    collect.run(recipe)
    result = read_json(run / "round-1" / "reward" / "result.json")

    def killed(*unused: object) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RewardModel, "load", killed)
        train_reward_models.run(recipe)
    assert read_json(run / "round-1" / "reward" / "result.json") == result
    run_stages.run(recipe)
    assert trained(run) == before
    assert read_json(run / "round-1" / "reward" / "result.json")["models"] != result["models"]
    assert not list(run.rglob("*.measured"))


@pytest.mark.parametrize(
    ("stage", "setting"),
    [(collect, "annotate.temperatures=[0.9,1.1]"), (train_reward_models, "reward.helpfulness.epochs=3")],
)
def test_other_settings_than_it_was_made_with_are_refused(
    stage: Any, setting: str, own: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    drop_the_last_line(own)
    if stage is train_reward_models:
        collect.run(recipe_of(own, files))
    before = trained(own / "run")
    code, shown = outcome(lambda: stage.run(recipe_of(own, files, setting)), capsys)
    assert code == 2 and f"was made with other settings: {setting.partition('=')[0]}=" in shown
    assert trained(own / "run") == before


def test_what_was_measured_before_a_stop_is_measured_again(
    own: Path, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Helpfulness is done when the stage is stopped; then the held-out pairs are others."""
    run = Path(shutil.copytree(own / "run", tmp_path / "run"))
    shutil.rmtree(run / "round-1" / "reward")
    recipe = recipe_of(own, files).model_copy(update={"run_dir": str(run)})
    plain = train_reward_models.train_one

    def stopped(recipe: Recipe, stage: Any, model: Any, data: Any, name: str, stop: Any) -> Any:
        if name == "safety":
            raise KeyboardInterrupt
        return plain(recipe, stage, model, data, name, stop)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train_reward_models, "train_one", stopped)
        train_reward_models.run(recipe)
    first = read_json(run / "round-1" / "reward" / "helpfulness" / "result.json")
    drop_the_last_line(own)
    collect.run(recipe)
    train_reward_models.run(recipe)
    helpfulness = read_json(run / "round-1" / "reward" / "result.json")["models"]["helpfulness"]
    assert {key: helpfulness[key] for key in OF_TRAINING} == {key: first[key] for key in OF_TRAINING}
    assert helpfulness["score_histograms"] != first["score_histograms"]
    # As it is where both were measured on them.
    run_stages.run(recipe_of(own, files))
    whole = read_json(own / "run" / "round-1" / "reward" / "result.json")["models"]["helpfulness"]
    assert helpfulness == whole
