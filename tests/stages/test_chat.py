"""Chatting with a run: piped input, two policies at once, conversations that are remembered and forgotten."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import child_process
import pytest
from rich.console import Console
from stage_fixtures import ROOT, outcome, own_data, own_model, reduced_recipe

from alignment.data.records import Message
from alignment.errors import UserError
from alignment.models.backbone import Backbone
from alignment.models.pretrained import load_base
from alignment.models.sampling.streaming import Partial
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.settings.sections import SamplingSection
from stages.chat import talk as chat
from stages.door import command_line
from stages.sft import finetune


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two policies: SFT, and a PPO adapter that nobody trained."""
    folder = tmp_path_factory.mktemp("chat")
    recipe = recipe_of(folder)
    finetune.run(recipe)
    runs = RunFolder(recipe.run_dir)
    stage = runs.begin("ppo", recipe, 1)
    backbone = load_base(runs.stage("sft"), recipe.model)
    backbone.add_adapter("policy", recipe.model.lora)
    backbone.save_adapter("policy", stage.folder)
    runs.finish(stage, {}, inputs=[])
    return folder


def recipe_of(folder: Path) -> Recipe:
    if not (folder / "model").exists():
        own_model(folder / "model")
    files = {**own_data(folder / "data"), "pretraining": "none"}
    settings = [f"model.name_or_path={folder / 'model'}", "model.sampling_copy=false"]
    return reduced_recipe(files, folder / "run", *settings)


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """What the person types, then Ctrl-D."""
    waiting = iter(lines)

    def ask(*unused: Any, **unused_by_name: Any) -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", ask)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The dialogues that the policies were given; each answers with the number of turns."""
    dialogues: list[list[str]] = []

    def answer(
        backbone: Backbone, role: str | None, messages: Sequence[Message], sampling: SamplingSection, *, seed: int
    ) -> Iterator[Partial]:
        dialogues.append([message.content for message in messages])
        yield Partial(f"{role or 'sft'} ", 1, None)
        yield Partial(f"{role or 'sft'} {len(messages)}", 2, "stop")

    monkeypatch.setattr(chat, "stream_answer", answer)
    return dialogues


def test_turns_are_remembered_until_new(
    run: Path, heard: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "one", "  ", "two", "/new", "three", "/quit", "never")
    chat.run(recipe_of(run), ["sft"])
    assert heard == [["one"], ["one", "sft 1", "two"], ["three"]]
    assert "sft: sft 3" in capsys.readouterr().out


def test_the_last_turn_can_be_taken_back(
    run: Path, heard: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "/back", "one", "two", "/back", "three", "/back", "/back", "four")
    chat.run(recipe_of(run), ["sft", "ppo"])
    assert heard[0::2] == [["one"], ["one", "sft 1", "two"], ["one", "sft 1", "three"], ["four"]]
    assert heard[3] == ["one", "ppo-1 1", "two"]
    shown = capsys.readouterr().out
    assert shown.count("there is nothing to take back") == 1
    assert shown.count("taken back: ") == 3


@pytest.mark.parametrize("command", ["/help", "/bakc"])
def test_help_and_a_misspelt_command_list_what_there_is(
    command: str,
    run: Path,
    heard: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed(monkeypatch, command)
    chat.run(recipe_of(run), ["sft"])
    shown = capsys.readouterr().out
    assert heard == []
    assert all(f"{name:<7}{what}" in shown for name, what in chat.COMMANDS.items())
    assert ("no such command" in shown) == (command == "/bakc")


def test_two_policies_keep_conversations_of_their_own(
    run: Path, heard: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "one", "two")
    chat.run(recipe_of(run), ["sft", "ppo"])
    assert heard == [["one"], ["one"], ["one", "sft 1", "two"], ["one", "ppo-1 1", "two"]]
    shown = capsys.readouterr().out
    assert "sft: sft 3" in shown
    assert "ppo-1: ppo-1 3" in shown


def test_a_policy_that_is_not_there_lists_those_that_are(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = outcome(lambda: chat.run(recipe_of(run), ["rejection"]), capsys)
    assert code == 2
    assert "it has: sft, ppo-1" in shown


def test_a_run_without_sft_names_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = outcome(lambda: chat.run(recipe_of(tmp_path), ["newest"]), capsys)
    assert code == 2
    assert "python -m stages.sft" in shown


def test_a_conversation_that_is_too_long_is_said_and_chatting_goes_on(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "x " * 600, "ask")
    chat.run(recipe_of(run), ["sft"])
    shown = capsys.readouterr().out
    assert "error: the conversation with its next answer is" in shown
    assert shown.splitlines()[-1].startswith("sft: ")


def test_markup_that_people_type_or_models_say_is_shown_as_it_is(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces = [Partial("[bold]no[/bold] [/nothing]", 1, "stop")]
    monkeypatch.setattr(chat, "stream_answer", lambda *_, seed: iter(pieces))
    typed(monkeypatch, "[/oops]")
    chat.run(recipe_of(run), ["sft"])
    assert "sft: [bold]no[/bold] [/nothing]" in capsys.readouterr().out


def test_markup_is_shown_as_it_is_on_a_terminal_too(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(chat, "console", Console(file=screen, force_terminal=True, width=80))
    pieces = [Partial("a list[int] ", 1, None), Partial("a list[int] [/INST]", 2, "stop")]
    monkeypatch.setattr(chat, "stream_answer", lambda *_, seed: iter(pieces))
    typed(monkeypatch, "ask")
    chat.run(recipe_of(run), ["sft"])
    assert "a list[int] [/INST]" in screen.getvalue()


@pytest.mark.integration
def test_piped_input_is_answered_line_by_line(run: Path) -> None:
    recipe = recipe_of(run)
    settings = [f"run_dir={recipe.run_dir}", "model.name_or_path=x", "evaluate.sampling.max_new_tokens=4"]
    command = [sys.executable, "-m", "stages.chat", "--compare", "sft", "ppo", *settings]
    done = child_process.run(command, cwd=ROOT, input="ask\nask again\n")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    starts = [line.partition(":")[0] for line in done.stdout.splitlines()[1:] if line.startswith(("sft:", "ppo-1:"))]
    assert starts == ["sft", "ppo-1"] * 2
    assert "you:" not in done.stdout


def test_a_recipe_that_is_wrong_is_a_users_error() -> None:
    with pytest.raises(UserError, match=r"ppo\.kl_beta"):
        command_line.recipe_from(command_line.parser_for("chat").parse_args(["ppo.kl_betta=1"]))
