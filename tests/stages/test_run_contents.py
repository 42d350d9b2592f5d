"""A finished run whose files were changed: the next command names the file, and never says "already finished"."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stage_fixtures import outcome, put_right_afterwards, reduced_recipe

from alignment.files import read_json
from alignment.run import run_folder
from alignment.settings.recipe import Recipe
from stages.doctor import __main__ as doctor
from stages.evaluate import judge_policies
from stages.pipeline import run_stages

PLUGIN = '''"""A gate of one's own that no recipe here asks for."""
from alignment.reward.gate import GATES
GATES["mine"] = GATES["threshold"]
'''


@pytest.fixture(scope="module")
def made(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a plugin, and a finished run."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(Path(files["prompts"]).parent, folder / "data")
    (folder / "plugin.py").write_text(PLUGIN)
    run_stages.run(recipe_of(folder, files))
    return folder


def recipe_of(folder: Path, files: dict[str, str]) -> Recipe:
    own = {name: str(folder / "data" / Path(file).name) for name, file in files.items()}
    return reduced_recipe(own, folder / "run", f"plugins=[{folder / 'plugin.py'}]")


Change = Callable[[Path], object]


def flip_a_weight(file: Path) -> None:
    weights = load_file(str(file))
    first = weights[sorted(weights)[0]]
    first.view(-1)[0] *= -1
    assert torch.isfinite(first).all()
    save_file(weights, str(file), metadata={"format": "pt"})


def swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def halve(file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: len(lines) // 2]))


ROUND = Path("run/round-1")
ADAPTER = "adapter_model.safetensors"
CHANGES: dict[str, tuple[Change, str]] = {
    "comparisons halved": (
        lambda made: halve(made / ROUND / "annotate" / "comparisons.jsonl"),
        "round-1/annotate is not what its stage made: comparisons.jsonl has changed",
    ),
    "one weight flipped": (
        lambda made: flip_a_weight(made / ROUND / "reward" / "safety" / ADAPTER),
        f"round-1/reward is not what its stage made: safety/{ADAPTER} has changed",
    ),
    "two adapters swapped": (
        lambda made: swap(made / ROUND / "rejection" / ADAPTER, made / ROUND / "ppo" / ADAPTER),
        f"round-1/rejection is not what its stage made: {ADAPTER} has changed",
    ),
    "chat template changed": (
        lambda made: (made / "run" / "sft" / "chat_template.jinja").write_text("{{ messages }}"),
        "sft is not what its stage made: chat_template.jinja has changed",
    ),
    "training file changed": (
        lambda made: halve(made / "data" / "prompts.jsonl"),
        "round-1/annotate was made before the present",
    ),
    "plugin edited": (
        lambda made: (made / "plugin.py").write_text(PLUGIN + "# edited\n"),
        "round-1/reward was made before the present",
    ),
}


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder itself; whatever a test does to it is put right afterwards."""
    with put_right_afterwards(made, tmp_path / "kept"):
        yield made


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named_by_the_next_command(
    own: Path, files: dict[str, str], change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, said = CHANGES[change]
    edit(own)
    code, shown = outcome(lambda: run_stages.run(recipe_of(own, files)), capsys)
    assert code == 2
    assert f"{own / 'run'}/{said}" in shown, shown
    assert doctor.main(["--run", str(own / "run"), "--verify"]) == 1


def test_touched_but_equal_files_are_the_same(
    own: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for file in [*(own / "run" / "base").iterdir(), *(own / "data").iterdir(), own / "plugin.py"]:
        os.utime(file)
    code, shown = outcome(lambda: run_stages.run(recipe_of(own, files)), capsys)
    assert code == 0 and shown.count("already finished") == 7
    assert doctor.main(["--run", str(own / "run"), "--verify"]) == 0
    assert "round-1/ppo: as it was made, " in capsys.readouterr().out


def test_the_hint_to_accept_does_what_it_says(
    own: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    halve(own / ROUND / "annotate" / "comparisons.jsonl")
    _, shown = outcome(lambda: run_stages.run(recipe_of(own, files)), capsys)
    hint = shown.partition("python -m stages.doctor ")[2].partition("; or")[0]
    assert doctor.main(hint.split()) == 0
    assert "comparisons.jsonl has changed; taken as meant" in capsys.readouterr().out
    code, shown = outcome(lambda: run_stages.run(recipe_of(own, files)), capsys)
    assert code == 2 and "round-1/reward was made before the present round-1/annotate" in shown
    assert doctor.main(["--run", str(own / "run"), "--verify"]) == 1
    assert "it was made before the present round-1/annotate" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--verify"], ["--accept", "sft"]])
def test_what_is_about_a_run_needs_one(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(words) == 2
    assert "give --run FOLDER" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--run", str(tmp_path / "none"), "--verify"]) == 2
    assert "no such run" in capsys.readouterr().err


def test_what_was_made_without_a_manifest_is_said_to_be_unchecked(
    own: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (own / "run" / "sft" / "manifest.json").unlink()
    code, shown = outcome(lambda: run_stages.run(recipe_of(own, files)), capsys)
    assert code == 0
    assert "sft: already finished; its files are not checked, for an earlier version made it" in shown
    assert doctor.main(["--run", str(own / "run"), "--verify"]) == 0
    assert "sft: not checked, from a version that wrote no manifest" in capsys.readouterr().out


def test_an_input_that_is_gone_is_said_once_and_stops_nothing(
    own: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = own / "data" / Path(files["prompts"]).name
    prompts.unlink()
    code, shown = outcome(lambda: run_stages.run(recipe_of(own, files)), capsys)
    assert code == 0 and shown.count("already finished") == 7
    assert shown.count(f"; not checked, for it is not there: {prompts}") == 1


def test_a_report_made_again_names_the_machine_that_made_it(
    own: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_this_one = run_folder.environment
    monkeypatch.setattr(run_folder, "environment", lambda seed: {**of_this_one(seed), "device": "another machine"})
    recipe = recipe_of(own, files).model_copy(update={"overwrite": True})
    assert judge_policies.run(recipe)["environment"]["device"] == "another machine"
    assert read_json(own / "run" / "report.json")["environment"]["device"] == "another machine"
