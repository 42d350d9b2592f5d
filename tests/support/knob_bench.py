"""What a knob test is made of: a setting, two values, what is seen of a run, and the law that it follows.

Many knobs share two runs of one stage, each through the stage's own door: in the first all have their first value, in
the second their second. A law says what must be seen by the value alone, so that one run can show many knobs at once.

A knob test proves that it can fail by a run in which the setting has its default behind the door
(``Workshop.turned`` with ``default``): whoever read the default, and not what was given, would see that.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf
from pydantic.fields import FieldInfo
from stage_fixtures import PROMPT_FILES, REDUCED

from alignment.settings.read_recipe import load_recipe, value_at
from alignment.settings.recipe import Recipe
from stages.door import command_line

FIRST, SECOND = 0, 1
"""The two runs of a bench."""
TOLERANCE = 1e-5
"""Relative, of numbers that a law gives."""
Keep = Callable[[tuple[Any, ...], dict[str, Any], Any], Any]
"""What is kept of a call: of its arguments by place, those by name, and what it returned."""


class Refused(AssertionError):
    """The stage did not run with the settings that it was given."""


@dataclass
class Turned:
    """A stage that was run through its door."""

    recipe: Recipe
    """As it was given at the door."""
    root: Path
    """The folder in which the run lies, and nothing else of a run."""
    code: int
    """With which the stage ended."""
    files: Mapping[str, str]
    """Inputs by name."""
    kept: dict[str, list[Any]] = field(default_factory=dict)
    """What was kept of the calls that were watched, by the name of the function."""

    @property
    def run(self) -> Path:
        """The run folder, wherever the stage put it."""
        [found] = [path for path in self.root.iterdir() if path.is_dir()]
        return found

    def given(self, key: str) -> Any:
        """The value of a setting as it was given."""
        return value_at(self.recipe.model_dump(mode="json"), key)

    def result(self, place: str) -> dict[str, Any]:
        """What a stage said at its end."""
        found: dict[str, Any] = json.loads((self.run / place / "result.json").read_text(encoding="utf-8"))
        return found

    def rows(self, place: str) -> list[dict[str, Any]]:
        """The objects of a file of JSON Lines."""
        return rows_of(self.run / place)


def rows_of(file: str | Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON Lines; an answer may hold other line separators, which end no row."""
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").split("\n") if line]


class Watch(NamedTuple):
    """A function whose calls are noted, where the files of a run do not show what it did."""

    place: Any
    """Module or class."""
    name: str
    keep: Keep
    known_as: str = ""
    """What was kept is under this name; default: that of the function."""


class Stand(NamedTuple):
    """A function that stands in for one that needs people, a server, or a model that has gone astray."""

    place: Any
    name: str
    instead: Callable[..., Any]


@dataclass(frozen=True)
class Bench:
    """How a stage is run for the knobs that share its two runs."""

    door: Callable[[Sequence[str]], int]
    start: str | None = None
    """Name of the run that it goes on from."""
    settings: tuple[str, ...] = ()
    """``key=value`` of both runs; a name in braces is a file, ``{root}`` the folder around the run."""
    after: str | None = None
    """Bench whose second run it goes on from."""
    options: tuple[str, ...] = ()
    watches: tuple[Watch, ...] = ()
    stands: tuple[Stand, ...] = ()
    may_refuse: bool = False
    """Whether to be refused is what is to be seen."""


@dataclass(frozen=True)
class Knob:
    """A setting, and how it shows that the stage obeys it."""

    key: str
    bench: str
    values: tuple[Any, Any]
    """In the first and in the second run; names in braces as in ``Bench.settings``."""
    see: Callable[[Turned], Any]
    law: Callable[[Any, Turned], Any]
    """From the value, what must be seen; all else that it goes by is what the run was given or has left."""
    says: str
    """The law in words."""
    within: float = 1e-9
    """By how much numbers may be off, beside ``TOLERANCE``: what single precision rounds."""


def check(knob: Knob, first: Turned, second: Turned) -> None:
    """Raise ``AssertionError`` unless both runs show what the law says, which is not the same for both values."""
    sides = (first, second)
    expected = [knob.law(side.given(knob.key), side) for side in sides]
    assert not same(*expected, within=knob.within), f"{knob.key}: the law says {expected[0]} for either value"
    for side, wanted in zip(sides, expected, strict=True):
        seen = knob.see(side)
        assert same(seen, wanted, within=knob.within), (
            f"{knob.key}={side.given(knob.key)} ({knob.says}): seen {seen}, not {wanted}"
        )


def same(one: Any, other: Any, *, within: float) -> bool:
    """Whether two values are equal, numbers with decimals as nearly as ``TOLERANCE`` or ``within`` some distance."""
    if isinstance(one, float) or isinstance(other, float):
        return bool(one == pytest.approx(other, rel=TOLERANCE, abs=within))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key], within=within) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(*pair, within=within) for pair in zip(one, other, strict=True))
    return bool(one == other)


def with_value(recipe: Recipe, key: str, value: Any) -> Recipe:
    """The recipe with one setting as it was not given; nothing else is looked at or changed."""

    def changed(section: Any, path: Sequence[str]) -> Any:
        name, *rest = path
        return section.model_copy(update={name: changed(getattr(section, name), rest) if rest else value})

    found: Recipe = changed(recipe, key.split("."))
    return found


def value_of(recipe: Recipe, key: str) -> Any:
    """The value of a setting as the recipe holds it; of no key, the recipe."""
    found: Any = recipe
    for name in filter(None, key.split(".")):
        found = getattr(found, name)
    return found


