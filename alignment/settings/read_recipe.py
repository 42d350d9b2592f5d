"""Reading a recipe: a YAML file, then ``key.sub=value`` overrides (OmegaConf), then validation, all mistakes at once.

Each misspelt key is named with the nearest valid one. No value is ever changed behind the user's back: what cannot be
honoured is an error. What may be set is in ``alignment.settings.recipe`` and the sections that it names.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from alignment.errors import UserError
from alignment.files import resolve
from alignment.settings.recipe import Recipe
from alignment.settings.sections import Section

DEFAULT_RECIPE = "configs/toy.yaml"
REQUIRED = "required"
"""Default of a setting that has none."""
S = TypeVar("S", bound=Section)


def load_recipe(path: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply ``key.sub=value`` overrides and validate.

    Args:
        path: a YAML file; default ``configs/toy.yaml``.
        overrides: dotted settings, later ones win.

    Raises:
        UserError: the file is missing or not YAML, an override has no ``=``, or settings are wrong (all named).
    """
    return parse_recipe(read_settings(path or DEFAULT_RECIPE, overrides), origin=path or DEFAULT_RECIPE)


def read_settings(path: str, overrides: Sequence[str] = ()) -> object:
    """Plain values of a YAML file, with ``key.sub=value`` overrides; raise ``UserError`` if it cannot be read."""
    file = resolve(path)
    if not file.is_file():
        raise UserError(f"no such recipe: {path}. Recipes that come with Tandem: configs/toy.yaml and its neighbours.")
    wrong = [item for item in overrides if "=" not in item]
    if wrong:
        raise UserError(f"not a setting: {wrong[0]!r}. Write key.sub=value, for example ppo.updates=20.")
    try:
        merged = OmegaConf.merge(OmegaConf.load(file), OmegaConf.from_dotlist(list(overrides)))
        return OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, YAMLError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from error


def parse_recipe(values: object, *, origin: str) -> Recipe:
    """Validate a recipe's plain values; raise ``UserError`` that lists every mistake."""
    return parse_settings(Recipe, values, origin=origin)


def parse_settings(kind: type[S], values: object, *, origin: str) -> S:
    """Validate plain values as settings of a kind; raise ``UserError`` that lists every mistake."""
    if not isinstance(values, dict):
        raise UserError(f"{origin}: a recipe is a mapping of sections, found {type(values).__name__}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = [_explain(item, kind) for item in error.errors()]
        noun = "setting" if len(problems) == 1 else "settings"
        raise UserError(f"{origin}: {len(problems)} wrong {noun}\n  " + "\n  ".join(problems)) from error


def _explain(item: Any, kind: type[Section]) -> str:
    """One line for one pydantic error: dotted key, what is wrong, the nearest valid key of a misspelt one."""
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] != "extra_forbidden":
        return f"{key}: {item['msg'].removeprefix('Value error, ')} (given: {str(item['input'])[:60]})"
    known = list(_section_at(kind, location[:-1]).model_fields)
    nearest = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.4)
    hint = f"did you mean {'.'.join([*location[:-1], nearest[0]])}?" if nearest else f"known: {', '.join(known)}"
    return f"{key}: no such setting; {hint}"


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


def save_recipe(recipe: Recipe, file: Path) -> None:
    """Write the resolved recipe as YAML."""
    file.write_text(OmegaConf.to_yaml(OmegaConf.create(recipe.model_dump(mode="json"))), encoding="utf-8")


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
