"""Finding the recipes and the toy data that the project ships, in a checkout or a wheel, and reading its tables.

In a checkout they are the folders ``configs/`` and ``data/`` beside this package. A wheel carries
``configs/`` and ``data/toy/`` in ``alignment/_resources/`` (see ``force-include`` in ``pyproject.toml``), so
``configs/toy.yaml`` means the same file from any folder.
"""

from __future__ import annotations

import csv
import tomllib
from functools import cache
from pathlib import Path

DISTRIBUTION = "tandem-rlhf"

_PACKAGE = Path(__file__).resolve().parent
_FOLDERS = ("configs", "data")


def resource(path: str | Path) -> Path:
    """Locate a file or folder that ships with the project; whether it exists is for the caller to check.

    Args:
        path: Relative to the project's root, within ``configs/`` or ``data/``, such as ``configs/toy.yaml``.

    Returns:
        The absolute path in the source checkout, or else in the installed package.

    Raises:
        ValueError: The path is absolute, contains ``..``, or lies outside ``configs/`` and ``data/``.
    """
    if not _is_resource(Path(path)):
        raise ValueError(f"not a resource: {path}; give a relative path within {' or '.join(_FOLDERS)}")
    return _root() / path


@cache
def table(path: str) -> tuple[dict[str, str], ...]:
    """The rows of a table that ships with the project, each by the names in the table's header.

    Args:
        path: of a file with tabs between its columns, such as ``data/toy/facts.tsv``.
    """
    with resource(path).open(encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def resolve(path: str | Path) -> Path:
    """Turn a path given by a person into the one to open: their own file first, then the project's.

    Args:
        path: Any path; a relative one is looked up in the current folder.

    Returns:
        ``path`` itself where it exists; else the shipped file of that name; else ``path`` unchanged, so that
        the error of whoever opens it names what was given.
    """
    given = Path(path)
    if given.exists() or not _is_resource(given):
        return given
    shipped = resource(given)
    return shipped if shipped.exists() else given


def _is_resource(path: Path) -> bool:
    return not path.is_absolute() and path.parts[:1] in {(name,) for name in _FOLDERS} and ".." not in path.parts


def _root() -> Path:
    return _PACKAGE.parent if _is_checkout(_PACKAGE.parent) else _PACKAGE / "_resources"


def _is_checkout(folder: Path) -> bool:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, unreadable, or not TOML: somebody else's folder
        return False
    name: object = project.get("project", {}).get("name")
    return name == DISTRIBUTION
