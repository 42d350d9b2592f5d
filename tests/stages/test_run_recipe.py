"""A run knows its settings: commands need not repeat them, and none gets others than it was told without a word."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from stage_fixtures import REDUCED, own_data, reduced_data

from alignment.files import read_json
from alignment.run.run_recipe import recipe_of_run
from alignment.settings.read_recipe import load_recipe
from alignment.workflow.own_data import is_left_over
from stages.base.__main__ import main as base
from stages.evaluate.__main__ import main as evaluate
from stages.pipeline.__main__ import main as pipeline
from stages.ppo.__main__ import main as ppo
from stages.reward.__main__ import main as reward
from stages.sft.__main__ import main as sft

pytestmark = pytest.mark.integration
MAIN: dict[str, Callable[[list[str]], int]] = {
    "base": base,
    "sft": sft,
    "reward": reward,
    "ppo": ppo,
    "evaluate": evaluate,
    "pipeline": pipeline,
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of somebody's own."""
    return own_data(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings that make the stages of ``configs/smoke.yaml`` smaller still, and a corpus of a few documents."""
    files = reduced_data(tmp_path_factory.mktemp("toy"))
    values = {"base": {**REDUCED["base"], "corpus": files["pretraining"]}}  # type: ignore[dict-item]
    values |= {name: REDUCED[name] for name in ("rejection", "ppo")}
    return [f"{section}.{key}={json.dumps(value)}" for section, part in values.items() for key, value in part.items()]


@pytest.fixture(scope="module")
def trained(own: dict[str, str], small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on own data up to its reward models, made as README shows it: each setting is given once."""
    run = tmp_path_factory.mktemp("runs") / "own"
    assert base(["--config", "configs/smoke.yaml", f"run_dir={run}", *small]) == 0
    assert sft([f"run_dir={run}", f"sft.data={own['demonstrations']}"]) == 0
    pairs = own["pairs"]
    assert reward([f"run_dir={run}", f"reward.helpfulness.data={pairs}", f"reward.safety.data={pairs}"]) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, in another place."""
    return Path(shutil.copytree(trained, tmp_path / "moved"))


def error(code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that was refused said."""
    said = capsys.readouterr().err
    assert code == 2, said
    assert "Traceback" not in said
    return said[said.index("error: ") :]


def recipe_of(run: Path) -> Any:
    return yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))


def test_later_commands_read_what_the_first_ones_were_given(trained: Path, own: dict[str, str]) -> None:
    kept = recipe_of(trained)
    assert kept["made_from"]["recipe"] == "configs/smoke.yaml"
    assert kept["sft"]["data"] == own["demonstrations"]
    assert kept["base"]["hidden_size"] == REDUCED["base"]["hidden_size"]  # type: ignore[index]
    for stage in ("base", "sft", "round-1/reward"):
        made_with = yaml.safe_load((trained / stage / "config.yaml").read_text(encoding="utf-8"))
        assert made_with["base"] == kept["base"]


def test_another_value_than_a_finished_stage_has_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = recipe_of(run)
    said = error(reward([f"run_dir={run}", "sft.epochs=3", "overwrite=true"]), capsys)
    assert "sft.epochs=1.0, now 3.0" in said and f"{run / 'sft'} was made with other settings" in said
    assert f"python -m stages.sft run_dir={run} sft.epochs=3 overwrite=true" in said
    assert recipe_of(run) == before


def test_a_setting_of_a_stage_that_is_not_made_is_taken_and_written_down(run: Path, own: dict[str, str]) -> None:
    prompts = [f"data.prompts={own['prompts']}", f"data.heldout_prompts={own['heldout_prompts']}"]
    assert ppo([f"run_dir={run}", *prompts, "ppo.method=ppo", "ppo.updates=1"]) == 0
    kept = recipe_of(run)
    assert kept["ppo"]["updates"] == 1 and kept["data"]["prompts"] == own["prompts"]
    assert kept["ppo"]["method"] == "both", "which of the two to make was meant for one command"
    assert read_json(run / "round-1" / "ppo" / "result.json")["updates"] == 1


def test_a_seed_of_one_stage_is_not_the_runs(run: Path, own: dict[str, str]) -> None:
    pairs = own["pairs"]
    again = [f"reward.helpfulness.data={pairs}", "seed=5", "overwrite=true"]
    assert reward([f"run_dir={run}", *again]) == 0
    assert recipe_of(run)["seed"] == 0
    made_with = yaml.safe_load((run / "round-1" / "reward" / "config.yaml").read_text(encoding="utf-8"))
    assert made_with["seed"] == 5


def test_a_stages_own_record_of_its_recipe_knows_what_somebody_typed(trained: Path) -> None:
    recipe = load_recipe(str(trained / "round-1" / "reward" / "config.yaml"))
    assert recipe.is_typed("sft.data") and not recipe.is_typed("data.prompts")
    assert is_left_over(recipe, "data.prompts")


def test_settings_are_checked_together_with_those_of_the_run(run: Path) -> None:
    """Whatever the recipe has that a command would follow without a run."""
    for word in ("rejection.batch_size_dialogues=4", "rejection.micro_batch_size_dialogues=2"):
        recipe, origin, _ = recipe_of_run(None, [f"run_dir={run}", "rejection.micro_batch_size_dialogues=2", word])
        assert origin == str(run / "recipe.yaml") and recipe.rejection.micro_batch_size_dialogues == 2


