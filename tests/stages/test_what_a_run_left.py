"""What a stage reads of a run is looked at before it works, not after hours of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from stage_fixtures import outcome, reduced_recipe, without_manifests

from alignment.files import read_json
from stages.evaluate import judge_policies as evaluate
from stages.export import write_folder as export


@pytest.fixture(scope="module")
def with_ppo(ppo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that is finished up to PPO, as an earlier version made it: without manifests."""
    run = Path(shutil.copytree(ppo_run, tmp_path_factory.mktemp("runs") / "with-ppo"))
    without_manifests(run)
    return run


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("sft/result.json", "null", "no object"),
        ("round-1/reward/result.json", "[]", "no object"),
        ("round-1/reward/result.json", "-models", "without 'models'"),
        ("round-1/ppo/result.json", "-seconds", "without 'seconds'"),
        ("round-1/ppo/metrics.jsonl", '{"update": 1, "objective/sc', "line 1: not JSON"),
        ("round-1/ppo/metrics.jsonl", '{"update": 1}', "line 1: without objective/score"),
        ("round-1/ppo/heldout_samples.jsonl", '{"update": 1}', "line 1: "),
    ],
)
def test_a_report_is_refused_before_anything_is_sampled(
    file: str,
    content: str,
    named: str,
    with_ppo: Path,
    files: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Path(shutil.copytree(with_ppo, tmp_path / "run"))
    if content.startswith("-"):  # the key that is gone
        kept = read_json(run / file)
        del kept[content[1:]]
        content = json.dumps(kept)
    (run / file).write_text(content, encoding="utf-8")
    monkeypatch.setattr(evaluate, "load_backbone", lambda *unused: pytest.fail("a model is loaded"))
    code, said = outcome(lambda: evaluate.run(reduced_recipe(files, run)), capsys)
    assert code == 2
    assert str(run / file) in said and named in said
    assert not (run / "round-1" / "eval").exists()


@pytest.mark.parametrize("content", ["[]", "7", '{"stage": "ppo"}'])
def test_a_damaged_record_of_the_newest_policy_is_named(
    content: str, with_ppo: Path, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(with_ppo, tmp_path / "run"))
    (run / "policy.json").write_text(content, encoding="utf-8")
    code, said = outcome(lambda: export.run(reduced_recipe(files, run, "export.what=policy")), capsys)
    assert code == 2
    assert str(run / "policy.json") in said
