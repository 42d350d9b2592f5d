"""What all commands begin with: where to speak, which store, and something in its queues."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml
from rich.console import Console

from alignment.errors import UserError
from annotation_ui.app_settings import AppSettings
from annotation_ui.desk.preparation import keep_projects
from annotation_ui.exchange.imports import import_items, read_prompts
from annotation_ui.store.database import Store
from annotation_ui.store.items import has_items
from annotation_ui.store.projects import project_named

console = Console(stderr=True)
Arguments = argparse.Namespace


def say(message: str) -> None:
    """One line on standard error."""
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def database_of(settings: AppSettings, run: Path | None) -> str:
    """Where the store is: as the settings say, else in the run folder.

    Raises:
        UserError: neither is given, or there is no such run.
    """
    if settings.database is not None:
        return settings.database
    if run is None:
        raise UserError("which store? Give --run RUN, or database=FILE (or a PostgreSQL URL).")
    if not run.is_dir():
        raise UserError(f"no such run folder: {run}. Make one with python -m stages.sft run_dir={run}")
    return str(run / "annotation" / "annotations.db")


def open_store(settings: AppSettings, run: Path | None) -> Store:
    """The store, made where there is none, with the projects of the settings; those that it has stay as they are."""
    store = Store(database_of(settings, run))
    keep_projects(store, settings, change=False)
    return store


def known_store(settings: AppSettings, run: Path | None) -> Store:
    """The store, to be read.

    Raises:
        UserError: there is none.
    """
    database = database_of(settings, run)
    if "://" not in database and not Path(database).is_file():
        raise UserError(f"there is no annotation store {database}: serve the app first, or give its --run or database=")
    return Store(database)


def fill_from_run(store: Store, settings: AppSettings, run: Path) -> None:
    """Put a run's training prompts into queues that have nothing yet, so that there is something to judge at once.

    Raises:
        UserError: the run's recipe cannot be read.
    """
    file = run / "sft" / "config.yaml"
    try:
        source = yaml.safe_load(file.read_text(encoding="utf-8"))["data"]["prompts"]
    except (OSError, KeyError, yaml.YAMLError) as error:
        raise UserError(
            f"{file} does not say where the run's prompts are. Import some: annotation_ui import"
        ) from error
    for project in settings.projects:
        with store.read() as connection:
            if project.mode == "free" or has_items(connection, project_named(connection, project.name).id):
                continue
        items, _ = read_prompts(str(source), project.dimension)
        done = import_items(store, project.name, items)
        say(f"{project.name}: {done.added} prompts of the run are in the queue")
