"""Every stage on a GPU: it works there, says how much memory it took, and PPO starts at ratio one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stage_fixtures import reduced_recipe

from alignment.files import read_json
from alignment.run.stage_records import read_metrics
from stages.pipeline import run_stages

pytestmark = [pytest.mark.gpu, pytest.mark.integration]

STAGES = ("base", "sft", "round-1/annotate", "round-1/reward", "round-1/rejection", "round-1/ppo", "round-1/eval")


@pytest.fixture(scope="module")
def run(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole reduced run."""
    assert torch.cuda.is_available(), "these tests are for machines with a GPU: leave out -m gpu"
    folder = tmp_path_factory.mktemp("gpu") / "run"
    run_stages.run(reduced_recipe(files, folder))
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_it_works_there(stage: str, run: Path) -> None:
    assert read_json(run / stage / "result.json")["peak_gpu_memory_gib"] > 0
    assert torch.cuda.get_device_name() in read_json(run / stage / "env.json")["device"]


def test_ppo_starts_at_ratio_one(run: Path) -> None:
    first = read_metrics(run / "round-1" / "ppo" / "metrics.jsonl")[0]
    assert first["policy/first_ratio_mean"] == pytest.approx(1, abs=1e-4)


def test_the_report_has_gpu_memory_of_every_stage(run: Path) -> None:
    memory = read_json(run / "report.json")["gpu_memory_gib"]
    assert {Path(stage).name for stage in STAGES} - {"eval"} <= set(memory) and min(memory.values()) > 0