def test_the_toys_files_are_left_out_or_refused_unless_they_are_asked_for(
    run: Path, own: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"run_dir={run}"
    assert ppo([where]) == 0
    said = capsys.readouterr().err
    assert "data.prompts=data/toy/prompts.jsonl is the toy's" in said and own["pairs"] in said
    selection = read_json(run / "round-1" / "ppo" / "result.json")["selection"]
    assert selection["from"] == "0.05 of data.prompts" and selection["prompts"] > 0
    said = error(evaluate([where]), capsys)
    assert "data.heldout_prompts=data/toy/heldout_prompts.jsonl is the toy's file" in said
    heldout = f"data.heldout_prompts={own['heldout_prompts']}"
    said = error(evaluate([where, heldout]), capsys)
    assert "evaluate.judge=gold knows the toy world only" in said
    assert evaluate([where, heldout, "evaluate.judge=none"]) == 0
    assert recipe_of(run)["data"]["heldout_prompts"] == own["heldout_prompts"]
    assert pipeline([where]) == 0
    # Nothing but the corpus of the base model is the toy's.
    read = {path for file in run.rglob("result.json") for path in read_json(file).get("files", {})}
    assert read >= {own["pairs"], own["demonstrations"], own["heldout_prompts"]}
    assert not [path for path in read if "data/toy" in path]
    drawn = (run / "round-1" / "rejection" / "winners.jsonl").read_text(encoding="utf-8")
    assert "pair 1" in drawn


def test_toy_demonstrations_are_not_what_own_comparisons_go_with(
    own: dict[str, str], small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", "configs/smoke.yaml", f"run_dir={tmp_path / 'run'}", *small]
    assert base([*words]) == 0
    said = error(sft([*words, f"reward.helpfulness.data={own['pairs']}"]), capsys)
    assert "sft.data=data/toy/demonstrations.jsonl is the toy's file" in said
    assert "reward.helpfulness.data" in said
    said = error(pipeline([*words, f"reward.helpfulness.data={own['pairs']}"]), capsys)
    assert "sft.data" in said
    # Typed, it is meant.
    typed = "sft.data=data/toy/demonstrations.jsonl"
    assert sft([*words, f"reward.helpfulness.data={own['pairs']}", typed]) == 0
    # Simulated annotators know the toy world only; nobody asked them.
    said = error(pipeline([*words[2:], "data.heldout_prompts=null", "reward.models=[helpfulness]"]), capsys)
    assert "evaluate.judge=gold" in said or "annotate.source" in said


def test_a_recipe_that_has_changed_is_said_and_followed_only_if_named(
    own: dict[str, str], small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, run = tmp_path / "mine.yaml", tmp_path / "run"
    values = yaml.safe_load(Path("configs/smoke.yaml").read_text(encoding="utf-8")) | {"run_dir": str(run)}
    mine.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert base(["--config", str(mine), *small]) == 0
    values["sft"]["learning_rate"] = 0.25
    mine.write_text(yaml.safe_dump(values), encoding="utf-8")
    capsys.readouterr()
    assert sft([f"run_dir={run}", "overwrite=true"]) == 0
    said = capsys.readouterr().err
    assert f"{mine} has changed since" in said and "sft.learning_rate=0.001, now 0.25" in said
    assert recipe_of(run)["sft"]["learning_rate"] == 0.001
    # Named, it decides; what it leaves as it was is no matter.
    said = error(reward(["--config", str(mine), *small]), capsys)
    assert "sft.learning_rate=0.001, now 0.25" in said
    assert sft(["--config", str(mine), *small, "overwrite=true"]) == 0
    assert recipe_of(run)["sft"]["learning_rate"] == 0.25


def test_what_a_recipe_leaves_open_need_be_given_once(
    own: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    values = yaml.safe_load(Path("configs/smoke.yaml").read_text(encoding="utf-8")) | {"run_dir": str(run)}
    values["sft"]["data"] = "???"
    values["base"] |= REDUCED["base"]
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert "leaves 1 settings to you. Give them: sft.data=..." in error(base(["--config", str(mine)]), capsys)
    assert base(["--config", str(mine), f"sft.data={own['demonstrations']}"]) == 0
    mine.write_text(yaml.safe_dump(values | {"seed": 0, "rounds": 2}), encoding="utf-8")
    assert sft(["--config", str(mine)]) == 0
    assert recipe_of(run)["sft"]["data"] == own["demonstrations"] and recipe_of(run)["rounds"] == 2


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo", "evaluate"])
def test_a_hint_is_the_users_own_command_line(stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names what is missing, with the recipe and all settings, and running it does what it says."""
    mine = tmp_path / "my recipe.yaml"
    values = yaml.safe_load(Path("configs/smoke.yaml").read_text(encoding="utf-8"))
    values |= {"run_dir": str(tmp_path / "run"), "base": {**values["base"], **REDUCED["base"], "steps": 2}}
    mine.write_text(yaml.safe_dump(values), encoding="utf-8")
    words = ["--config", str(mine), "ppo.updates=1", "overwrite=true"]
    for _ in range(2):
        said = error(MAIN[stage](words), capsys)
        hint = shlex.split(said.split("Make it first: ")[1])
        assert hint[:2] == ["python", "-m"] and hint[3:] == [word for word in words if word != "overwrite=true"]
        missing = hint[2].removeprefix("stages.")
        if missing != "base":
            break
        assert MAIN[missing](hint[3:]) == 0
        assert (tmp_path / "run" / missing / "result.json").is_file()
        if stage == "sft":
            return
    assert missing in ("sft", "reward")
