"""The run folder: everything of one experiment, where each stage finds its inputs and leaves its outputs.

A stage folder counts as finished when its ``result.json`` is there; that file is written last and atomically, so a
stage killed at any moment is simply not finished. One that is made again leaves the finished one in place until it has
succeeded (``alignment.run.stage_replacement``). A finished stage is used only while its files, and what it was made
from, are what they were (``alignment.run.manifest``). ``ledger.jsonl`` gets one line per finished stage: what went in,
what came out (content hashes), how long it took. One command at a time writes to a run (``alignment.run.run_lock``).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.files import content_hash, read_json, read_object, resolve, write_json
from alignment.run.look import Look
from alignment.run.manifest import RESULT
from alignment.run.run_lock import RunLock, forget_running, note_running
from alignment.run.run_recipe import changes, command, keep_recipe
from alignment.run.stage_inputs import StageInputs, round_folders
from alignment.run.stage_records import (
    CHECKPOINTS,
    EACH_FOR_ITSELF,
    FREE_IN_EVALUATION,
    MEASURED_ENVIRONMENT,
    SECTIONS,
    StageRun,
    changed_rounding,
    changed_settings,
    environment,
    files_named,
    files_to_read,
    recipe_made_with,
    texts,
)
from alignment.run.stage_replacement import beside, copy_to_measure, put_in_place, settle
from alignment.settings.read_recipe import save_recipe
from alignment.settings.recipe import Recipe


class RunFolder:
    """Paths and book-keeping of one experiment."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.inputs = StageInputs(self.root)
        self.manifests = self.inputs.manifests
        self._looked_at: dict[str, Look] = {}
        self.outdated: list[str] = []
        """What is to be said of stages that were finished from files that have changed since they began."""

    def stage(self, name: str, round_number: int | None = None) -> Path:
        """Folder of a stage: ``sft`` at the top, ``round-1/ppo`` inside a round."""
        return self.root / name if round_number is None else self.root / f"round-{round_number}" / name

    def place(self, name: str, round_number: int | None = None) -> str:
        """By what a stage is known in records: its place in the run, such as ``round-1/ppo``."""
        return self.stage(name, round_number).relative_to(self.root).as_posix()

    def finished(self, name: str, round_number: int | None = None) -> bool:
        """Whether that stage left a result."""
        return (self.stage(name, round_number) / RESULT).is_file()

    def is_made_again(self, name: str, round_number: int | None = None) -> bool:
        """Whether that stage is finished, and was begun anew since, or is to be."""
        return self.finished(name, round_number) and beside(self.stage(name, round_number)).is_dir()

    def make_again(self, name: str, round_number: int | None = None) -> None:
        """Have a finished stage made anew from its beginning by whoever runs it next, ``overwrite`` or not."""
        if self.finished(name, round_number):
            _clear(beside(self.stage(name, round_number)))

    def result(self, name: str, round_number: int | None = None) -> dict[str, Any]:
        """The result of a finished stage."""
        return read_object(self.stage(name, round_number) / RESULT)

    def require(self, name: str, round_number: int | None = None, *, with_figures: bool = False) -> Path:
        """Folder of a finished stage that is up to date; raise ``UserError`` naming the command that makes it.

        Args:
            name: the stage's folder.
            round_number: the round, for a stage that runs once a round.
            with_figures: what it was measured on counts too.
        """
        folder = self.stage(name, round_number)
        if not self.finished(name, round_number):
            make = self.command_for(name, round_number=round_number)
            raise UserError(f"{folder} is missing or not finished. Make it first: {make}")
        self.manifests.check_unedited(self.place(name, round_number))
        if changed := self.changed_inputs(name, round_number):
            again = self.command_for(name, "overwrite=true", round_number=round_number)
            raise UserError(f"{folder} was made before the present {' and '.join(changed)}. Make it again: {again}")
        if with_figures and (stale := self.inputs.changed_measurements(self.place(name, round_number))):
            again = self.command_for(name, round_number=round_number)
            raise UserError(
                f"{folder} was measured before the present {' and '.join(stale)}. Measure it again: {again}"
            )
        return folder

    def command_for(self, name: str, *settings: str, round_number: int | None = None) -> str:
        """The command that makes a stage of this run, with the settings that the present one was given.

        Alone, a stage makes round 1; later rounds are made by the pipeline, from the beginning if need be.
        """
        if round_number is not None and round_number > 1:
            return command("pipeline", self.root, f"rounds={round_number}", *settings)
        stage = {"rejection": "ppo", "eval": "evaluate"}.get(name, name)
        method = [f"ppo.method={name}"] if stage == "ppo" else []
        return command(stage, self.root, *method, *settings)

    def changed_inputs(self, name: str, round_number: int | None = None) -> list[str]:
        """What a finished stage was made from and what is another now: stages made otherwise since; edited files.

        What decides its figures alone does not count (``has_stale_figures``), nor do comparisons collected since, for
        reward models that were trained on a file, nor data files that are no longer where they were.
        """
        stage = self.place(name, round_number)
        return self.inputs.changed_stages(stage) + self.inputs.changed_files(stage)

    def has_stale_figures(self, name: str, round_number: int | None = None) -> bool:
        """Whether a finished stage is what it would be made again, but for what it was measured on.

        It is then measured again without being asked for, and what was trained stays.
        """
        if not self.finished(name, round_number) or self.is_made_again(name, round_number):
            return False
        stale = self.inputs.changed_measurements(self.place(name, round_number))
        return bool(stale) and not self.changed_inputs(name, round_number)

    def latest_round(self, name: str) -> int | None:
        """The highest round in which that stage is finished."""
        rounds = [int(path.name.removeprefix("round-")) for path in round_folders(self.root)]
        return max((number for number in rounds if self.finished(name, number)), default=None)

    @property
    def policy(self) -> dict[str, Any]:
        """Which stage folder holds the newest policy: ``{"stage", "round", "folder"}``."""
        file = self.root / "policy.json"
        if not file.is_file():
            return {"stage": "sft", "round": None, "folder": "sft"}
        return read_object(file, "stage", "round", "folder")

    def set_policy(self, name: str, round_number: int | None = None) -> None:
        """Record that a stage made the newest policy."""
        folder = self.stage(name, round_number).relative_to(self.root).as_posix()
        write_json(self.root / "policy.json", {"stage": name, "round": round_number, "folder": folder})

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for writing, also inside a block that does.

        Raises:
            UserError: another command holds it; or, after the block, a file that a stage was made from has changed
                while it was made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"run_dir={self.root} cannot be made: {error.strerror}. Choose another run_dir.") from error
        with RunLock(self.root).held() as first:
            if first:
                settle(self.root)
            try:
                yield
            finally:
                if first:
                    forget_running(self.root)
        if self.outdated:
            said = " ".join(self.outdated)
            self.outdated.clear()
            raise UserError(said)

    def let_go(self) -> AbstractContextManager[None]:
        """A block in which other commands may write to the run that this one holds."""
        return RunLock(self.root).let_go()

    def kept(self, name: str, round_number: int | None, recipe: Recipe) -> bool:
        """Whether a stage is finished and need not run again; no stage is that is being made again.

        Raises:
            UserError: it is finished with other settings, it was made from what has changed since, or its own files
                have; names them.
        """
        if recipe.overwrite or not self.finished(name, round_number) or self.is_made_again(name, round_number):
            return False
        self.manifests.check_unedited(self.place(name, round_number))
        if inputs := self.changed_inputs(name, round_number):
            raise UserError(
                f"{self.stage(name, round_number)} was made before the present {' and '.join(inputs)}. "
                "Choose another run_dir, or pass overwrite=true to make everything again."
            )
        free = () if name == "eval" else ("evaluate",)
        self._check_same_settings(name, round_number, recipe, free)
        return not self.has_stale_figures(name, round_number)

    def _check_same_settings(
        self, name: str, round_number: int | None, recipe: Recipe, free: Sequence[str] = ("evaluate",)
    ) -> None:
        if changed := self.inputs.changed_settings(self.place(name, round_number), recipe, free):
            raise UserError(
                f"{self.stage(name, round_number)} was made with other settings: {changes(changed)}. "
                "Put them back, choose another run_dir, or pass overwrite=true to make everything again."
            )

    def check_settings(self, recipe: Recipe, making: Sequence[str]) -> None:
        """Raise ``UserError`` where a finished stage was made with other settings than a recipe has now.

        Only stages before those that are to be made are looked at: those after them are out of date then.

        Args:
            recipe: with which other stages are to be made.
            making: their places in the run.
        """
        evaluation = all(place.endswith("/eval") for place in making)
        free = (*EACH_FOR_ITSELF, "evaluate", *(FREE_IN_EVALUATION if evaluation else ()))
        for place in self._finished_before(making):
            if changed := self.inputs.changed_settings(place, recipe, free):
                again = self.command_for(place.rpartition("/")[2], "overwrite=true", round_number=_order(place)[0])
                raise UserError(
                    f"{self.root / place} was made with other settings: {changes(changed)}. To go on from it, put them "
                    f"back or leave them out. To make it with these: {again}. Or choose another run_dir."
                )

    def _of_one_command(self, recipe: Recipe, making: str) -> list[str]:
        """The settings that are meant for one stage alone, and not for the run: others than stages before it have."""
        found = [
            self.inputs.changed_settings(place, recipe, ("evaluate",)) for place in self._finished_before([making])
        ]
        return ["ppo.method", *(key for changed in found for key in changed)]

    def _finished_before(self, making: Sequence[str]) -> list[str]:
        """The finished stages before any of some others, but evaluations, and those that are being made again."""
        parents = (self.root, *round_folders(self.root))
        files = sorted(file for parent in parents for file in parent.glob(f"*/{RESULT}"))
        folders = [file.parent for file in files if file.parent.name in SECTIONS and file.parent.name != "eval"]
        places = [folder.relative_to(self.root).as_posix() for folder in folders if not beside(folder).is_dir()]
        return sorted((p for p in places if any(_order(p) < _order(made) for made in making)), key=_order)

    def check_not_finished(self, name: str, recipe: Recipe, round_number: int | None = None) -> None:
        """Raise ``UserError`` if the stage is finished, and neither to be made again nor to be measured again.

        One that is measured again keeps the settings that it was made with: others are refused.
        """
        if not self.finished(name, round_number) or recipe.overwrite or self.is_made_again(name, round_number):
            return
        if self.has_stale_figures(name, round_number):
            self._check_same_settings(name, round_number, recipe)
            return
        raise UserError(
            f"{self.stage(name, round_number)} is finished. Pass overwrite=true to run it again, "
            "or choose another run_dir."
        )

    def look(self, name: str, recipe: Recipe, *, also: Sequence[Path] = ()) -> None:
        """See what the files hold that a stage's settings name; to be called before the stage reads any.

        Args:
            name: the stage's folder.
            recipe: its settings.
            also: other files that it will read.
        """
        named = files_to_read(recipe.model_dump(mode="json"), name)
        self._looked_at[name] = self.manifests.look_at([*named, *also])

    def _seen(self, name: str, recipe: Recipe) -> Look:
        """What files held before a stage read them, and hold still.

        Raises:
            UserError: one has changed since.
        """
        if name not in self._looked_at:
            self.look(name, recipe)
        seen = self._looked_at.pop(name)
        now = self.manifests.look_at(map(Path, seen.led))
        if changed := seen.others(now):
            raise UserError(
                f"{' and '.join(changed)} changed while {name} read what it is made from. Nothing was begun: run the "
                "same command again."
            )
        return seen

    def begin_or_resume(self, name: str, recipe: Recipe, round_number: int, *, inputs: Sequence[Path]) -> StageRun:
        """Go on with a stage that was stopped after a checkpoint, else begin it.

        Args:
            name: the stage's folder.
            recipe: the settings, which have to be those that it was started with.
            round_number: the round.
            inputs: the files and folders that it is made from.

        Raises:
            UserError: it was started with other settings or inputs; names them.
        """
        folder = self._at_work(name, round_number)
        work = (*(folder / CHECKPOINTS).rglob("step-*"), *folder.glob(f"*/{RESULT}"))
        stopped = (folder / "inputs.json").is_file() and bool(work)
        if not stopped or recipe.overwrite:
            return self.begin(name, recipe, round_number, inputs=inputs)
        others, place = changed_settings(folder, name, recipe), self.place(name, round_number)
        before = read_json(folder / "inputs.json")
        changed = [*([changes(others)] if others else []), *self.inputs.changed_since(place, before, inputs)]
        if changed:
            raise UserError(
                f"{folder} was stopped half-way, and what it was started with has changed since: {', '.join(changed)}. "
                "Put that back to go on, choose another run_dir, or pass overwrite=true to start the stage again."
            )
        seen = self._seen(name, recipe)
        keep_recipe(self.root, recipe, leaving=self._of_one_command(recipe, place))
        if rounding := changed_rounding(folder, recipe):
            _note_rounding(folder, changes(rounding))
            save_recipe(recipe.model_copy(update={"overwrite": False}), folder / "config.yaml", with_origin=True)
        note_running(self.root, place)
        stage = self.stage_run(name, recipe, round_number)
        stage.begun_with = seen
        stage.has_stale_figures = bool(self.inputs.changed_figures_since(place, before, inputs))
        return stage

    def stage_run(self, name: str, recipe: Recipe, round_number: int | None = None) -> StageRun:
        """A stage that another process has begun, with this process seeded for it."""
        self.seed(name, recipe, round_number)
        return StageRun(name=self.place(name, round_number), folder=self._at_work(name, round_number))

    def _at_work(self, name: str, round_number: int | None) -> Path:
        """Where a stage is made: in its folder, or beside it where that is finished."""
        folder = self.stage(name, round_number)
        return beside(folder) if self.finished(name, round_number) else folder

    def seed(self, name: str, recipe: Recipe, round_number: int | None) -> None:
        """Seed the generators; stages apart, so that running them alone or in a chain draws the same numbers."""
        # Here, since it needs torch: a run folder can be looked into without.
        from alignment.machine.device_and_processes import seed_everything

        name_offset = int.from_bytes(hashlib.sha256(f"{name}/{round_number}".encode()).digest()[:3], "big")
        seed_everything(recipe.seed * 2**24 + name_offset)

    def begin(
        self, name: str, recipe: Recipe, round_number: int | None = None, *, inputs: Sequence[Path] | None = None
    ) -> StageRun:
        """Start a stage in a clean folder, with its resolved recipe and environment written down.

        What the stage made earlier, if it was finished, stays in place until this one is.

        Args:
            name: name of the stage.
            recipe: the settings it runs with.
            round_number: number of the round, for a stage that runs once a round.
            inputs: files and folders that a stage which can be resumed is made from; they are written down.

        Raises:
            UserError: the stage is finished and ``overwrite`` is off.
        """
        self.check_not_finished(name, recipe, round_number)
        folder, stage = self._at_work(name, round_number), self.place(name, round_number)
        seen = self._seen(name, recipe)
        _clear(folder)
        note_running(self.root, stage)
        keep_recipe(self.root, recipe, leaving=self._of_one_command(recipe, stage))
        if inputs is not None:
            write_json(folder / "inputs.json", self.inputs.begun_with(stage, inputs))
        save_recipe(recipe.model_copy(update={"overwrite": False}), folder / "config.yaml", with_origin=True)
        write_json(folder / "env.json", environment(recipe.seed))
        self.seed(name, recipe, round_number)
        return StageRun(name=stage, folder=folder, begun_with=seen)

    def begin_measuring(self, name: str, recipe: Recipe, round_number: int | None = None) -> StageRun:
        """Start to measure a finished stage again, in a copy of what it made; its time and memory stay on record."""
        before, seen = self.result(name, round_number), self._seen(name, recipe)
        folder = copy_to_measure(self.stage(name, round_number))
        write_json(folder / MEASURED_ENVIRONMENT, environment(recipe.seed))
        note_running(self.root, self.place(name, round_number))
        self.seed(name, recipe, round_number)
        place = self.place(name, round_number)
        return StageRun(name=place, folder=folder, before=before, begun_with=seen)

    def finish(
        self, stage: StageRun, result: Mapping[str, Any], *, inputs: Sequence[Path], measured_on: Sequence[Path] = ()
    ) -> dict[str, Any]:
        """Write the ledger line and, last of all, ``result.json``; returns the result.

        A stage that was made beside a finished one takes its place, and ``stage.folder`` is that place. Where a file
        that it was made from has changed since it began, it is recorded with what that held then, and the run's lock
        says so when it is let go.

        Args:
            stage: the one at work.
            result: what it has to say.
            inputs: files and folders that it was made from or measured on.
            measured_on: those of them that decide its figures alone.
        """
        # Here, for the same reason.
        from alignment.machine.device_and_processes import peak_gpu_memory_gib, peak_memory_gib

        output = content_hash(stage.folder)
        changed = stage.begun_with.others(self.manifests.look_at(inputs))
        hashes = {str(path): MEANWHILE if str(path.absolute()) in changed else content_hash(path) for path in inputs}
        inside = self.root.resolve()
        complete = {
            **result,
            **({"not_bit_exact": read_json(noted)} if (noted := stage.folder / ROUNDING_NOTES).is_file() else {}),
            "made_from": self.inputs.made_from(stage.name),
            "measured_on": self.inputs.measured_on(stage.name, measured_on),
            "files": {path: found for path, found in hashes.items() if inside not in Path(path).resolve().parents},
            "output": output,
            "seconds": round(stage.seconds, 2),
            "peak_memory_gib": round(peak_memory_gib(), 2),
            "peak_gpu_memory_gib": None if (gpu := peak_gpu_memory_gib()) is None else round(gpu, 2),
        }
        complete |= {key: value for key, value in stage.before.items() if key in OF_THE_MAKING}
        line = {
            "stage": stage.name,
            "inputs": hashes,
            "output": output,
            "seconds": round(stage.seconds, 2),
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        with (self.root / "ledger.jsonl").open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps(line) + "\n")
        made_with, name = recipe_made_with(stage.folder), stage.name.rpartition("/")[2]
        named = [path for path in files_named(made_with, name) if path.is_file()]
        led = {text: resolve(text) for _, text in texts(made_with, name) if not Path(text).is_absolute()}
        paths = {text: str(path.resolve()) for text, path in led.items() if path.exists()}
        outside = [Path(path) for path in complete["files"]]
        self.manifests.write(
            stage.folder, complete, inputs=outside, named=named, paths=paths, begun_with=stage.begun_with
        )
        place = self.root / stage.name
        if stage.folder != place:
            put_in_place(place, stage.folder)
            stage.folder = place
        forget_running(self.root)
        if changed:
            again = self.command_for(place.name, "overwrite=true", round_number=_order(stage.name)[0] or None)
            self.outdated.append(
                f"{place} is finished, but {' and '.join(changed)} changed while it was made. Put back what "
                f"it was made from, or make it again: {again}"
            )
        return complete


