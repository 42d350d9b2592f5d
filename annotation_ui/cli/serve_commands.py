"""Commands that put somebody at the desk: serve it to people, or have simulated people judge."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Thread

from alignment.errors import UserError
from annotation_ui.answers.generation import Generator
from annotation_ui.answers.load_variants import load_variants
from annotation_ui.app_settings import AppSettings, database_of
from annotation_ui.cli.simulated_people import simulate, toy_pairs
from annotation_ui.cli.store_commands import Arguments, open_store, say
from annotation_ui.desk.desk import Desk
from annotation_ui.desk.training_and_test import keep_projects
from annotation_ui.exchange.imports import import_items, queued_prompts
from annotation_ui.store.database import Store
from annotation_ui.store.items import has_items
from annotation_ui.store.projects import project_named
from annotation_ui.web.server import collect_rarely, make_server, reserved

# -- serve ------------------------------------------------------------------------------------------------------------


def serve_app(settings: AppSettings, arguments: Arguments) -> None:
    """Serve the app until Ctrl-C, or until it is asked to stop (SIGTERM)."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # by way of what is to be closed
    if arguments.until_stdin_closes:
        Thread(target=_stop_with_stdin, daemon=True).start()
    with ExitStack() as at_end:
        # the store and the address are ours before anything slow is done
        store = Store(database_of(settings, arguments.run))
        at_end.callback(store.close)
        address = at_end.enter_context(reserved(store, settings, allow_remote=arguments.allow_remote))
        keep_projects(store, settings)
        # who answers, and something to answer
        if arguments.pairs_only:
            settings = settings.model_copy(update={"variants": None})
        variants = load_variants(settings, arguments.run)
        if variants is not None and arguments.run is not None:
            fill_from_run(store, settings, arguments.run)
        generator = None if variants is None else Generator(variants)
        if generator is not None:
            at_end.callback(generator.close)
        # the server itself, which runs until it is stopped
        url, server = make_server(Desk(store, settings, generator), address, secure=arguments.https)
        collect_rarely()
        say(f"store: {store.shown_name}\nopen {url}\nCtrl-C stops; what is saved is saved.")
        server.run(sockets=[address.listener])


def _stop_with_stdin() -> None:
    """End with the program that started this one, however that ended."""
    while sys.stdin.buffer.read(1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def fill_from_run(store: Store, settings: AppSettings, run: Path) -> None:
    """Put a run's training prompts into queues that have nothing yet, so that there is something to judge at once.

    Where they cannot be read, that is said.
    """
    from alignment.workflow.training_prompts import prompts_of_run  # here: it needs torch

    read = cache(prompts_of_run)
    for project in settings.projects:
        with store.read() as connection:
            if project.mode == "free" or has_items(connection, project_named(connection, project.name).id):
                continue
        try:
            found = read(run)
        except UserError as error:
            say(f"{project.name}: the queue is empty ({error}). Import prompts: annotation_ui import")
            continue
        if all(prompt.dimension != project.dimension for prompt in found.prompts):
            say(f"{project.name}: no prompt of the run is about {project.dimension}")
            continue
        items, _ = queued_prompts(found.prompts, replace(found.report, skipped={}), project.dimension)
        done = import_items(store, project.name, items)
        say(f"{project.name}: {done.added} prompts of the run are in the queue")


# -- simulate ---------------------------------------------------------------------------------------------------------


def simulate_people(settings: AppSettings, arguments: Arguments) -> None:
    """Have the toy world's annotators judge the queue, through the app's own desk."""
    store = open_store(settings, arguments.run)
    names = arguments.project or [project.name for project in settings.projects]
    if arguments.pairs_only:
        settings = settings.model_copy(update={"variants": None})
        for project in settings.projects:
            import_items(store, project.name, toy_pairs(arguments.count, project.dimension, seed=arguments.seed))
    variants = load_variants(settings, arguments.run)
    generator = None if variants is None else Generator(variants)
    try:
        for name in names:
            done = simulate(
                store,
                settings,
                name,
                count=arguments.count,
                annotators=arguments.annotator or (),
                seed=arguments.seed,
                generator=generator,
            )
            say(f"{name}: {done.n} judged, {done.skipped} skipped, {done.per_second:.0f} a second")
    finally:
        if generator is not None:
            generator.close()
