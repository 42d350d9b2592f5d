"""Projects: what annotators are asked about, with which guidelines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, bindparam, insert, select, update

from alignment.data.records import Dimension
from alignment.errors import UserError
from annotation_ui.app_settings import ProjectSettings
from annotation_ui.store import assignments
from annotation_ui.store.database import new_id, now
from annotation_ui.store.tables import comparison, guideline, item, project
from annotation_ui.vocabulary import Refused

# -- projects ---------------------------------------------------------------------------------------------------------


def built_in_guidelines(name: str) -> str:
    """A Markdown text that comes with the app: ``helpfulness``, ``safety`` or ``content_warning``."""
    return (resources.files("annotation_ui") / "guidelines" / f"{name}.md").read_text(encoding="utf-8")


def guidelines_of(settings: ProjectSettings) -> str:
    """The Markdown that annotators of a project read.

    Raises:
        UserError: the file that the settings name cannot be read.
    """
    if settings.guidelines is None:
        return built_in_guidelines(settings.dimension)
    try:
        return Path(settings.guidelines).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"projects.{settings.name}.guidelines={settings.guidelines} cannot be read: {error}") from error


def keep_project(connection: Connection, settings: ProjectSettings, *, change: bool = True) -> str:
    """Make a project, or bring the one of that name up to date with its settings; returns its id.

    Args:
        connection: of a write.
        settings: of the project.
        change: whether one that is there is brought up to date, with those items of its queue that have the overlap
            which it had; otherwise it stays as its server has it.

    Raises:
        UserError: it is about another dimension and has comparisons already.
    """
    row = connection.execute(select(project).where(project.c.name == settings.name)).one_or_none()
    if row is not None and not change:
        return str(row.id)
    markdown = guidelines_of(settings)
    sha256 = hashlib.sha256(markdown.encode()).hexdigest()
    if connection.execute(select(guideline).where(guideline.c.sha256 == sha256)).one_or_none() is None:
        connection.execute(insert(guideline).values(sha256=sha256, markdown=markdown))
    kept = ("title", "dimension", "batch", "mode", "overlap", "max_turns", "ask_safety")
    values = {key: getattr(settings, key) for key in kept}
    values |= {"guidelines_sha256": sha256, "config_json": settings.model_dump_json()}
    if row is None:
        made = new_id("prj")
        connection.execute(insert(project).values(id=made, name=settings.name, created_at=now(), **values))
        return made
    shown = connection.execute(select(comparison.c.id).where(comparison.c.project_id == row.id).limit(1)).first()
    if shown is not None and row.dimension != settings.dimension:
        raise UserError(f"project {settings.name} is about {row.dimension} and was worked on; name a new one")
    connection.execute(update(project).where(project.c.id == row.id).values(**values))
    if row.overlap != settings.overlap:
        of_project = and_(item.c.project_id == row.id, item.c.overlap == row.overlap)
        assignments.set_overlap(connection, of_project, settings.overlap)
    return str(row.id)


def project_named(connection: Connection, name: str) -> Any:
    """The row of a project; raise ``UserError`` listing those there are."""
    row = connection.execute(select(project).where(project.c.name == name)).one_or_none()
    if row is None:
        known = connection.execute(select(project.c.name).order_by(project.c.name)).scalars().all()
        raise UserError(f"there is no project {name!r}; there are: {', '.join(known) or 'none yet'}")
    return row


def project_about(connection: Connection, names: Iterable[str], dimension: Dimension) -> Any:
    """The first of some projects that is about a dimension and has a queue.

    Raises:
        UserError: none of them is and has.
    """
    for name in names:
        row = project_named(connection, name)
        if row.dimension == dimension and row.mode != "free":
            return row
    raise UserError(
        f"no project of the annotation settings is about {dimension} and has a queue (mode: queue or both); "
        "add one under projects:"
    )


NO_PROJECT = "There is no such project. Reload the page."
_PROJECT = select(project).where(project.c.id == bindparam("wanted"))
_PROJECTS = select(project).order_by(project.c.created_at, project.c.name)


def project_by_id(connection: Connection, project_id: str) -> Any:
    """A project by id."""
    return connection.execute(_PROJECT, {"wanted": project_id}).one()


def project_row(connection: Connection, name: str) -> Any:
    """A project by name; refused where there is none."""
    row = connection.execute(select(project).where(project.c.name == name)).one_or_none()
    if row is None:
        raise Refused(NO_PROJECT)
    return row


def all_projects(connection: Connection) -> Sequence[Any]:
    """All projects, in the order in which they were made."""
    return connection.execute(_PROJECTS).all()
