"""Which store a command works on, and the commands on what is in it: report, backup, import, export."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from alignment.errors import UserError
from annotation_ui.app_settings import AppSettings, database_of
from annotation_ui.desk.training_and_test import keep_projects
from annotation_ui.exchange.export_judgments import export, manifest_file
from annotation_ui.exchange.imports import Filing, attention_items, import_items, read_pairs, read_prompts
from annotation_ui.exchange.selection import ExportFilter, filter_from
from annotation_ui.store.database import Store
from annotation_ui.store.projects import project_named

console = Console(stderr=True)
Arguments = argparse.Namespace


def say(message: str) -> None:
    """One line on standard error."""
    console.print(message, markup=False, highlight=False, soft_wrap=True)


# -- which store ------------------------------------------------------------------------------------------------------


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


# -- quality, backup --------------------------------------------------------------------------------------------------


def backup(settings: AppSettings, arguments: Arguments) -> None:
    """Copy the store while it is in use."""
    store = known_store(settings, arguments.run)
    store.backup(arguments.to)
    say(f"{store.shown_name} is copied to {arguments.to}")


def report(settings: AppSettings, arguments: Arguments) -> None:
    """Print the quality report, or write it as a page."""
    # with statistics and plots, a second that the other commands need not wait
    from annotation_ui.quality.quality_report import as_json, quality_report
    from annotation_ui.quality.report_as_text import as_text
    from annotation_ui.quality.stored_judgments import annotator_names
    from annotation_ui.web.quality_page import as_html

    store = known_store(settings, arguments.run)
    quality = quality_report(store, project_name=arguments.project, with_simulated=arguments.with_simulated)
    names = annotator_names(store) if arguments.names else None
    if arguments.html is not None:
        arguments.html.write_text(as_html(quality, names), encoding="utf-8")
        say(f"wrote {arguments.html}")
    elif arguments.json:
        Console().out(json.dumps(as_json(quality), indent=2), highlight=False)
    else:
        Console().out(as_text(quality, names), highlight=False)


# -- import, export ---------------------------------------------------------------------------------------------------


def import_data(settings: AppSettings, arguments: Arguments) -> None:
    """Bring prompts, or pairs to be judged, into a project's queue."""
    store = open_store(settings, arguments.run)
    with store.read() as connection:
        project = project_named(connection, arguments.project)
    filing = Filing(part=arguments.part, batch=arguments.batch, priority=arguments.priority)
    read = read_pairs if arguments.pairs else read_prompts
    try:
        items, report = read(
            arguments.source,
            project.dimension,
            filing=filing,
            format=arguments.format,
            on_error=arguments.on_error,
            limit=arguments.limit,
        )
    except UserError as error:  # the readers are those of the stages, where this is a setting
        raise UserError(str(error).replace("data.on_error=skip", "--on-error skip")) from error
    if arguments.attention:
        items += attention_items(project.dimension, filing=filing)
    done = import_items(store, arguments.project, items, overlap=arguments.overlap)
    say(f"{arguments.project}: {done.added} added, {done.known} there already. {report.summary()}")


def export_data(settings: AppSettings, arguments: Arguments) -> None:
    """Write what was judged as comparison records for stages.reward."""
    chosen = {key: getattr(arguments, key) for key in ExportFilter.model_fields if hasattr(arguments, key)}
    if settings.qualification.required:
        chosen["require_qualified"] = True
    manifest = export(known_store(settings, arguments.run), arguments.to, filter_from(chosen))
    left_out = ", ".join(f"{count} {reason}" for reason, count in manifest.left_out.items() if count)
    written = f"wrote {manifest.n} comparisons to {arguments.to} (left out: {left_out or 'none'})"
    say(f"{written}; {manifest_file(arguments.to)}")
