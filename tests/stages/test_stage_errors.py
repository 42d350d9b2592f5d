"""What a user can get wrong ends as one clear message and exit code 2, and leaves the run folder as it was."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from child_process import ChildProcess
from filelock import FileLock
from safetensors.torch import load_file, save_file
from stage_fixtures import ROOT, contents, outcome, own_data, own_model, reduced_data, reduced_recipe, write_lines

from alignment.files import read_json
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from stages.annotate import collect as annotate
from stages.base import write_base_model as base
from stages.door.progress_and_exit import guarded
from stages.evaluate import judge_policies as evaluate
from stages.export import write_folder as export
from stages.ppo import train_policy as ppo
from stages.reward import train_reward_models
from stages.sft import finetune

Stage = Callable[[Recipe], Any]
STAGES: dict[str, Stage] = {
    "base": base.run,
    "sft": finetune.run,
    "annotate": annotate.run,
    "reward": train_reward_models.run,
    "ppo": ppo.run,
    "evaluate": evaluate.run,
    "export": export.run,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data of one's own, a tiny model, and a run whose SFT stage is finished."""
    folder = tmp_path_factory.mktemp("made")
    own_data(folder / "data")
    own_model(folder / "model")
    assert guarded(lambda: finetune.run(own_recipe(folder))) == 0
    return folder


