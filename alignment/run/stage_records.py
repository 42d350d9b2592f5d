"""A stage at work (its folder and log of metrics), and what is on record of it.

On record: the settings and earlier stages that decide its result, versions, commit, processor; and reading metrics
back.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alignment.data.jsonl_and_raw_rows import iter_json_lines, write_jsonl
from alignment.errors import UserError
from alignment.files import resolve
from alignment.run.look import Look
from alignment.settings.read_recipe import default_of, value_at
from alignment.settings.recipe import Recipe
from alignment.settings.sections import HELDOUT, TOY_MODEL

CHECKPOINTS = "checkpoints"
"""Of a stage, inside its folder."""
MEASURED_ENVIRONMENT = "measured_env.json"
"""In a stage's folder, what it was measured again with; ``env.json`` is what it was made with."""


@dataclass
class StageRun:
    """A stage at work: its folder, its metrics, its checkpoints and how long it has run."""

    name: str
    folder: Path
    started: float = field(default_factory=time.monotonic)
    before: Mapping[str, Any] = field(default_factory=dict)
    """The result that it has already, where it is only measured again."""
    begun_with: Look = field(default_factory=Look)
    """What the files that its settings name held when the stage read them."""
    has_stale_figures: bool = False
    """Whether parts of it that are finished were measured on something else than there is now."""

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(dict(metrics)) + "\n")

    def cut_log(self, keep: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Keep the lines of ``metrics.jsonl`` up to the first that ``keep`` refuses, atomically; returns those kept.

        A line that was cut short by a kill goes too.
        """
        file = self.folder / "metrics.jsonl"
        if not file.is_file():
            return []
        kept: list[dict[str, Any]] = []
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if not keep(row):
                break
            kept.append(row)
        write_jsonl(file, kept)
        return kept

    def remove_checkpoints(self) -> None:
        """Once the stage is finished, nothing goes on from them."""
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the stage started."""
        return time.monotonic() - self.started


def read_metrics(file: Path, *keys: str) -> list[dict[str, float]]:
    """The rows of a ``metrics.jsonl``.

    Args:
        file: its path.
        keys: metrics that every row must have.

    Raises:
        UserError: there is no such file, or a line is not a JSON object or lacks a key; names file and line.
    """
    rows: list[dict[str, float]] = []
    for number, line in iter_json_lines(file):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{file}, line {number}: not JSON ({error}). Remove the line.") from error
        if not isinstance(row, dict):
            raise UserError(f"{file}, line {number}: not a JSON object. Remove the line.")
        if absent := [key for key in keys if key not in row]:
            raise UserError(f"{file}, line {number}: without {', '.join(absent)}. Remove the line, or put it back.")
        rows.append({key: value for key, value in row.items() if isinstance(value, int | float)})
    return rows


BEFORE_IT_WAS: dict[str, Any] = {"data.selection_prompts": HELDOUT}
"""Setting that runs of an earlier version do not have -> the value that means what they did; else its default does."""
PROMPTS = ("data.prompts", "data.selection_prompts", "data.selection_share", "data.on_error", "data.too_long")
"""Settings that decide which prompts are trained on, and which select a checkpoint."""
MODEL = ("model.name_or_path", "model.dtype", "model.quantization", "model.trust_remote_code", "model.lora")
"""Settings of the model that decide what is trained; ``model.sampling_copy`` decides what is drawn, too."""
SECTIONS = {
    "base": ("model.name_or_path", "model.dtype", "base", "data.on_error"),
    "sft": (*MODEL, "sft", "data.on_error", "data.too_long"),
    "annotate": ("model", *PROMPTS, "data.heldout_prompts", "annotate", "reward.heldout_share"),
    "reward": (*MODEL, "reward", "data.on_error", "data.too_long"),
    "rejection": (
        "model",
        *PROMPTS,
        "rejection",
        "ppo.gate",
        "ppo.safety_threshold",
        "ppo.reward_models",
        "sft.data",
        "sft.format",
        "sft.max_length_tokens",
        "sft.packing",
        "sft.weight_decay",
    ),
    "ppo": ("model", *PROMPTS, "ppo", "evaluate.sampling.temperature"),
    "eval": ("model", "data.heldout_prompts", "data.on_error", "data.too_long", "evaluate"),
}
"""Stage folder -> the recipe's sections and settings that decide what the stage makes."""
WITH_PLUGINS = ("reward", "rejection", "ppo")
"""Stages whose heads, losses and gates may be a plugin's."""
OF_FOLDERS = ("model.name_or_path", "ppo.reward_models")
"""Settings that name folders; other words may happen to be a folder's name."""
READ_LATER = ("annotate.ui_settings",)
"""Settings that name a file which may be edited while its stage runs: the app reads it again whenever it starts."""
FROM_A_DATASET = ("annotate", "reward.heldout_share", "data.on_error", "data.heldout_prompts")
"""The same of annotation that takes comparisons from a file: no prompt is answered."""


ROUNDING = (
    "sft.micro_batch_size_dialogues",
    "reward.helpfulness.micro_batch_size_pairs",
    "reward.safety.micro_batch_size_pairs",
    "rejection.micro_batch_size_dialogues",
    "ppo.micro_batch_size_episodes",
)
"""Settings that change a stage's numbers by rounding alone: they may be lowered where memory does not suffice."""
WITHOUT_EFFECT = (
    *ROUNDING,
    "annotate.ui_port",
    "data.unused",
    "ppo.method",
    "ppo.save_steps",
    "ppo.save_total_limit",
    "reward.evaluation",
    "reward.helpfulness.save_steps",
    "reward.safety.save_steps",
)
"""Settings, and sections, within these sections that leave what a finished stage made as it is."""
FREE_IN_EVALUATION = ("data.heldout_prompts", "data.on_error", "data.too_long")
"""Settings that an evaluation may have otherwise than the stages that it measures."""
EACH_FOR_ITSELF = ("seed", "model.dtype", "model.quantization", "model.sampling_copy", "model.lora")
"""Settings that a stage may have otherwise than the stages that it goes on from: several seeds of PPO, say."""
SAME_ONCE_MADE = {("data.on_error", "raise", "skip"), ("data.too_long", "raise", "skip")}
"""(key, value, other value): what was made with the one would have been the same with the other."""


def differing_keys(before: Any, now: Any, prefix: str = "") -> list[str]:
    """Dotted keys in which two nested mappings differ."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [prefix]
    keys: list[str] = []
    for key in sorted(before.keys() | now.keys()):
        keys += differing_keys(before.get(key), now.get(key), f"{prefix}.{key}" if prefix else key)
    return keys


def recipe_made_with(folder: Path) -> dict[str, Any]:
    """The settings that a stage, finished or half done, was made with, as it wrote them down.

    Raises:
        UserError: they are not there, or are none.
    """
    file = folder / "config.yaml"
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"{file}, which says how its stage was made, cannot be read: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{file} does not hold the settings that its stage was made with")
    return values


def changed_rounding(folder: Path, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """The settings of a half-done stage that differ from a recipe's by rounding alone: key -> its value, the other."""
    before, now = recipe_made_with(folder), recipe.model_dump(mode="json")
    found = {key: (_value_then(before, key), value_at(now, key)) for key in ROUNDING}
    return {key: values for key, values in found.items() if values[0] != values[1]}


def sections_of(recipe: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The sections and settings that decide what a stage makes with a recipe."""
    from_a_dataset = name == "annotate" and value_at(recipe, "annotate.source") == "dataset"
    return FROM_A_DATASET if from_a_dataset else SECTIONS[name]


def changed_settings(folder: Path, name: str, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """The settings in which the recipe that a stage was made with differs from another, where they matter to the stage.

    Args:
        folder: the stage's, finished or half done.
        name: its name, as in ``SECTIONS``.
        recipe: the other recipe.

    Returns:
        Dotted key -> the stage's value, the other one.
    """
    before = recipe_made_with(folder)
    now = recipe.model_dump(mode="json")
    sections = (*sections_of(before, name), "seed")
    keys = differing_keys(
        {key: value_at(before, key) for key in sections}, {key: value_at(now, key) for key in sections}
    )
    found = {key: (_value_then(before, key), value_at(now, key)) for key in keys if not within(key, WITHOUT_EFFECT)}
    return {
        key: (then, this)
        for key, (then, this) in found.items()
        if then != this and (key, str(then), str(this)) not in SAME_ONCE_MADE
    }


def files_named(recipe: Mapping[str, Any], name: str) -> list[Path]:
    """The files, and folders of models, that are named by the settings which decide what a stage makes.

    Arguments as of ``texts``.
    """
    return _there(texts(recipe, name))


def files_to_read(recipe: Mapping[str, Any], name: str) -> list[Path]:
    """Those of them that a stage reads before it begins, and not while it runs.

    Arguments as of ``texts``.
    """
    return _there((key, text) for key, text in texts(recipe, name) if key not in READ_LATER)


def _there(named: Iterable[tuple[str, str]]) -> list[Path]:
    """What is there, of files and folders by the settings that name them."""
    found = {resolve(text): key for key, text in named if (key, text) != ("model.name_or_path", TOY_MODEL)}
    return [path for path, key in found.items() if path.is_file() or (within(key, OF_FOLDERS) and path.is_dir())]


def texts(recipe: Mapping[str, Any], name: str) -> Iterator[tuple[str, str]]:
    """Key and text of the settings which decide what a stage makes, and are texts.

    Args:
        recipe: its values.
        name: of the stage, as in ``SECTIONS``.
    """
    for key in (*sections_of(recipe, name), *(("plugins",) if name in WITH_PLUGINS else ())):
        found = _texts(key, value_at(recipe, key))
        yield from ((key, text) for key, text in found if not within(key, WITHOUT_EFFECT))


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(f"{key}.{name}", item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(key, item)


def _value_then(before: Any, key: str) -> Any:
    """The value of a setting in a recipe that may be older than it: then, what it did without."""
    section, _, name = key.rpartition(".")
    there = value_at(before, section) if section else before
    if isinstance(there, dict) and name in there:
        return there[name]
    return BEFORE_IT_WAS.get(key, default_of(key))


def within(key: str, sections: Iterable[str]) -> bool:
    """Whether a dotted key is one of some settings, or lies in one of some sections."""
    return any(key == name or key.startswith(f"{name}.") for name in sections)


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
