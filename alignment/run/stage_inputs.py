"""What a stage reads of its run and of files outside it, and whether that is still what it was made from.

A stage is out of date by the files that it reads: held-out pairs decide the figures of reward models, not their
weights. What decides figures alone is ``measured_on`` in the stage's result, the rest ``made_from``; where only the
first has changed, the stage is measured again and not made again. Stages are named by their place in the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from alignment.files import content_hash, read_object
from alignment.run.manifest import RESULT, Manifests
from alignment.run.stage_records import (
    MEASURED_ENVIRONMENT,
    WITH_PLUGINS,
    changed_settings,
    recipe_made_with,
    texts,
    within,
)
from alignment.settings.recipe import Recipe

INPUT_STAGES = {
    "base": (),
    "sft": ("base",),
    "annotate": ("sft",),
    "reward": ("sft", "annotate"),
    "rejection": ("sft", "reward"),
    "ppo": ("sft", "reward", "rejection"),
    "eval": ("sft", "annotate", "reward", "rejection", "ppo"),
}
"""Stage folder -> the stages, of the same round or before all rounds, that it reads."""
COMPARISONS, HELDOUT_COMPARISONS = "comparisons.jsonl", "heldout_comparisons.jsonl"
TRAINED_ON = {("reward", "annotate"): (COMPARISONS,)}
"""(stage, stage that it reads) -> the files that it is made from; else all but ``RECORDS``."""
MEASURED_ON = {("reward", "annotate"): (HELDOUT_COMPARISONS,)}
"""(stage, stage that it reads) -> the files that decide its figures alone."""
RECORDS = (
    "env.json",
    MEASURED_ENVIRONMENT,
    "config.yaml",
    "inputs.json",
    "not_bit_exact.json",
    "metrics.jsonl",
    RESULT,
    f"*/{RESULT}",
)
"""Files of a stage that tell of it, and that no later stage but the evaluation is made from."""
BY_FILE = "files:"
"""Before the hash of the files of a stage that another one reads."""


def round_folders(root: Path) -> list[Path]:
    """The rounds of a run, in their order; ``round-1-backup`` and the like are the user's own."""
    found = {path.name.removeprefix("round-"): path for path in root.glob("round-*") if path.is_dir()}
    return [found[number] for number in sorted(filter(str.isdecimal, found), key=int)]


def inputs_of(stage: str) -> list[str]:
    """The stages that a stage reads: ``round-1/ppo`` reads ``sft``, ``round-1/reward`` and so on."""
    folder, _, name = stage.rpartition("/")
    own = [item if item in ("base", "sft") else f"{folder}/{item}" for item in INPUT_STAGES[name]]
    earlier = int(folder.removeprefix("round-")) - 1 if folder else 0
    return own + [f"round-{earlier}/{item}" for item in ("rejection", "ppo") if earlier]