def field_of(recipe: Recipe, key: str) -> FieldInfo:
    """What a setting's section says of it."""
    section, _, name = key.rpartition(".")
    return type(value_of(recipe, section)).model_fields[name]


class Workshop:
    """Runs the benches, each side once."""

    def __init__(
        self,
        folder: Path,
        files: dict[str, str],
        starts: Callable[[str], Path],
        benches: Mapping[str, Bench],
        knobs: Sequence[Knob],
    ) -> None:
        """Nothing is run yet.

        Args:
            folder: where the runs go.
            files: inputs by name.
            starts: gives the run of a name that benches go on from.
            benches: by name.
            knobs: all there are; those of a bench are turned together.
        """
        self.folder, self.files, self.starts, self.benches, self.knobs = folder, files, starts, benches, knobs
        self.made: dict[tuple[str, int], Turned | Refused] = {}

    def sides(self, knob: Knob) -> tuple[Turned, Turned]:
        """Both runs of a knob's bench."""
        return self.turned(knob.bench, FIRST), self.turned(knob.bench, SECOND)

    def sides_with_default(self, knob: Knob) -> tuple[Turned, Turned]:
        """The same, but that one stage finds the default where something else was given: the second, if it can.

        Of a setting without a default the second finds the first value.
        """
        first, second = self.sides(knob)
        field = field_of(first.recipe, knob.key)
        if field.is_required():
            return first, self._run(knob.bench, SECOND, knob.key, value_of(first.recipe, knob.key))
        default = field.get_default(call_default_factory=True)
        if value_of(second.recipe, knob.key) == default:
            return self._run(knob.bench, FIRST, knob.key, default), second
        return first, self._run(knob.bench, SECOND, knob.key, default)

    def turned(self, bench: str, side: int) -> Turned:
        """One run of a bench, with what all its knobs have on that side."""
        if (bench, side) not in self.made:
            try:
                self.made[bench, side] = self._run(bench, side)
            except Refused as refusal:
                self.made[bench, side] = refusal
        found = self.made[bench, side]
        if isinstance(found, Refused):
            raise found
        return found

    def _run(self, name: str, side: int, key: str | None = None, value: Any = None) -> Turned:
        """Run a stage; where a key is given, the stage finds another value of it than it was given."""
        # What is said at the door.
        bench = self.benches[name]
        label = f"{name.replace(' ', '-')}-{side + 1}{'' if key is None else f'-without-{key}'}"
        root = self.folder / label
        root.mkdir(parents=True)
        knobs = [knob for knob in self.knobs if knob.bench == name]
        values = {knob.key: filled(knob.values[side], {**self.files, "root": str(root)}) for knob in knobs}
        values.setdefault("run_dir", str(root / "run"))
        settings = [filled(item, {**self.files, "root": str(root)}) for item in bench.settings]
        overrides = [*settings, *(f"{knob}={json.dumps(one)}" for knob, one in values.items())]
        config = self._config()
        if (start := self._start(bench)) is not None:
            shutil.copytree(start, values["run_dir"])
        turned = Turned(load_recipe(str(config), overrides), root, -1, self.files)
        # Go through the door.
        with pytest.MonkeyPatch.context() as patch:
            for stand in bench.stands:
                patch.setattr(stand.place, stand.name, stand.instead)
            for watch in bench.watches:
                _watch(patch, watch, turned.kept.setdefault(watch.known_as or watch.name, []))
            if key is not None:
                _exchange(patch, key, value)
            with _explained(label):
                turned.code = bench.door(["--config", str(config), *bench.options, *overrides])
        if turned.code != 0 and not bench.may_refuse:
            raise Refused(f"{label} ended with {turned.code}")
        return turned

    def _start(self, bench: Bench) -> Path | None:
        if bench.after is not None:
            return self.turned(bench.after, SECOND).run
        return None if bench.start is None else self.starts(bench.start)

    def _config(self) -> Path:
        """The recipe that all runs are made from."""
        file = self.folder / "reduced.yaml"
        if not file.is_file():
            values = {**REDUCED, "run_dir": "nowhere", "data": {name: self.files[name] for name in PROMPT_FILES}}
            own = {"base": {"corpus": self.files["pretraining"]}, "sft": {"data": self.files["demonstrations"]}}
            OmegaConf.save(OmegaConf.merge(values, own), file)
        return file


@contextlib.contextmanager
def _explained(label: str) -> Iterator[None]:
    """What a stage raises for want of a setting that fits is a refusal, too."""
    try:
        yield
    except Exception as error:
        raise Refused(f"{label}: {type(error).__name__}: {error}") from error


def filled(value: Any, names: Mapping[str, str]) -> Any:
    """A value with the files that it names in braces."""
    if isinstance(value, list):
        return [filled(item, names) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, names) for key, item in value.items()}
    if isinstance(value, str):
        for name, path in names.items():
            value = value.replace("{" + name + "}", path)
    return value


def _watch(patch: pytest.MonkeyPatch, watch: Watch, kept: list[Any]) -> None:
    plain: Callable[..., Any] = getattr(watch.place, watch.name)

    def noted(*given: Any, **options: Any) -> Any:
        found = plain(*given, **options)
        kept.append(watch.keep(given, options, found))
        return found

    patch.setattr(watch.place, watch.name, noted)


def _exchange(patch: pytest.MonkeyPatch, key: str, value: Any) -> None:
    """Have what stands behind the doors find another value of a setting than was given."""
    plain = command_line.recipe_of_run

    def exchanged(*given: Any) -> tuple[Recipe, str, list[str]]:
        recipe, origin, notes = plain(*given)
        return with_value(recipe, key, value), origin, notes

    patch.setattr(command_line, "recipe_of_run", exchanged)
