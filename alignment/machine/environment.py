"""What a result depends on besides code and data: versions, commit, processor; and the memory that it took."""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("tandem-rlhf", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes")


def environment(seed: int) -> dict[str, Any]:
    """What a result depends on besides code and data: versions, commit, seed, processor."""
    import torch  # here: peak memory is asked for without it

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": _commit(),
        "device": device,
        "threads": torch.get_num_threads(),
        "seed": seed,
    }


def _commit() -> str | None:
    """The commit of the checkout that this code runs from; ``None`` without git or from an installed wheel."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        git = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return git.stdout.strip() or None


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's ``mallopt``."""
KEEP_ALL = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let a processor-only process keep the memory of freed tensors; returns whether it does.

    glibc hands large blocks back as soon as they are freed, so every activation of every step is paged in anew, a
    million faults in a dozen updates of PPO on the toy. Keeping them saves about a tenth of an update. Linux with glibc
    only, and not where there is a GPU: a model that has moved there should not leave its size behind in main memory.
    """
    import torch  # here, as above

    if platform.libc_ver()[0] != "glibc" or torch.cuda.is_available():
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, KEEP_ALL))


def peak_memory_gib() -> float:
    """Largest resident set of this process so far, in GiB."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 2**30
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
