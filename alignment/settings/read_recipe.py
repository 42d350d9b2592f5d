"""Reading a recipe: a YAML file, then ``key.sub=value`` overrides (OmegaConf), then validation, all mistakes at once.

Each misspelt key is named with the nearest valid one. No value is ever changed behind the user's back: what cannot be
honoured is an error. What may be set is in ``alignment.settings.recipe`` and the sections that it names.
"""

from __future__ import annotations

import difflib
import hashlib
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import MarkedYAMLError, YAMLError

from alignment.errors import UserError
from alignment.files import resolve, resource, write_text
from alignment.settings.recipe import Recipe, RecipeOrigin
from alignment.settings.sections import Section

DEFAULT_RECIPE = "configs/toy.yaml"
REQUIRED = "required"
"""Default of a setting that has none."""
MISSING = "???"
"""In a recipe: no sensible default, the user gives it."""
MADE_FROM = "made_from"
"""Key under which a run's recipe says where its settings are from."""
S = TypeVar("S", bound=Section)


def load_recipe(path: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply ``key.sub=value`` overrides and validate.

    Args:
        path: a YAML file; default ``configs/toy.yaml``.
        overrides: dotted settings, later ones win.

    Raises:
        UserError: the file is missing or not YAML, an override has no ``=``, or settings are wrong (all named).
    """
    name = path or DEFAULT_RECIPE
    values = read_settings(name, overrides)
    made_from = values.pop(MADE_FROM, None) if isinstance(values, dict) else None
    recipe = parse_settings(Recipe, values, origin=name, given=[item.partition("=")[0] for item in overrides])
    before = _origin_on_record(name, made_from) if made_from is not None else _origin_of(name)
    given = (*before.given, *(item.partition("=")[0] for item in overrides))
    return recipe.with_origin(before._replace(given=tuple(dict.fromkeys(given))))


def _origin_of(name: str) -> RecipeOrigin:
    """Where the settings of a file are from: itself. Files that come with Tandem are nobody's own."""
    file = resolve(name)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    if file.resolve().parent == resource("configs").resolve():
        return RecipeOrigin(f"configs/{file.name}", sha256)
    values = read_settings(name)
    return RecipeOrigin(
        str(file.resolve()), sha256, written=tuple(key for key, _ in leaves(cast(dict[str, Any], values)))
    )


def _origin_on_record(name: str, made_from: object) -> RecipeOrigin:
    """Where the settings of a run's recipe are from, as it says."""
    try:
        found = RecipeOrigin(**cast(dict[str, Any], made_from))
        return found._replace(given=tuple(found.given), written=tuple(found.written))
    except TypeError as error:
        raise UserError(f"{name}: {MADE_FROM} is written by Tandem and was mended by hand. Leave it out.") from error


def read_settings(path: str, overrides: Sequence[str] = ()) -> object:
    """Plain values of a YAML file, with ``key.sub=value`` overrides; raise ``UserError`` if it cannot be read."""
    file = resolve(path)
    if not file.is_file():
        raise UserError(f"no such recipe: {path}. Recipes that come with Tandem: configs/toy.yaml and its neighbours.")
    wrong = [item for item in overrides if "=" not in item[1:]]
    if wrong:
        raise UserError(f"not a setting: {wrong[0]!r}. Write key.sub=value, for example ppo.updates=20.")
    settings = _loaded(file, path)
    for item in overrides:
        try:
            settings = OmegaConf.merge(settings, OmegaConf.from_dotlist([item]))
            OmegaConf.to_container(settings, resolve=True)
        except (OmegaConfBaseException, YAMLError, TypeError, ValueError) as error:
            raise UserError(f"{item!r} on the command line: {_first_line(error)}") from error
    return OmegaConf.to_container(settings, resolve=True)


def _loaded(file: Path, path: str) -> Any:
    """The settings of a YAML file; raise ``UserError`` with its line where it is none."""
    try:
        settings = OmegaConf.load(file)
        OmegaConf.to_container(settings, resolve=True)
        return settings
    except MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise UserError(f"{path}{line}: not YAML ({error.problem or error.context})") from error
    except (OmegaConfBaseException, YAMLError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    if isinstance(error, MarkedYAMLError):
        return str(error.problem or error.context)
    return (str(error).splitlines() or [type(error).__name__])[0]


def parse_recipe(values: object, *, origin: str) -> Recipe:
    """Validate a recipe's plain values; raise ``UserError`` that lists every mistake."""
    return parse_settings(Recipe, values, origin=origin)


def parse_settings(kind: type[S], values: object, *, origin: str, given: Sequence[str] = ()) -> S:
    """Validate plain values as settings of a kind.

    Args:
        kind: of the settings.
        values: plain values.
        origin: where they are from, for people.
        given: dotted keys that are from the command line instead.

    Raises:
        UserError: something is wrong; lists every mistake.
    """
    if not isinstance(values, dict):
        raise UserError(f"{origin}: a recipe is a mapping of sections, found {type(values).__name__}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = [_explain(item, kind, given) for item in error.errors()]
        noun = "setting" if len(problems) == 1 else "settings"
        raise UserError(f"{origin}: {len(problems)} wrong {noun}\n  " + "\n  ".join(problems)) from error


def _explain(item: Any, kind: type[Section], given: Sequence[str]) -> str:
    """One line for one pydantic error: dotted key, what is wrong, the nearest valid key of a misspelt one."""
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    typed = any(key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.") for name in given)
    where = "given on the command line" if typed else "given"
    if item["type"] != "extra_forbidden":
        value = "" if isinstance(item["input"], dict) else f": {str(item['input'])[:60]}"
        return f"{key}: {item['msg'].removeprefix('Value error, ')} ({where}{value})"
    known = list(_section_at(kind, location[:-1]).model_fields)
    nearest = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.4)
    hint = f"did you mean {'.'.join([*location[:-1], nearest[0]])}?" if nearest else f"known: {', '.join(known)}"
    return f"{key}: no such setting; {hint}{' (given on the command line)' if typed else ''}"


def _section_at(section: type[Section], path: Sequence[str]) -> type[Section]:
    for name in path:
        if name in section.model_fields:  # else the place of a section in a list of them
            section = next(_sections_in(section.model_fields[name].annotation))
    return section


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    """The section that an annotation names, also as one of a list or where it may be ``None``."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _sections_in(part)


def recipe_keys(section: type[Section] = Recipe, prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Every setting as (dotted key, type, default, description), for ``--help``."""
    rows: list[tuple[str, str, str, str]] = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            rows += recipe_keys(field.annotation, f"{prefix}{name}.")
        else:
            default = REQUIRED if field.is_required() else str(_plain(field.default))
            rows.append((f"{prefix}{name}", _type_name(field.annotation), default, field.description or ""))
    return rows


def default_of(key: str) -> Any:
    """The default of a setting, or of a section, as it stands in a YAML file; ``None`` where there is none."""
    section: Any = Recipe
    *sections, last = key.split(".")
    for name in sections:
        field = section.model_fields.get(name) if isinstance(section, type) and issubclass(section, Section) else None
        if field is None:
            return None
        section = field.annotation
    field = section.model_fields.get(last) if isinstance(section, type) and issubclass(section, Section) else None
    return None if field is None or field.is_required() else _plain(field.default)


def _plain(value: Any) -> Any:
    """A default as it stands in a YAML file: sections in a list are mappings."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.model_dump(mode="json") if isinstance(value, Section) else value


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin is Literal:
        return "|".join(str(value) for value in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return "|".join(_type_name(part) for part in typing.get_args(annotation) if part is not type(None))
    return str(getattr(annotation, "__name__", annotation))


def save_recipe(recipe: Recipe, file: Path, *, with_origin: bool = False) -> None:
    """Write the resolved recipe as YAML, atomically, unless it stands there already.

    Args:
        recipe: all its settings.
        file: where to.
        with_origin: write, too, where the settings are from.
    """
    values = recipe.model_dump(mode="json")
    if with_origin:
        values = {MADE_FROM: recipe.origin._asdict()} | values
    text = OmegaConf.to_yaml(OmegaConf.create(values))
    if not file.is_file() or file.read_text(encoding="utf-8") != text:
        write_text(file, text)


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings in nested sections, each with its dotted key."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def value_at(values: Any, key: str) -> Any:
    """The value at a dotted key of nested mappings; ``None`` where there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
