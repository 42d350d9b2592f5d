"""``overwrite=true`` replaces and never destroys: what was finished stays in use until the new one succeeds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest
from held_run import held_by_another_process
from stage_fixtures import contents, outcome, reduced_recipe

from alignment.files import read_json
from alignment.rl.ppo import PPO
from alignment.run.run_folder import RunFolder
from stages.export import write_folder as export
from stages.pipeline import run_stages
from stages.ppo import train_policy as ppo

pytestmark = pytest.mark.integration


@pytest.fixture
def run(ppo_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ppo_run, tmp_path / "run"))


def test_a_policy_outlives_a_training_that_diverges_over_it(
    run: Path,
    files: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(run / "round-1" / "ppo")
    plain, updates = PPO.update, 0

    def diverging(trainer: PPO, *arguments: Any, **options: Any) -> Any:
        nonlocal updates
        updates += 1
        if updates == 2:
            raise FloatingPointError("PPO loss is not finite")
        return plain(trainer, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(PPO, "update", diverging)
        code, shown = outcome(lambda: ppo.run(reduced_recipe(files, run, "ppo.method=ppo", "overwrite=true")), capsys)
    assert code == 1 and "not finite" in shown
    assert contents(run / "round-1" / "ppo") == before
    assert RunFolder(run).policy["folder"] == "round-1/ppo"
    export.run(reduced_recipe(files, run, "export.what=policy", f"export.to={tmp_path / 'out'}"))
    assert (tmp_path / "out" / "model.safetensors").is_file()
    # What was asked for is still to be done, and begins anew without being asked for again.
    ppo.run(reduced_recipe(files, run, "ppo.method=ppo"))
    assert contents(run / "round-1" / "ppo")["adapter_model.safetensors"] == before["adapter_model.safetensors"]
    assert sorted(path.name for path in (run / "round-1").iterdir()) == ["annotate", "ppo", "reward"]


def test_what_is_made_again_names_no_folder_that_is_gone(run: Path, files: dict[str, str]) -> None:
    ppo.run(reduced_recipe(files, run, "ppo.method=ppo", "ppo.updates=1", "overwrite=true"))
    texts = [content for name, content in contents(run / "round-1" / "ppo").items() if not name.endswith("safetensors")]
    assert texts and not any(b"ppo.new" in content for content in texts)


def test_a_pipeline_that_overwrites_and_is_stopped_goes_on_without_overwrite(
    run: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stages.run(reduced_recipe(files, run, "ppo.method=ppo"))
    before = read_json(run / "report.json")

    def stopped(*unused: Any) -> NoReturn:
        raise KeyboardInterrupt

    again = ("ppo.method=ppo", "sft.epochs=2")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(run_stages.WORK, "reward", stopped)
        run_stages.run(reduced_recipe(files, run, *again, "overwrite=true"))
    assert RunFolder(run).finished("reward", 1) and RunFolder(run).finished("ppo", 1)
    after = run_stages.run(reduced_recipe(files, run, *again))
    assert after["policies"]["sft"] != before["policies"]["sft"]
    assert not list(run.rglob("*.new")) + list(run.rglob("*.old"))
    report = run_stages.run(reduced_recipe(files, run, *again))
    assert report == after, "all is finished"


def test_a_second_command_is_told_to_wait_before_it_does_anything(
    run: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with held_by_another_process(run) as other:
        code, shown = outcome(lambda: run_stages.run(reduced_recipe(files, run, "overwrite=true")), capsys)
        assert code == 2
        assert f"(process {other.pid} on" in shown and "Wait until it has ended." in shown
        assert not list(run.rglob("*.new"))
        export.run(reduced_recipe(files, run, "export.what=policy", f"export.to={tmp_path / 'out'}"))
