"""``--help`` of a stage: its own settings, from the recipe that is named, in the width that there is."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from alignment.settings.read_recipe import load_recipe, recipe_keys, save_recipe
from stages.__main__ import STAGES


def help_of(capsys: pytest.CaptureFixture[str], stage: str, *words: str) -> str:
    """What a stage's door prints; it has to end well."""
    assert importlib.import_module(f"stages.{stage}.__main__").main(list(words)) == 0
    return capsys.readouterr().out


def keys_in(shown: str) -> set[str]:
    """The settings that a help lists."""
    return {line.split()[0] for line in shown.splitlines() if line.startswith("  ") and " : " in line}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("columns", [80, 200])
def test_no_line_is_wider_than_the_terminal_but_for_a_word_or_a_command_that_is(
    stage: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for line in help_of(capsys, stage, "--help-all").splitlines():
        assert len(line) <= columns or "python -m" in line or len(line.split()) == 1, line


def test_it_is_plain_text_in_a_terminal_with_colours_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in help_of(capsys, "sft", "--help")


def test_a_stage_lists_its_own_settings_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    listed = keys_in(help_of(capsys, "base", "--help"))
    sections = {"run_dir", "seed", "overwrite", "plugins", "model.name_or_path", "model.dtype", "data.on_error"}
    assert listed == sections | {key for key, *_ in recipe_keys() if key.startswith("base.")}


def test_a_stage_that_makes_two_folders_lists_what_either_reads(capsys: pytest.CaptureFixture[str]) -> None:
    listed = keys_in(help_of(capsys, "ppo", "-h"))
    assert {"ppo.updates", "rejection.prompts", "sft.packing"} <= listed
    assert "sft.epochs" not in listed


def test_chat_lists_how_answers_are_sampled(capsys: pytest.CaptureFixture[str]) -> None:
    listed = keys_in(help_of(capsys, "chat", "--help"))
    assert {"model.dtype", "evaluate.sampling.temperature", "evaluate.sampling.max_new_tokens"} <= listed
    assert not any(key.startswith(("ppo.", "evaluate.judge")) for key in listed)


@pytest.mark.parametrize("stage", STAGES)
def test_help_says_what_the_stage_does_and_how_to_see_the_rest(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys, stage, "--help")
    assert shown.startswith(f"usage: python -m stages.{stage} ")
    assert shown.partition("\n\n")[0].split("[--config RECIPE.yaml]")[1].endswith("[key=value ...]")
    assert f"    python -m stages.{stage}" in shown
    rest = "every stage" if stage == "pipeline" else "the other stages"
    assert f"The settings of {rest}: python -m stages.{stage} --help-all" in " ".join(shown.split())
    assert "run_dir" in keys_in(shown)


def test_help_all_lists_every_setting_with_type_value_and_description(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    shown = help_of(capsys, "sft", "--help-all")
    for key, kind, _, description in recipe_keys():
        assert f"  {key} : {kind} = " in shown
        assert description in shown
    assert "  seed : int = 0\n" in shown
    assert "  ppo.learning_rate : float = 0.001  (in a recipe without it: 1e-06)\n" in shown
    assert "  sft.epochs : float = 2.0\n" in shown  # 2 in a recipe without it, which is the same
    assert "  sft.data : str = data/toy/demonstrations.jsonl  (without a default)\n" in shown


def test_values_are_those_of_the_recipe_and_the_settings_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    save_recipe(load_recipe(None, ["sft.epochs=7"]), file)
    shown = help_of(capsys, "sft", "--config", str(file), "seed=5", "--help")
    assert "  sft.epochs : float = 7.0" in shown
    assert "  seed : int = 5" in shown
    assert str(file) in shown.replace("\n", "")


def test_help_of_a_recipe_with_a_mistake_names_the_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module("stages.sft.__main__").main(["--help", "sft.epocs=1"]) == 2
    assert "did you mean sft.epochs?" in capsys.readouterr().err
