"""Checkpoints inside a stage: whole or not there, the last few kept, tensors as safetensors and all else as JSON.

A state is a tree of dicts and lists with numbers, strings and tensors as its leaves, such as ``state_dict`` of a torch
optimiser gives. No pickle: a checkpoint can be shared, and loading one runs no code. Accelerate's ``save_state`` is not
used, since it stores the frozen base in every checkpoint, breaks on a 4-bit one, and pickles.

The state of torch's generators, which every checkpoint needs, is taken and put back here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignment.errors import UserError
from alignment.files import flush

FORMAT_VERSION = 2
TENSOR = "__tensor__"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int) -> Path:
    """Write ``folder/step-000040`` atomically, then remove all but the newest ``keep``.

    Everything is on disk before the folder gets its name, so a checkpoint that has a name is whole.

    Args:
        folder: where the checkpoints of a stage are.
        step: training steps done so far; the checkpoint is named after it.
        state: tree of dicts and lists with numbers, strings and tensors of any shape as its leaves.
        keep: checkpoints that stay, this one included; at least 1.

    Returns:
        The folder of the new checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{step:06d}"
    temporary = folder / f".{target.name}.tmp"
    for leftover in (temporary, target):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    tensors: dict[str, Tensor] = {}
    tree = _without_tensors(state, tensors, "")
    save_file(tensors, str(temporary / "state.safetensors"))
    text = json.dumps({"format_version": FORMAT_VERSION, "step": step, "state": tree}, indent=1)
    (temporary / "checkpoint.json").write_text(text + "\n", encoding="utf-8")
    for file in (*temporary.iterdir(), temporary):
        flush(file)
    os.replace(temporary, target)
    flush(folder)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def latest_step(folder: Path) -> int:
    """The step of the newest whole checkpoint; 0 where there is none."""
    found = checkpoints(folder)
    return int(found[-1].name.removeprefix("step-")) if found else 0


def load_checkpoint(path: Path) -> tuple[int, dict[str, Any]]:
    """Step and state of a checkpoint; tensors on the CPU.

    Raises:
        UserError: it is damaged, or of another format version.
    """
    try:
        content = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
        tensors = load_file(str(path / "state.safetensors"))
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: damaged checkpoint ({error}). Delete it; the one before it is used then.") from error
    if content.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: checkpoint format {content.get('format_version')}, this Tandem reads {FORMAT_VERSION}. "
            "Finish the run with the version that wrote it, or pass overwrite=true to start the stage again."
        )
    return int(content["step"]), _with_tensors(content["state"], tensors)


def _without_tensors(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """The tree with each tensor replaced by its name; the tensors are collected under these names."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().contiguous().cpu().clone()  # clones: safetensors refuses shared memory
        return {TENSOR: path}
    if isinstance(value, dict):
        # JSON turns whole numbers as keys (an optimiser's parameters) into strings; pairs keep them.
        return {"dict": [[key, _without_tensors(item, tensors, f"{path}/{key}")] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_without_tensors(item, tensors, f"{path}/{place}") for place, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{path}: a checkpoint cannot hold a {type(value).__name__}")


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if TENSOR in value:
            return tensors[value[TENSOR]]
        return {key: _with_tensors(item, tensors) for key, item in value["dict"]}
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    return value


def rng_state() -> dict[str, Tensor]:
    """Torch's generators, from which dropout draws."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Tensor]) -> None:
    """Put torch's generators back."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
