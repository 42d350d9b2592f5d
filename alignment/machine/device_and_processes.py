"""The device that models run on and the memory they leave, the seed of everything, and several processes as one.

A batch is always the global batch, split by place and joined in the same order. Accelerate starts and connects the
processes; alone, nothing is connected. Each process works on every n-th row of the batch, what they found is joined,
and gradients are summed, not averaged: losses are divided by the token count of the global minibatch beforehand, so
that any number of processes takes the same step.
"""

from __future__ import annotations

import ctypes
import os
import platform
import random
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env, reduce
from torch import Tensor


def pick_device() -> torch.device:
    """The device this process works on: with several on one machine, each has its own GPU.

    ``ACCELERATE_USE_CPU=1`` keeps to the processor.
    """
    if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's ``mallopt``."""
KEEP_ALL = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let a processor-only process keep the memory of freed tensors; returns whether it does.

    glibc hands large blocks back as soon as they are freed, so every activation of every step is paged in anew, a
    million faults in a dozen updates of PPO on the toy. Keeping them saves about a tenth of an update. Linux with glibc
    only, and not where there is a GPU: a model that has moved there should not leave its size behind in main memory.
    """
    if platform.libc_ver()[0] != "glibc" or torch.cuda.is_available():
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, KEEP_ALL))


Item = TypeVar("Item")


class Processes:
    """This process and its peers."""

    def __init__(self) -> None:
        state = PartialState(cpu=pick_device().type == "cpu")
        self.count: int = state.num_processes
        self.rank: int = state.process_index

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, n_rows: int) -> list[int]:
        """Places of this process in a batch of ``n_rows``: every n-th one, so that sorted batches split evenly."""
        return list(range(self.rank, n_rows, self.count))

    def join_rows(self, own: Tensor, n_rows: int) -> Tensor:
        """Rows of all processes' tensors in the order of the global batch; equal shapes except for the first axis."""
        if self.count == 1:
            return own
        found: list[Tensor] = gather_object([own.cpu()])
        places = torch.tensor([place for rank in range(self.count) for place in range(rank, n_rows, self.count)])
        return torch.cat(found)[places.argsort()].to(own.device)

    def sum(self, figures: dict[str, float]) -> dict[str, float]:
        """Sums over all processes, key by key."""
        if self.count == 1:
            return figures
        total = reduce(torch.tensor(list(figures.values()), dtype=torch.float64, device=PartialState().device), "sum")
        return dict(zip(figures, total.tolist(), strict=True))

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients over all processes; one without rows of a minibatch adds zeros."""
        if self.count == 1:
            return
        trained = list(parameters)
        # A weight that no process has a gradient for, such as an unused output layer, is to keep none.
        used = self.sum({str(place): float(p.grad is not None) for place, p in enumerate(trained)})
        wanted = [p for p, count in zip(trained, used.values(), strict=True) if count]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in wanted]
        flat = torch.cat([gradient.flatten().float() for gradient in gradients])
        parts: Any = reduce(flat, "sum").split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(wanted, parts, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def from_main(self, item: Item) -> Item:
        """The main process's item, in all processes."""
        if self.count == 1:
            return item
        found: list[Item] = gather_object([item])
        return found[0]

    def wait(self) -> None:
        """Go on when all processes have come here."""
        PartialState().wait_for_everyone()


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def forget_peak_memory() -> None:
    """From here on, the peaks below are of what comes; but on Linux, that of the processor's memory stays as it is."""
    with suppress(OSError):
        CLEAR.write_text("5", encoding="ascii")  # see proc_pid_clear_refs(5)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_memory_gib() -> float | None:
    """Most memory of the GPU that tensors took since ``forget_peak_memory``, in GiB; ``None`` without a GPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None


CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def peak_memory_gib() -> float:
    """Largest resident set of this process since ``forget_peak_memory``, or so far, in GiB."""
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return int(found[1]) / 2**20
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**30
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
