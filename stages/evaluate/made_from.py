"""What a run was made from and what it took: recipe, data of each stage, files beside the page, time and memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, get_args

from alignment.data.records import Dimension
from alignment.files import read_object, resolve
from alignment.machine.device_and_processes import peak_gpu_memory_gib, peak_memory_gib
from alignment.run.manifest import RESULT
from alignment.run.run_folder import RunFolder
from alignment.run.run_recipe import NOT_OF_THE_RUN, RUN_RECIPE
from alignment.run.stage_records import recipe_made_with
from alignment.settings.read_recipe import value_at
from alignment.settings.recipe import Recipe

TOP_STAGES = ("base", "sft")
ROUND_STAGES = ("annotate", "reward", "rejection", "ppo")
PAID = ("rejection", "ppo")
"""Stages whose policies reward models pay."""
USED = {
    "documents": "documents",
    "demonstrations": "demonstrations",
    "comparisons": "comparisons to train on",
    "heldout_comparisons": "held-out comparisons",
    "prompts": "prompts",
    "winners": "winners",
}
"""Key of a stage's result -> what it counts."""
FILES = (
    (RUN_RECIPE, "recipe, with every setting"),
    ("{round}/eval/answers.jsonl", "every answer, with all that was measured on it"),
    ("{round}/ppo/heldout_samples.jsonl", "answers of the snapshots"),
    ("{round}/rejection/winners.jsonl", "winners of rejection sampling"),
    ("{round}/annotate/comparisons.jsonl", "comparisons that the run collected"),
    ("reward-evaluation/reward_models.html", "page of the reward models"),
)
"""Place in the run -> what lies there."""


def recipe_block(recipe: Recipe) -> dict[str, Any]:
    """The file that a recipe was made from, and the settings that were given on command lines."""
    values, origin = recipe.model_dump(mode="json"), recipe.origin
    given = [key for key in origin.given if key not in NOT_OF_THE_RUN]
    return {
        "name": origin.recipe and _name(origin.recipe),
        "sha256": origin.sha256,
        "typed": {key: _shown(value_at(values, key)) for key in given},
    }


def data_blocks(folder: RunFolder, rounds: int, evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each finished stage used and left out, in the order of the stages.

    Args:
        folder: the run.
        rounds: the last round.
        evaluation: ``files``, ``used`` and ``left_out`` of the evaluation that is under way.
    """
    found = []
    for name, number in _places(rounds):
        if folder.finished(name, number):
            result, place = folder.result(name, number), folder.place(name, number)
            found += [
                {"stage": f"{place}{part}", "files": files_block(result.get("files", {})), **counts}
                for part, counts in _counts(result).items()
            ]
    return [*found, {"stage": folder.place("eval", rounds), **evaluation}]


def files_block(files: Mapping[str, str]) -> list[dict[str, str]]:
    """Names and content hashes of files and folders outside the run."""
    return [{"name": _name(path), "hash": found} for path, found in files.items()]


def paid_by(folder: RunFolder, round_number: int) -> dict[str, dict[str, list[str]]]:
    """Policy of a round -> dimension -> the reward models that paid it.

    The run's own are named by their place in it, others as they were given, without the way to a folder.

    Raises:
        UserError: the recipe of a policy cannot be read.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name in PAID:
        if folder.finished(name, round_number):
            values = recipe_made_with(folder.stage(name, round_number))
            own = folder.place("reward", round_number)
            found[name] = {
                dimension: [f"{own}/{dimension}"] if given is None else [_reward_model(item, folder) for item in given]
                for dimension in get_args(Dimension)
                for given in [value_at(values, f"ppo.reward_models.{dimension}")]
            }
    return found


def _reward_model(name: str, folder: RunFolder) -> str:
    """A reward model as it was given; one in a run by its place there, of another path from the root its last part."""
    root, place = folder.root.resolve(), resolve(name).resolve()
    if place.is_relative_to(root):
        return place.relative_to(root).as_posix()
    *_, run, number, stage, model = ("", "", "", "", *PurePath(name).parts)
    in_a_run = PurePath(name).is_absolute() and number.startswith("round-") and stage == "reward"
    return f"{run}/{number}/{stage}/{model}" if in_a_run else _name(name)


def links(folder: RunFolder, round_number: int) -> list[dict[str, str]]:
    """The files of the run that a reader of the report may want, as far as they are there."""
    answers = FILES[1][0]  # which are written by now, but in a folder that has yet to take its place
    places = [(place, place.format(round=f"round-{round_number}"), title) for place, title in FILES]
    return [
        {"title": title, "path": path}
        for place, path, title in places
        if place == answers or (folder.root / path).is_file()
    ]


def _places(rounds: int) -> list[tuple[str, int | None]]:
    """Stage and round of all stages before the last evaluation."""
    tops: list[tuple[str, int | None]] = [(name, None) for name in TOP_STAGES]
    return tops + [(name, number) for number in range(1, rounds + 1) for name in ROUND_STAGES]


def _counts(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Part of a stage (a reward model, or all of it) -> what it used and left out."""
    if "models" in result:
        return {f" ({name})": _of_reward_model(model) for name, model in result["models"].items()}
    used = {label: result[key] for key, label in USED.items() if isinstance(result.get(key), int)}
    if "selection" in result:
        used["selection prompts"] = result["selection"]["prompts"]
    return {"": {"used": used, "left_out": result.get("left_out", {})}}


def _of_reward_model(model: Mapping[str, Any]) -> dict[str, Any]:
    used = {"comparisons to train on": model["n_train"]}
    if measured := model["accuracy"]["all"]:
        used["held-out comparisons"] = measured["n"]
    return {"used": used, "left_out": model.get("left_out", {})}


def _name(path: str) -> str:
    """A path as it was given; of one from the root its last part, as the rest says nothing to other people."""
    return PurePath(path).name if PurePath(path).is_absolute() else path


def _shown(value: Any) -> str:
    """A setting as it stands on a command line."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return _name(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def timings(folder: RunFolder, rounds: int, evaluate_seconds: float) -> dict[str, float | None]:
    """Seconds of each stage, summed over rounds."""
    spent: dict[str, float | None] = {
        name: _seconds(folder, name, None) if folder.finished(name) else None for name in TOP_STAGES
    }
    for name in ROUND_STAGES:
        seconds = [_seconds(folder, name, n) for n in range(1, rounds + 1) if folder.finished(name, n)]
        spent[name] = sum(seconds) if seconds else None
    earlier = [_seconds(folder, "eval", n) for n in range(1, rounds) if folder.finished("eval", n)]
    spent["evaluate"] = round(sum(earlier) + evaluate_seconds, 2)
    return {**spent, "total": round(sum(value for value in spent.values() if value is not None), 2)}


def memory(folder: RunFolder, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """The most memory of each stage in any round, GiB: the processor's and the GPU's, where they are known."""
    finished = [place for place in _places(rounds) if folder.finished(*place)]
    results = [(name, folder.result(name, number)) for name, number in finished]
    results.append(("evaluate", {"peak_memory_gib": peak_memory_gib(), "peak_gpu_memory_gib": peak_gpu_memory_gib()}))
    found: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for name, result in results:
        for kind, key in zip(found, ("peak_memory_gib", "peak_gpu_memory_gib"), strict=True):
            if (value := result.get(key)) is not None:
                kind[name] = round(max(kind.get(name, 0.0), value), 2)
    return found


def _seconds(folder: RunFolder, name: str, round_number: int | None) -> float:
    return float(read_object(folder.stage(name, round_number) / RESULT, "seconds")["seconds"])
