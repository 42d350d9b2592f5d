"""What selects a checkpoint is never what the report is made on, nor trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from stage_fixtures import outcome, reduced_recipe, without_manifests

from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.data.jsonl_and_raw_rows import read_jsonl
from alignment.data.records import Comparison, Prompt
from alignment.data.splits import overlap_key
from alignment.files import read_json
from alignment.rl.heldout_answers import read_snapshots
from alignment.rl.ppo import PPO
from alignment.rl.rejection import Winner
from alignment.rl.rollout import Episodes
from alignment.run.run_folder import RunFolder
from stages.annotate import collect as annotate
from stages.ppo import train_policy as ppo
from stages.ppo.__main__ import main as ppo_main
from stages.reward import train_reward_models

pytestmark = pytest.mark.integration


def keys(dialogues: Any) -> set[str]:
    return {overlap_key(messages) for messages in dialogues}


def prompts_of(file: str) -> set[str]:
    return keys(prompt.messages for prompt in read_jsonl(file, Prompt)[0])


def snapshots_of(run: Path) -> set[str]:
    taken = read_snapshots(run / "round-1" / "ppo" / "heldout_samples.jsonl")
    return keys(item.prompt.messages for rows in taken.values() for item in rows)


@pytest.mark.parametrize("from_a_file", [True, False])
def test_no_prompt_of_the_report_trains_or_selects(
    from_a_file: bool, files: dict[str, str], sft_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(sft_run, tmp_path / "run"))
    share = () if from_a_file else ("data.selection_prompts=null", "data.selection_share=0.2")
    recipe = reduced_recipe(files, run, "ppo.keep=best", *share)
    trained: set[str] = set()
    plain = PPO.sample

    def noted(trainer: PPO, prompts: Sequence[EncodedPrompt], update: int) -> Episodes:
        trained.update(overlap_key(item.prompt.messages) for item in prompts)
        return plain(trainer, prompts, update)

    annotate.run(recipe)
    train_reward_models.run(recipe)
    monkeypatch.setattr(PPO, "sample", noted)
    ppo.run(recipe)
    round_1 = run / "round-1"
    compared = keys(item.prompt for item in read_jsonl(round_1 / "annotate" / "comparisons.jsonl", Comparison)[0])
    won = keys(item.prompt.messages for item in read_jsonl(round_1 / "rejection" / "winners.jsonl", Winner)[0])
    report, selecting = prompts_of(files["heldout_prompts"]), snapshots_of(run)
    assert selecting
    for used in (compared, won, trained):
        assert used
        assert not used & report and not used & selecting
    assert not selecting & report
    assert (selecting <= prompts_of(files["selection_prompts"])) == from_a_file
    assert (selecting <= prompts_of(files["prompts"])) == (not from_a_file)
    assert read_json(round_1 / "ppo" / "result.json")["selection"]["prompts"] == len(selecting)


NEWER = ("selection_prompts", "selection_share", "unused")
"""Settings of ``data`` that runs of an earlier version do not have."""


def older(run: Path) -> None:
    """Make a run one of a version that selected by the held-out prompts, and kept no recipe."""
    without_manifests(run)
    (run / "recipe.yaml").unlink()
    for file in run.rglob("config.yaml"):
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        for name in NEWER:
            del values["data"][name]
        file.write_text(yaml.safe_dump(values), encoding="utf-8")


def test_a_run_of_an_earlier_version_goes_on_with_its_held_out_prompts_and_says_so(
    files: dict[str, str], rewarded_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(rewarded_run, tmp_path / "run"))
    recipe = reduced_recipe(files, run, "ppo.method=ppo")
    mine, values = tmp_path / "mine.yaml", recipe.model_dump(mode="json")
    for name in NEWER:
        del values["data"][name]
    mine.write_text(yaml.safe_dump(values), encoding="utf-8")
    older(run)
    assert ppo_main(["--config", str(mine)]) == 0
    assert snapshots_of(run) <= prompts_of(files["heldout_prompts"])
    said = read_json(run / "round-1" / "ppo" / "result.json")["selection"]["from"]
    assert said.startswith("the held-out prompts, as in an earlier version")
    # Unless somebody asks for others.
    asked = f"data.selection_prompts={files['selection_prompts']}"
    assert ppo_main(["--config", str(mine), asked, "overwrite=true"]) == 2, "the comparisons were made otherwise"


def test_a_held_out_prompt_more_trains_no_policy_again(
    files: dict[str, str], rewarded_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(rewarded_run, tmp_path / "run"))
    heldout = tmp_path / "heldout.jsonl"
    shutil.copy(files["heldout_prompts"], heldout)
    recipe = reduced_recipe(files, run, "ppo.method=ppo")
    ppo.run(recipe)
    with heldout.open("a", encoding="utf-8") as lines:
        row = {"id": "more", "messages": [{"role": "user", "content": "One question more?"}]}
        lines.write(json.dumps(row) + "\n")
    assert RunFolder(run).kept("ppo", 1, reduced_recipe({**files, "heldout_prompts": str(heldout)}, run))


def test_the_best_snapshot_is_not_kept_where_none_is_taken(
    files: dict[str, str], rewarded_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(rewarded_run, tmp_path / "run"))
    recipe = reduced_recipe(files, run, "ppo.method=ppo", "ppo.keep=best", "ppo.snapshot_every_updates=0")
    code, said = outcome(lambda: ppo.run(recipe), capsys)
    assert code == 2 and "data.selection_prompts" in said
