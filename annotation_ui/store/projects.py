"""Projects: what annotators are asked about, with which guidelines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from sqlalchemy import Connection, and_, bindparam, insert, select, update

from alignment.data.records import Dimension
from alignment.errors import UserError
from annotation_ui import texts
from annotation_ui.app_settings import ProjectSettings
from annotation_ui.store import tables
from annotation_ui.store.database import new_id, now
from annotation_ui.store.items import set_overlap
from annotation_ui.store.rows import ProjectRow
from annotation_ui.vocabulary import Refused


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
    before = _find(connection, settings.name)
    if before is not None and not change:
        return before.id
    # Each text of guidelines is kept once, under its hash.
    markdown = guidelines_of(settings)
    sha256 = hashlib.sha256(markdown.encode()).hexdigest()
    if connection.execute(select(tables.guideline).where(tables.guideline.c.sha256 == sha256)).one_or_none() is None:
        connection.execute(insert(tables.guideline).values(sha256=sha256, markdown=markdown))
    # What the settings say of the project, new or known.
    copied = ("title", "dimension", "batch", "mode", "overlap", "max_turns", "ask_safety")
    values = {key: getattr(settings, key) for key in copied}
    values |= {"guidelines_sha256": sha256, "config_json": settings.model_dump_json()}
    if before is None:
        project_id = new_id("prj")
        connection.execute(insert(tables.project).values(id=project_id, name=settings.name, created_at=now(), **values))
        return project_id
    # One that was worked on cannot be about something else; its items follow another overlap.
    if before.dimension != settings.dimension and _was_worked_on(connection, before.id):
        raise UserError(f"project {settings.name} is about {before.dimension} and was worked on; name a new one")
    connection.execute(update(tables.project).where(tables.project.c.id == before.id).values(**values))
    if before.overlap != settings.overlap:
        of_project = and_(tables.item.c.project_id == before.id, tables.item.c.overlap == before.overlap)
        set_overlap(connection, of_project, settings.overlap)
    return before.id


def _was_worked_on(connection: Connection, project_id: str) -> bool:
    comparisons = select(tables.comparison.c.id).where(tables.comparison.c.project_id == project_id)
    return connection.execute(comparisons.limit(1)).first() is not None


def project_named(connection: Connection, name: str) -> ProjectRow:
    """A project by name; raise ``UserError`` listing those there are."""
    project = _find(connection, name)
    if project is None:
        known = connection.execute(select(tables.project.c.name).order_by(tables.project.c.name)).scalars().all()
        raise UserError(f"there is no project {name!r}; there are: {', '.join(known) or 'none yet'}")
    return project


def _find(connection: Connection, name: str) -> ProjectRow | None:
    row = connection.execute(select(tables.project).where(tables.project.c.name == name)).one_or_none()
    return None if row is None else ProjectRow._make(row)


def project_about(connection: Connection, names: Iterable[str], dimension: Dimension) -> ProjectRow:
    """The first of some projects that is about a dimension and has a queue.

    Raises:
        UserError: none of them is and has.
    """
    for name in names:
        project = project_named(connection, name)
        if project.dimension == dimension and project.mode != "free":
            return project
    raise UserError(
        f"no project of the annotation settings is about {dimension} and has a queue (mode: queue or both); "
        "add one under projects:"
    )


_PROJECT = select(tables.project).where(tables.project.c.id == bindparam("wanted"))
_PROJECTS = select(tables.project).order_by(tables.project.c.created_at, tables.project.c.name)


def project_by_id(connection: Connection, project_id: str) -> ProjectRow:
    """A project by id."""
    return ProjectRow._make(connection.execute(_PROJECT, {"wanted": project_id}).one())


def project_on_page(connection: Connection, name: str) -> ProjectRow:
    """The project of a name that the page sent; refused where there is none."""
    project = _find(connection, name)
    if project is None:
        raise Refused(texts.NO_PROJECT)
    return project


def all_projects(connection: Connection) -> list[ProjectRow]:
    """All projects, in the order in which they were made."""
    return [ProjectRow._make(row) for row in connection.execute(_PROJECTS)]
