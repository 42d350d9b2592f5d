"""``tandem`` and ``python -m stages``: every command by its name, and hints in the words that it was called by."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from child_process import ChildProcess

import stages
from stages.__main__ import APP, STAGES, main
from stages.door.progress_and_exit import DESK, as_called


@pytest.fixture
def called_tandem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/tandem"])


def test_every_stage_is_a_command_and_every_command_a_stage() -> None:
    folders = {file.parent.name for file in Path(str(stages.__file__)).parent.glob("*/__main__.py")}
    assert set(STAGES) == folders


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_alone_it_lists_what_there_is_a_line_each(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    for name, what in {**STAGES, DESK: APP}.items():
        assert f"\n  {name:<10}{what}" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "python -m stages NAME" in shown


@pytest.mark.usefixtures("called_tandem")
def test_the_list_names_the_program_as_it_was_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: tandem NAME")
    assert "python -m" not in shown


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evalute"]) == 2
    assert capsys.readouterr().err == "error: no such command: evalute; did you mean evaluate?\n"
    assert main(["xyzzy"]) == 2
    assert "known: pipeline, base, sft" in capsys.readouterr().err


def test_a_stage_gets_the_words_that_follow_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sft", "sft.epocs=3"]) == 2
    assert "did you mean sft.epochs?" in capsys.readouterr().err


@pytest.mark.usefixtures("called_tandem")
def test_usage_and_hints_name_the_program_as_it_was_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ppo", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: tandem ppo ")
    assert "python -m" not in shown
    assert main(["ppo", f"run_dir={tmp_path / 'run'}"]) == 2
    assert f"Make it first: tandem reward run_dir={tmp_path / 'run'}" in capsys.readouterr().err


@pytest.mark.usefixtures("called_tandem")
def test_the_desk_is_the_app_with_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["desk", "users", "add", "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: tandem desk users add ")


@pytest.mark.usefixtures("called_tandem")
def test_commands_in_a_text_are_as_the_program_was_called() -> None:
    text = "first: python -m stages.base run_dir=a, then python -m annotation_ui users add ada"
    assert as_called(text) == "first: tandem base run_dir=a, then tandem desk users add ada"


def test_called_as_a_module_texts_stay_as_they_are() -> None:
    assert as_called("python -m stages.base") == "python -m stages.base"


@pytest.mark.integration
@pytest.mark.parametrize("words", [["stages"], ["stages.ppo", "--help-all"], ["annotation_ui", "--help"]])
def test_a_reader_who_has_seen_enough_is_no_error(words: list[str]) -> None:
    """As in ``... --help | head``: nothing is said, where Python would print a traceback."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", *words]
    with ChildProcess(command, stdout=write, stderr=subprocess.PIPE, text=True) as process:
        os.close(write)
        errors = process.communicate()[1]
    assert errors == ""
    assert process.returncode == 1


@pytest.mark.parametrize("name", ["bitsandbytes", "httpx"])
def test_libraries_underneath_say_errors_only(name: str) -> None:
    assert logging.getLogger(name).level == logging.ERROR