MEANWHILE = "changed while it was read"
"""In place of a hash: what was read is no longer there."""


def _order(place: str) -> tuple[int, int]:
    """Where a stage stands among all: by its round, then in the order in which a round's stages are made."""
    folder, _, name = place.rpartition("/")
    return int(folder.removeprefix("round-") or 0), list(SECTIONS).index(name)


OF_THE_MAKING = ("seconds", "peak_memory_gib", "peak_gpu_memory_gib")
"""Of a result: what measuring again leaves as it was."""
ROUNDING_NOTES = "not_bit_exact.json"
"""In a stage's folder: where it went on with settings that round otherwise."""


def _note_rounding(folder: Path, changed: str) -> None:
    """Write down that a stage goes on from its checkpoints with settings that round otherwise."""
    file = folder / ROUNDING_NOTES
    steps = sorted(step for step in (folder / CHECKPOINTS).rglob("step-*") if step.name.rpartition("-")[2].isdecimal())
    after = {step.parent.relative_to(folder).as_posix(): step.name.removeprefix("step-") for step in steps}
    notes = read_json(file) if file.is_file() else []
    note = {"changed": changed, "last_step_before": {place: int(step) for place, step in after.items()}}
    write_json(file, [*notes, note])


def _clear(folder: Path) -> None:
    """Make an empty folder, whatever was there."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