@pytest.fixture
def ready(made: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def own_recipe(folder: Path, *overrides: str) -> Recipe:
    """A recipe over the model and data of ``made``."""
    files = {**reduced_names(folder), "pretraining": "none.jsonl"}
    settings = [f"model.name_or_path={folder / 'model'}", "annotate.source=dataset", "evaluate.judge=none"]
    settings += [f"annotate.data={folder / 'data' / 'pairs.jsonl'}", "reward.heldout_share=0.3"]
    return reduced_recipe(files, folder / "run", *settings, *overrides)


def reduced_names(folder: Path) -> dict[str, str]:
    names = ("prompts", "selection_prompts", "heldout_prompts", "demonstrations", "pairs")
    return {name: str(folder / "data" / f"{name}.jsonl") for name in names}


def refused(stage: str, recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a stage that must refuse; everything else about a refusal is checked here."""
    run = Path(recipe.run_dir)
    before = contents(run)
    code, shown = outcome(lambda: STAGES[stage](recipe), capsys)
    assert code == 2, shown
    assert shown.count("error: ") == 1
    assert "Traceback" not in shown
    assert contents(run) == before
    return shown


# -- order of stages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "first"),
    [
        ("sft", "python -m stages.base"),
        ("annotate", "python -m stages.sft"),
        ("reward", "python -m stages.sft"),
        ("ppo", "python -m stages.reward"),
        ("evaluate", "python -m stages.sft"),
        ("export", "python -m stages.sft"),
    ],
)
def test_a_stage_before_its_time_names_the_command_that_comes_first(
    stage: str, first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = reduced_recipe(reduced_data(tmp_path), tmp_path / "run")
    message = refused(stage, recipe, capsys)
    assert f"{first} run_dir={tmp_path / 'run'}" in message
    assert not (tmp_path / "run").exists()


def test_reward_before_annotate(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "python -m stages.annotate" in refused("reward", own_recipe(ready), capsys)


def test_a_finished_stage_says_how_to_run_it_again(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "overwrite=true" in refused("sft", own_recipe(ready), capsys)


def test_base_is_only_for_the_toy_model(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "stages.sft" in refused("base", own_recipe(ready), capsys)


def test_a_run_that_another_process_writes_to(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FileLock(ready / "run" / ".lock"):
        assert "in use by another command" in refused("annotate", own_recipe(ready), capsys)
    assert guarded(lambda: annotate.run(own_recipe(ready))) == 0


# -- files -----------------------------------------------------------------------------------------------------------

FILE_OF_STAGE = {
    "sft": "sft.data",
    "annotate": "annotate.data",
    "reward": "reward.helpfulness.data",
    "evaluate": "data.heldout_prompts",
}


def with_file(ready: Path, stage: str, file: Path) -> Recipe:
    return own_recipe(ready, f"{FILE_OF_STAGE[stage]}={file}", "overwrite=true", "reward.models=[helpfulness]")


def source_of(ready: Path, stage: str) -> Path:
    names = {"sft": "demonstrations", "evaluate": "heldout_prompts"}
    return ready / "data" / f"{names.get(stage, 'pairs')}.jsonl"


@pytest.mark.parametrize("stage", FILE_OF_STAGE)
def test_a_missing_file_is_named_and_the_earlier_result_stays(
    stage: str, ready: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = ready / "nowhere.jsonl"
    assert f"no such file: {missing}" in refused(stage, with_file(ready, stage, missing), capsys)


@pytest.mark.parametrize("stage", FILE_OF_STAGE)
@pytest.mark.parametrize("bad", ['{"id": "x", "messages": [', '{"id": "x", "answer": 3}', "[]"])
def test_a_malformed_line_is_named_by_file_and_number(
    stage: str, bad: str, ready: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = source_of(ready, stage).read_text().splitlines()
    broken = write_lines(ready / "broken.jsonl", [*lines[:2], "", bad, *lines[2:]])
    message = refused(stage, with_file(ready, stage, broken), capsys)
    assert f"{broken}, line 4:" in message
    assert "data.on_error=skip" in message


@pytest.mark.parametrize("stage", FILE_OF_STAGE)
@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_file_without_records(stage: str, text: str, ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = ready / "empty.jsonl"
    empty.write_text(text)
    message = refused(stage, with_file(ready, stage, empty), capsys)
    assert str(empty) in message
    assert "is empty" in message


@pytest.mark.parametrize("stage", FILE_OF_STAGE)
def test_a_file_that_is_not_text(stage: str, ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary = ready / "binary.jsonl"
    binary.write_bytes(b'{"id": "\xff\xfe"}\n')
    assert f"{binary} is not UTF-8 text" in refused(stage, with_file(ready, stage, binary), capsys)


def test_the_corpus_of_the_toy_base_names_its_bad_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = reduced_data(tmp_path)
    files["pretraining"] = str(write_lines(tmp_path / "corpus.jsonl", [{"text": "a"}, {"txt": "b"}]))
    message = refused("base", reduced_recipe(files, tmp_path / "run"), capsys)
    assert "corpus.jsonl, line 2:" in message


def test_prompts_with_one_id_between_them(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = source_of(ready, "evaluate").read_text().splitlines()
    twice = write_lines(ready / "twice.jsonl", [*lines, lines[0].replace("held out 0", "something else")])
    message = refused("evaluate", with_file(ready, "evaluate", twice), capsys)
    assert f"{twice}: 2 prompts have the id 'h0'" in message


def test_a_model_folder_that_is_none(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = own_recipe(ready, f"model.name_or_path={ready / 'data'}", "overwrite=true")
    assert f"model.name_or_path={ready / 'data'}" in refused("sft", recipe, capsys)


def test_a_model_with_a_missing_weight(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = Path(shutil.copytree(ready / "model", ready / "lacking"))
    weights = load_file(str(lacking / "model.safetensors"))
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, str(lacking / "model.safetensors"), metadata={"format": "pt"})
    recipe = own_recipe(ready, f"model.name_or_path={lacking}", "overwrite=true")
    assert "lack 1 weights of a LlamaForCausalLM: model.layers.1.mlp.up_proj.weight" in refused("sft", recipe, capsys)


def test_weights_without_a_place_are_said_and_on_record(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = Path(shutil.copytree(ready / "model", ready / "more"))
    weights = load_file(str(more / "model.safetensors"))
    save_file({**weights, "vision.weight": weights["lm_head.weight"].clone()}, str(more / "model.safetensors"))
    recipe = own_recipe(ready, f"model.name_or_path={more}", "overwrite=true")
    code, shown = outcome(lambda: STAGES["sft"](recipe), capsys)
    assert code == 0, shown
    assert "has no use for are left out: vision.weight" in shown
    assert RunFolder(recipe.run_dir).result("sft")["unexpected_weights"] == ["vision.weight"]


# -- skipping --------------------------------------------------------------------------------------------------------


def test_skipped_lines_are_counted_in_the_result_and_said(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = source_of(ready, "sft").read_text().splitlines()
    broken = write_lines(ready / "broken.jsonl", [lines[0], '{"id"', *lines[1:], '{"id": 1}'])
    recipe = own_recipe(ready, f"sft.data={broken}", "overwrite=true", "data.on_error=skip")
    code, shown = outcome(lambda: finetune.run(recipe), capsys)
    assert code == 0
    assert f"{broken}: {len(lines)} records; left out: 2 malformed (first: line 2" in shown
    result = read_json(ready / "run" / "sft" / "result.json")
    assert result["left_out"] == {"malformed": 2, "too long": 0}
    assert result["demonstrations"] == len(lines)


def test_equal_answers_are_left_out_and_counted(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Any] = source_of(ready, "annotate").read_text().splitlines()
    turn = {"role": "assistant", "content": "the same"}
    prompt = [{"role": "user", "content": "which"}]
    plain = [{"prompt": prompt, "chosen": [turn], "rejected": [{**turn, "content": f"not {n}"}]} for n in range(9)]
    equal = {"prompt": prompt, "chosen": [turn], "rejected": [turn]}
    file = write_lines(ready / "equal.jsonl", [*plain, equal])
    assert rows
    recipe = own_recipe(ready, f"annotate.data={file}")
    code, shown = outcome(lambda: annotate.run(recipe), capsys)
    assert code == 0, shown
    result = read_json(ready / "run" / "round-1" / "annotate" / "result.json")
    assert sum(result["left_out"].values()) == 1
    assert result["comparisons"] + result["heldout_comparisons"] == 9
    assert "left out: 1" in shown


# -- lengths ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def long_turn(ready: Path) -> dict[str, str]:
    context = json.loads((ready / "model" / "config.json").read_text())["max_position_embeddings"]
    return {"role": "user", "content": "q " * context}


def test_a_dialogue_longer_than_the_context(
    ready: Path, long_turn: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = source_of(ready, "sft").read_text().splitlines()
    answer = {"role": "assistant", "content": "so it is"}
    file = write_lines(ready / "long.jsonl", [*lines, {"id": "the-long-one", "messages": [long_turn, answer]}])
    message = refused("sft", own_recipe(ready, f"sft.data={file}", "overwrite=true"), capsys)
    assert "the-long-one" in message
    assert "data.too_long=skip" in message
    skipping = own_recipe(ready, f"sft.data={file}", "overwrite=true", "data.too_long=skip")
    assert guarded(lambda: finetune.run(skipping)) == 0
    assert read_json(ready / "run" / "sft" / "result.json")["left_out"] == {"too long": 1}


def test_a_comparison_longer_than_the_context(
    ready: Path, long_turn: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    row = json.loads(source_of(ready, "annotate").read_text().splitlines()[1])
    rows = [{**row, "id": f"c{n}", "prompt": [{"role": "user", "content": f"pair {n}"}]} for n in range(12)]
    rows += [{**row, "id": "the-long-one", "prompt": [long_turn]}]
    for number, item in enumerate(rows):
        item["conversation_id"] = str(number)
    file = write_lines(ready / "long.jsonl", rows)
    settings = (f"reward.helpfulness.data={file}", "reward.helpfulness.margin=none", "reward.models=[helpfulness]")
    message = refused("reward", own_recipe(ready, *settings), capsys)
    assert "the-long-one" in message
    assert "data.too_long=skip" in message
    assert guarded(lambda: train_reward_models.run(own_recipe(ready, *settings, "data.too_long=skip"))) == 0
    block = read_json(ready / "run" / "round-1" / "reward" / "result.json")["models"]["helpfulness"]
    assert block["left_out"]["too long"] == 1


def test_a_prompt_longer_than_the_context(
    ready: Path, long_turn: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = source_of(ready, "evaluate").read_text().splitlines()
    file = write_lines(ready / "long.jsonl", [*lines, {"id": "the-long-one", "messages": [long_turn]}])
    message = refused("evaluate", own_recipe(ready, f"data.heldout_prompts={file}"), capsys)
    assert "the-long-one" in message
    assert "max_new_tokens=6" in message
    skipping = own_recipe(ready, f"data.heldout_prompts={file}", "data.too_long=skip")
    code, shown = outcome(lambda: evaluate.run(skipping), capsys)
    assert code == 0, shown
    assert f"{file}: 1 too long, left out" in shown
    result = read_json(ready / "run" / "round-1" / "eval" / "result.json")
    assert result["left_out"] == {"prompts too long": 1}


# -- overlap and judges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["sft", "annotate", "reward"])
def test_training_data_with_a_held_out_prompt(stage: str, ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = source_of(ready, stage).read_text().splitlines()[1]
    prompt = "show 1" if stage == "sft" else "pair 1"

    def row(number: int, text: str) -> str:
        return line.replace(prompt, text).replace('"pair-1"', f'"pair-{number}"').replace('"c1"', f'"c{number}"')

    rows = [row(number, f"other {number}") for number in range(30)]
    leaks = [row(30 + number, f"Held  OUT {number}") for number in range(4)]
    file = write_lines(ready / "leak.jsonl", [*rows, *leaks])
    message = refused(stage, with_file(ready, stage, file), capsys)
    assert "held out " in message
    assert str(ready / "data" / "heldout_prompts.jsonl") in message


def test_the_gold_judge_knows_the_toy_world_only(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused("evaluate", own_recipe(ready, "evaluate.judge=gold"), capsys)
    assert "evaluate.judge=none" in message


def test_simulated_annotators_know_the_toy_world_only(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused("annotate", own_recipe(ready, "annotate.source=simulated"), capsys)
    assert "annotat" in message


# -- ends that are nobody's mistake ----------------------------------------------------------------------------------


def test_numbers_that_go_bad_end_as_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    def diverge() -> None:
        raise FloatingPointError("PPO loss is not finite: {'policy/loss': nan}")

    code, shown = outcome(diverge, capsys)
    assert code == 1
    assert shown.startswith("error: PPO loss is not finite")
    assert "learning rate" in shown
    assert len(shown.splitlines()) == 1


def test_ctrl_c_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    code, shown = outcome(interrupt, capsys)
    assert code == 130
    assert "the same command, without overwrite=true, goes on" in shown


@pytest.mark.integration
@pytest.mark.skipif(sys.platform == "win32", reason="signals are another matter on Windows")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stage_stopped_in_the_middle_can_be_started_again(
    number: signal.Signals, code: int, made: Path, tmp_path: Path
) -> None:
    recipe = own_recipe(made, "sft.epochs=100000")
    run = tmp_path / "run"
    settings = [f"sft.data={recipe.sft.data}", f"data.prompts={recipe.data.prompts}", f"run_dir={run}"]
    settings += [f"data.heldout_prompts={recipe.data.heldout_prompts}", f"model.name_or_path={made / 'model'}"]
    settings += ["sft.epochs=100000", "sft.max_length_tokens=512", "model.dtype=float32"]
    command = [sys.executable, "-m", "stages.sft", *settings]
    with ChildProcess(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as stage:
        metrics = run / "sft" / "metrics.jsonl"
        while stage.poll() is None and not metrics.is_file():
            time.sleep(0.02)
        stage.send_signal(number)
        _, shown = stage.communicate()
    assert stage.returncode == code, shown
    assert "Traceback" not in shown
    assert "the same command, without overwrite=true, goes on" in shown
    assert not (run / "sft" / "result.json").exists()
    again = recipe.model_copy(update={"run_dir": str(run), "sft": recipe.sft.model_copy(update={"epochs": 1.0})})
    assert guarded(lambda: finetune.run(again)) == 0
