"""kill -9 at ten random instants of a toy PPO run, which is started again each time. Slow: every start is a process.

make test-slow ARGS="tests/stages/test_kill_nine.py -s"
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from child_process import ChildProcess
from stage_fixtures import reduced_data, reduced_recipe

from alignment.machine.checkpoint import checkpoints
from alignment.run.stage_records import CHECKPOINTS
from stages.annotate import collect as annotate
from stages.base import write_base_model as base
from stages.reward import train_reward_models
from stages.sft import finetune

pytestmark = pytest.mark.slow

KILLS = 10
UPDATES = 400
LIMIT_SECONDS = 1800.0
SETTINGS = (
    "ppo.method=ppo",
    f"ppo.updates={UPDATES}",
    "ppo.save_steps=5",
    "ppo.snapshot_every_updates=50",
    "ppo.kl_control=adaptive",
    "ppo.keep=best",
)


def start(config: Path, run: Path) -> ChildProcess:
    command = [sys.executable, "-m", "stages.ppo", "--config", str(config), f"run_dir={run}"]
    return ChildProcess(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, limit_seconds=LIMIT_SECONDS)


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = (run / "round-1" / "ppo" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "time/seconds"} for line in lines]


def kill_at_random(process: ChildProcess, file: Path, chance: random.Random) -> bool:
    """Kill it after a random number of further updates and a random part of some seconds; returns whether it still ran.

    By progress rather than by the clock, so that it is killed as often on a machine whose speed changes.
    """

    def updates() -> int:
        return file.read_bytes().count(b"\n") if file.exists() else 0

    # In three cases of ten it is killed while it loads or makes its first updates; else within or between later ones.
    further = 0 if chance.random() < 0.3 else chance.randrange(1, UPDATES // (2 * KILLS))
    wanted, delay = updates() + further, chance.uniform(0, 0.5 if further else 12)
    while updates() < wanted:
        if process_ended(process, 0.02):
            return False
    if process_ended(process, delay):
        return False
    process.end()
    return True


def process_ended(process: ChildProcess, within_seconds: float) -> bool:
    try:
        process.wait(timeout=within_seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_ten_kills_leave_no_trace(tmp_path: Path) -> None:
    files, rewarded = reduced_data(tmp_path), tmp_path / "rewarded"
    recipe = reduced_recipe(files, rewarded, *SETTINGS)
    for stage in (base, finetune, annotate, train_reward_models):
        stage.run(recipe)
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    runs = {name: tmp_path / name for name in ("uninterrupted", "killed")}
    for run in runs.values():
        shutil.copytree(rewarded, run)
    assert start(config, runs["uninterrupted"]).wait() == 0

    chance = random.Random(os.environ.get("KILL_SEED", "0"))
    folder = runs["killed"] / "round-1" / "ppo" / CHECKPOINTS
    reached = []
    while len(reached) < KILLS:
        process = start(config, runs["killed"])
        if not kill_at_random(process, folder.parent / "metrics.jsonl", chance):
            break
        saved = checkpoints(folder)
        reached.append(int(saved[-1].name.removeprefix("step-")) if saved else 0)
    print(f"killed {len(reached)} times, after the checkpoints of updates {reached}")
    assert len(reached) == KILLS, "the run ended before it was killed so often: raise ppo.updates"
    assert start(config, runs["killed"]).wait() == 0
    assert metrics(runs["killed"]) == metrics(runs["uninterrupted"])
    for name in ("adapter_model.safetensors", "heldout_samples.jsonl"):
        own, other = (run / "round-1" / "ppo" / name for run in runs.values())
        assert own.read_bytes() == other.read_bytes()
