"""Two processes with 64 episodes each do what one with 128 does; memory of freed tensors is kept."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import child_process
import pytest
import torch
from torch import nn

from alignment.machine.device_and_processes import Processes, peak_gpu_memory_gib

SCRIPT = Path(__file__).parents[2] / "support" / "ppo_in_processes.py"
TOLERANCE = 1e-4


def run(model: Path, output: Path, count: int, *options: str) -> list[Any]:
    """What each of ``count`` processes wrote down."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    child_process.run(
        [sys.executable, *launcher, str(SCRIPT), str(model), str(output), *options],
        env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
        check=True,
    )
    return [json.loads((output / f"rank-{rank}.json").read_text()) for rank in range(count)]


@pytest.fixture(scope="module")
def found(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Any]]:
    """Number of processes -> what each of them wrote down."""
    return {count: run(tiny_folder("llama"), tmp_path_factory.mktemp("run"), count) for count in (1, 2)}


@pytest.mark.integration
def test_there_really_are_two(found: dict[int, list[Any]]) -> None:
    assert [result["processes"] for result in found[1]] == [1]
    assert [result["processes"] for result in found[2]] == [2, 2]
    assert [result["own_episodes"] for result in found[2]] == [64, 64]


@pytest.mark.integration
def test_both_processes_see_the_same_batch(found: dict[int, list[Any]]) -> None:
    first, second = found[2]
    assert first["updates"] == second["updates"]


@pytest.mark.integration
@pytest.mark.parametrize("update", [0, 1, 2])
def test_same_texts_losses_kl_and_advantages(found: dict[int, list[Any]], update: int) -> None:
    alone, together = (found[count][0]["updates"][update] for count in (1, 2))
    assert together["texts"] == alone["texts"]
    assert len({tuple(text) for text in alone["texts"]}) > 64, "the samples differ, so equal ones mean something"
    for key, value in alone["metrics"].items():
        # Of 128 episodes' tokens, one on the edge of the clip range may fall to either side.
        tolerance = 5e-3 if key.endswith("clip_fraction") else TOLERANCE
        assert together["metrics"][key] == pytest.approx(value, abs=tolerance), key
    for key in ("advantages", "kl"):
        torch.testing.assert_close(torch.tensor(together[key]), torch.tensor(alone[key]), atol=TOLERANCE, rtol=0)
    if update:
        assert torch.tensor(alone["kl"]).abs().max() > 0.01, "the policy has moved"


@pytest.mark.integration
def test_two_processes_go_on_from_a_checkpoint_as_if_they_had_not_stopped(
    found: dict[int, list[Any]], tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    stopped = run(tiny_folder("llama"), tmp_path, 2, "stopped")
    assert (tmp_path / "checkpoints").is_dir()
    assert [result["updates"] for result in stopped] == [result["updates"] for result in found[2]]


class TestAlone:
    def test_a_share_is_everything(self) -> None:
        processes = Processes()
        assert (processes.count, processes.rank, processes.is_main) == (1, 0, True)
        assert processes.share(3) == [0, 1, 2]
        assert processes.join_rows(torch.tensor([[5, 6], [7, 8]]), 2).tolist() == [[5, 6], [7, 8]]
        assert processes.sum({"x": 2.0}) == {"x": 2.0}
        assert processes.from_main("x") == "x"

    def test_gradients_stay(self) -> None:
        parameter = nn.Parameter(torch.ones(2))
        parameter.grad = torch.tensor([1.0, 2.0])
        Processes().sum_gradients([parameter])
        assert parameter.grad.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_cover_the_batch_once_and_are_joined_in_order(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from alignment.machine import device_and_processes

    batch = torch.arange(21).reshape(7, 3)
    shares = []
    for rank in range(count):
        processes = Processes()
        processes.count, processes.rank = count, rank
        shares.append(processes.share(7))
    assert sorted(place for share in shares for place in share) == list(range(7))
    for rows in (batch, batch[:, 0], batch > 9):  # tokens, lengths, flags
        monkeypatch.setattr(
            device_and_processes, "gather_object", lambda own, rows=rows: [rows[share] for share in shares]
        )
        joined = processes.join_rows(rows[shares[-1]], 7)
        assert joined.dtype == rows.dtype and joined.tolist() == rows.tolist()


def test_a_process_without_a_row_of_the_batch_joins_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from alignment.machine import device_and_processes

    processes = Processes()
    processes.count, processes.rank = 3, 2
    assert processes.share(2) == []
    found = [torch.tensor([[1, 2]]), torch.tensor([[3, 4]]), torch.empty(0, 2, dtype=torch.long)]
    monkeypatch.setattr(device_and_processes, "gather_object", lambda own: found)
    assert processes.join_rows(found[2], 2).tolist() == [[1, 2], [3, 4]]


FAULTS = """
import resource, sys, torch
from alignment.machine.device_and_processes import keep_freed_memory
sys.stdout.write(str(keep_freed_memory()) if "keep" in sys.argv else "False")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(60):
    torch.ones(16 * 2**20)
print("", resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.integration
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's allocator")
@pytest.mark.skipif(torch.cuda.is_available(), reason="left alone where there is a GPU")
def test_the_memory_of_freed_tensors_is_kept() -> None:
    """Sixty tensors of 64 MiB, one after the other, in two processes: pages are faulted in for each, or once."""

    def faults(*arguments: str) -> tuple[bool, int]:
        command = [sys.executable, "-c", FAULTS, *arguments]
        output = child_process.run(command, check=True).stdout.split()
        return output[0] == "True", int(output[1])

    kept, few = faults("keep")
    left_alone, many = faults()
    assert (kept, left_alone) == (True, False)
    assert few < many / 2


PEAKS = """
import numpy
from alignment.machine.device_and_processes import forget_peak_memory, peak_memory_gib
for mib in (0, 512, 64):
    forget_peak_memory()
    held = numpy.ones(mib * 2**17)  # float64
    print(peak_memory_gib())
    del held
"""


@pytest.mark.integration
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak can be forgotten on Linux only")
def test_the_peak_of_memory_is_that_of_the_work_since_it_was_forgotten() -> None:
    done = child_process.run([sys.executable, "-c", PEAKS], check=True)
    nothing, much, little = map(float, done.stdout.split())
    assert much - nothing == pytest.approx(0.5, abs=0.05)
    assert little - nothing < 0.2, "what was needed earlier is forgotten"


def test_without_a_gpu_nothing_is_known_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peak_gpu_memory_gib() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    assert peak_gpu_memory_gib() == 3.0