class StageInputs:
    """What the finished stages of a run were made from and measured on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifests = Manifests(root)

    def made_from(self, stage: str) -> dict[str, str]:
        """Stage -> hash of what another one is made from, as it is now; finished stages only."""
        return {name: self._hash(name, stage) for name in inputs_of(stage) if self._finished(name)}

    def measured_on(self, stage: str, files: Sequence[Path] = ()) -> dict[str, str]:
        """Stage, or path, -> hash of what a stage's figures alone depend on, as it is now.

        Args:
            stage: that is measured.
            files: outside the run.
        """
        stages = [name for name in inputs_of(stage) if (_name(stage), _name(name)) in MEASURED_ON]
        found = {name: self._hash(name, stage, MEASURED_ON) for name in stages if self._finished(name)}
        return found | {str(path.resolve()): content_hash(path) for path in files}

    def changed_stages(self, stage: str) -> list[str]:
        """The stages that a finished one was made from, or would read now, and that are others or gone."""
        made_from = self._result(stage).get("made_from")
        if made_from is None:
            return []  # from a version that did not write it down
        now = self.made_from(stage)
        there = [name for name in now if name in made_from or not name.endswith("/annotate")]
        gone = [name for name in made_from if name not in now]
        return gone + [name for name in there if not self._is_same(name, made_from.get(name), now[name])]

    def changed_files(self, stage: str) -> list[str]:
        """The files and folders outside the run that a stage was made from, and that hold something else now."""
        figures = self._result(stage).get("measured_on", {})
        return [name for name in self._changed_files(stage) if name not in figures]

    def changed_measurements(self, stage: str) -> list[str]:
        """What a finished stage was measured on, and not made from, and what is another now."""
        before = self._result(stage).get("measured_on", {})
        now = self.measured_on(stage)
        stages = [name for name in now if before and not self._is_same(name, before.get(name), now[name])]
        return stages + [name for name in self._changed_files(stage) if name in before]

    def changed_since(self, stage: str, before: Mapping[str, str], files: Sequence[Path]) -> list[str]:
        """What a half-done stage was begun with, and what is another now.

        Args:
            stage: that is half done.
            before: stage, or file, -> hash, as ``begun_with`` gave it.
            files: those that it would be begun with now.
        """
        now = self.begun_with(stage, files)
        changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        stages, measured = self.made_from(stage), self._measured_files(stage)
        return [
            key
            for key in changed
            if key not in measured and not (key in stages and self._is_same(key, before.get(key), now[key]))
        ]

    def changed_figures_since(self, stage: str, before: Mapping[str, str], files: Sequence[Path]) -> list[str]:
        """What a half-done stage measures on, and what is another than when it was begun; arguments as above."""
        now = self.begun_with(stage, files)
        return [key for key in self._measured_files(stage) if before.get(key) != now.get(key)]

    def _measured_files(self, stage: str) -> set[str]:
        """The files of the run that decide the figures of a stage alone, by their place in it."""
        return {
            f"{name}/{file}"
            for name in self.made_from(stage)
            for file in MEASURED_ON.get((_name(stage), _name(name)), ())
        }

    def changed_settings(self, place: str, recipe: Recipe, free: Sequence[str] = ()) -> dict[str, tuple[Any, Any]]:
        """The settings in which a finished stage was made otherwise: key -> its value, the recipe's.

        A file or folder that holds what it held when the stage was made is the same wherever it lies.

        Args:
            place: of the stage in the run.
            recipe: to compare with.
            free: settings, and sections, that do not count.
        """
        folder, name = self.root / place, place.rpartition("/")[2]
        found = changed_settings(folder, name, recipe)
        found = {key: values for key, values in found.items() if not self.manifests.hold_the_same(place, *values)}
        if name in WITH_PLUGINS and self._plugins_gone(place, recipe):
            found["plugins"] = recipe_made_with(folder).get("plugins", []), recipe.plugins
        # The same path may name another file, where the command is given in another folder.
        now = {*texts(recipe.model_dump(mode="json"), name)}
        paths = {text: key for key, text in texts(recipe_made_with(folder), name) if (key, text) in now}
        elsewhere = self.manifests.leading_elsewhere(place, paths)
        found |= {key: elsewhere[text] for text, key in paths.items() if text in elsewhere}
        return {key: values for key, values in found.items() if not within(key, free)}

    def _plugins_gone(self, place: str, recipe: Recipe) -> list[str]:
        """The plugins that a finished stage was made with, and of which a recipe names none that holds the same."""
        return [
            plugin
            for plugin in recipe_made_with(self.root / place).get("plugins", [])
            if not any(
                plugin == other or self.manifests.hold_the_same(place, plugin, other) for other in recipe.plugins
            )
        ]

    def begun_with(self, stage: str, files: Sequence[Path]) -> dict[str, str]:
        """Hashes of the stages and files that a stage, ``round-1/ppo`` say, is made from."""
        return {**self.made_from(stage), **self.hashes(files)}

    def hashes(self, files: Sequence[Path]) -> dict[str, str]:
        """Path -> content hash of files and folders; those of the run by their place in it."""
        root = self.root.resolve()
        found = {path: path.resolve() for path in files}
        names = {
            path: full.relative_to(root).as_posix() if root in full.parents else str(full)
            for path, full in found.items()
        }
        return {names[path]: content_hash(path) for path in files}

    def _changed_files(self, stage: str) -> list[str]:
        if self.manifests.of(stage) is not None:
            return self.manifests.changed_inputs(stage)
        files = self._result(stage).get("files", {})
        there = {path: found for path, found in files.items() if Path(path).exists()}
        return [path for path, found in there.items() if content_hash(Path(path)) != found]

    def _finished(self, stage: str) -> bool:
        return (self.root / stage / RESULT).is_file()

    def _result(self, stage: str) -> dict[str, Any]:
        return read_object(self.root / stage / RESULT)

    def _hash(self, stage: str, reader: str, which: Mapping[tuple[str, str], Sequence[str]] = TRAINED_ON) -> str:
        """A short hash of the files of a stage that another reads; of all it made, where that is not known by file."""
        manifest = self.manifests.of(stage)
        if manifest is None or _name(reader) == "eval":
            return str(self._result(stage).get("output", ""))
        wanted = which.get((_name(reader), _name(stage)))
        files = {
            place: found
            for place, found in manifest["files"].items()
            if (place in wanted if wanted else not any(fnmatch(place, pattern) for pattern in RECORDS))
        }
        return BY_FILE + hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]

    def _is_same(self, stage: str, before: str | None, now: str) -> bool:
        """Whether a stage is what it was; earlier versions kept a hash of all that it made.

        Without its manifest it cannot be looked at by file, and is not taken for another.
        """
        if before is not None and before.startswith(BY_FILE) and not now.startswith(BY_FILE):
            return True
        return before in (now, self._result(stage).get("output", ""))


def _name(stage: str) -> str:
    """``reward`` of ``round-1/reward``."""
    return stage.rpartition("/")[2]
