"""What each command of ``python -m annotation_ui`` does; the command line itself is in ``__main__``."""

from __future__ import annotations

import gc
import getpass
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from threading import Thread

from alignment.errors import UserError
from annotation_ui.answers.generation import Generator
from annotation_ui.answers.load_variants import load_variants
from annotation_ui.app_settings import AppSettings
from annotation_ui.cli.open_store import Arguments, database_of, fill_from_run, known_store, open_store, say
from annotation_ui.desk import preparation
from annotation_ui.desk.desk import Desk
from annotation_ui.exchange.export_judgments import export, manifest_file
from annotation_ui.exchange.imports import Filing, attention_items, import_items, read_pairs, read_prompts
from annotation_ui.exchange.selection import ExportFilter, filter_from
from annotation_ui.store import accounts
from annotation_ui.store.database import Store
from annotation_ui.store.projects import project_named
from annotation_ui.web.server import make_server, reserved

# -- serve ------------------------------------------------------------------------------------------------------------


def serve_app(settings: AppSettings, arguments: Arguments) -> None:
    """Serve the app until Ctrl-C, or until it is asked to stop (SIGTERM)."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # by way of what is to be closed
    if arguments.until_stdin_closes:
        Thread(target=_stop_with_stdin, daemon=True).start()
    with ExitStack() as at_end:
        store = Store(database_of(settings, arguments.run))
        at_end.callback(store.close)
        place = at_end.enter_context(reserved(store, settings, allow_remote=arguments.allow_remote))
        preparation.keep_projects(store, settings)
        if arguments.pairs_only:
            settings = settings.model_copy(update={"variants": None})
        variants = load_variants(settings, arguments.run)
        if variants is not None and arguments.run is not None:
            fill_from_run(store, settings, arguments.run)
        generator = None if variants is None else Generator(variants)
        if generator is not None:
            at_end.callback(generator.close)
        url, server = make_server(Desk(store, settings, generator), place, secure=arguments.https)
        _collect_rarely()
        say(f"store: {store.shown_name}\nopen {url}\nCtrl-C stops; what is saved is saved.")
        server.run(sockets=[place.listening])


def _stop_with_stdin() -> None:
    """End with the program that started this one, however that ended."""
    while sys.stdin.buffer.read(1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _collect_rarely() -> None:
    """What was imported stays, and a collection that goes through it would stop everybody for long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


# -- users ------------------------------------------------------------------------------------------------------------


def users(settings: AppSettings, arguments: Arguments) -> None:
    """Make, list, close accounts; reset their passwords and tests."""
    _USERS[arguments.what](open_store(settings, arguments.run), arguments)


def _add(store: Store, arguments: Arguments) -> None:
    if arguments.name == accounts.LOCAL_USER or accounts.is_simulated(arguments.name):
        raise UserError(f"{arguments.name!r} is a name that the app itself uses; choose another")
    password, shown = _new_password(arguments)
    made = accounts.add_account(store, arguments.name, arguments.role, password)
    say(f"added {made.role} {made.username}, pseudonym {made.id}{shown}")


def _password(store: Store, arguments: Arguments) -> None:
    password, shown = _new_password(arguments)
    accounts.set_password(store, arguments.name, password)
    say(f"{arguments.name} has a new password{shown}")


def _new_password(arguments: Arguments) -> tuple[str, str]:
    """The password to set, and how to tell whoever made it up where that was this program."""
    if arguments.password_stdin:
        return sys.stdin.readline().rstrip("\n"), ""
    if sys.stdin.isatty():
        typed = getpass.getpass("Password (empty: make one up): ")
        if typed:
            if getpass.getpass("Once more: ") != typed:
                raise UserError("the two passwords differ; nothing was changed")
            return typed, ""
    made = secrets.token_urlsafe(12)
    return made, f"; password, shown once: {made}"


def _close(store: Store, arguments: Arguments) -> None:
    accounts.set_active(store, arguments.name, False)
    say(f"{arguments.name} cannot sign in any more; their judgments stay")


def _reopen(store: Store, arguments: Arguments) -> None:
    accounts.set_active(store, arguments.name, True)
    say(f"{arguments.name} can sign in again")


def _withdraw(store: Store, arguments: Arguments) -> None:
    identifier = accounts.withdraw(store, arguments.name)
    say(f"{arguments.name} ({identifier}) is withdrawn: in no export from now on. Export again what you train on.")


def _qualify(store: Store, arguments: Arguments) -> None:
    with store.write() as connection:
        account = accounts.find(connection, arguments.name)
        preparation.waive(connection, account.id, project_named(connection, arguments.project), "admin")
    say(f"{arguments.name} may work in {arguments.project} without the test")


def _reset_test(store: Store, arguments: Arguments) -> None:
    with store.write() as connection:
        account = accounts.find(connection, arguments.name)
        preparation.reset(connection, account.id, project_named(connection, arguments.project))
    say(f"{arguments.name} may take the test of {arguments.project} again")


def _list(store: Store, arguments: Arguments) -> None:
    with store.read() as connection:
        for row in accounts.all_accounts(connection):
            state = "withdrawn" if row.withdrawn_at else "active" if row.active else "closed"
            print(f"{row.username}\t{row.role}\t{state}\t{row.id}")


_USERS: dict[str, Callable[[Store, Arguments], None]] = {
    "add": _add,
    "list": _list,
    "password": _password,
    "close": _close,
    "reopen": _reopen,
    "withdraw": _withdraw,
    "qualify": _qualify,
    "reset-test": _reset_test,
}


# -- quality, backup --------------------------------------------------------------------------------------------------


def report(settings: AppSettings, arguments: Arguments) -> None:
    """Print the quality report, or write it as a page."""
    from annotation_ui.quality.quality_report import as_json
    from annotation_ui.quality.report_as_text import as_text
    from annotation_ui.quality.stored_judgments import annotator_names, quality_report
    from annotation_ui.web.quality_page import as_html

    store = known_store(settings, arguments.run)
    found = quality_report(store, project_name=arguments.project, with_simulated=arguments.with_simulated)
    names = annotator_names(store) if arguments.names else None
    if arguments.html is not None:
        arguments.html.write_text(as_html(found, names), encoding="utf-8")
        say(f"wrote {arguments.html}")
    elif arguments.json:
        print(json.dumps(as_json(found), indent=2))
    else:
        print(as_text(found, names))


def backup(settings: AppSettings, arguments: Arguments) -> None:
    """Copy the store while it is in use."""
    store = known_store(settings, arguments.run)
    store.backup(arguments.to)
    say(f"{store.shown_name} is copied to {arguments.to}")


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
    made = export(known_store(settings, arguments.run), arguments.to, filter_from(chosen))
    left_out = ", ".join(f"{count} {reason}" for reason, count in made.left_out.items() if count)
    say(f"wrote {made.n} comparisons to {arguments.to} (left out: {left_out or 'none'}); {manifest_file(arguments.to)}")


def simulate_people(settings: AppSettings, arguments: Arguments) -> None:
    """Have the toy world's annotators judge the queue, through the app's own desk."""
    from annotation_ui.cli.simulated_people import simulate, toy_pairs

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
