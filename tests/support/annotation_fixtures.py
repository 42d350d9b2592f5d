"""Stores, people, scripted variants and items for the tests of the annotation app.

    pytest_plugins = ("annotation_fixtures",)

    def test_it(store):                      # once on SQLite and once on PostgreSQL
        office = Office(store)               # a desk over it, with two variants that answer at once
        office.add_items(3)
        ada = office.person("ada")
        ada.fetch()
        ada.judge(1)                         # each of these waits for the answers and returns the view

Answers say who wrote them without naming a variant: those of slot a begin with ``red``, those of slot b with ``blue``.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from postgres import Postgres
from sqlalchemy import Table, create_engine, insert, select, text, update

from alignment.data.records import Message
from annotation_ui.answers.generation import Generator
from annotation_ui.answers.variants import Piece, VariantFailed
from annotation_ui.app_settings import AppSettings
from annotation_ui.desk.desk import Desk
from annotation_ui.desk.view import View
from annotation_ui.store import tables
from annotation_ui.store.accounts import Account
from annotation_ui.store.database import Store, new_id, now
from annotation_ui.store.items import NewItem, add_items
from annotation_ui.store.judgment_values import Submission
from annotation_ui.store.pairs import NewAnswer, VariantInfo
from annotation_ui.store.pairs import VariantInfo as StoredVariant
from annotation_ui.store.projects import keep_project, project_named
from annotation_ui.vocabulary import AccountRole, Pane, Slot

PATIENCE_SECONDS = 120.0
COLOURS: dict[Slot, str] = {"a": "red", "b": "blue"}
VARIANTS: dict[Slot, str] = {"a": "ppo-1@0.7", "b": "ppo-1@1.3"}
LONG_AGO = "2020-01-01T00:00:00.000Z"
FAR_AHEAD = "2999-01-01T00:00:00.000Z"
NO_TEST = {"required": False}
_numbers = count(1)


# -- databases --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def annotation_database(postgres: Postgres) -> str:
    """The URL of one PostgreSQL database that all tests of a session share, each in a schema of its own."""
    postgres.administer("CREATE DATABASE annotation_tests")
    return postgres.url("annotation_tests")


@contextmanager
def _postgres_schema(server: Postgres, url: str) -> Iterator[str]:
    """A fresh schema: as good as a database, and made and dropped in a tenth of the time."""
    if server.process is None:
        server.start()
    name = f"tests_{next(_numbers)}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
        yield f"{url}&options=-csearch_path%3D{name}"
        connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture
def postgres_database(postgres: Postgres, annotation_database: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with _postgres_schema(postgres, annotation_database) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What ``Store`` opens: a file that is not there yet, and an empty PostgreSQL database."""
    if request.param == "sqlite":
        return str(tmp_path / "annotations.db")
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """A new store, on each database."""
    yield from _opened(database)


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """A new store in a file, for what only concerns files, and for what is the same on every database."""
    yield from _opened(str(tmp_path / "annotations.db"))


@pytest.fixture
def postgres_store(postgres_database: str) -> Iterator[Store]:
    """A new store in PostgreSQL, for what only concerns that."""
    yield from _opened(postgres_database)


def _opened(database: str) -> Iterator[Store]:
    opened = Store(database)
    yield opened
    opened.close()


def rows(store: Store, table: Table, **where: Any) -> list[Any]:
    """All rows of a table, or those with these values."""
    query = select(table).where(*[table.c[name] == value for name, value in where.items()])
    with store.read() as connection:
        return list(connection.execute(query))


def only(store: Store, table: Table, **where: Any) -> Any:
    """The one row with these values."""
    (row,) = rows(store, table, **where)
    return row


def change(store: Store, table: Table, values: Mapping[str, Any], **where: Any) -> None:
    """Set values of all rows of a table, or of some: to make time pass, say."""
    query = update(table).where(*[table.c[name] == value for name, value in where.items()]).values(**values)
    with store.write() as connection:
        connection.execute(query)


def current(store: Store) -> list[Any]:
    """What people say now, in the order in which they said it."""
    query = select(tables.current_judgment).order_by(tables.current_judgment.c.id)
    with store.read() as connection:
        return list(connection.execute(query))


def add_person(store: Store, name: str, role: AccountRole = "annotator", *, identifier: str | None = None) -> Account:
    """An account without a password, so that no test waits for scrypt."""
    made = Account(identifier or new_id("ann"), name, role)
    values = {"id": made.id, "username": name, "role": role, "password_hash": "scrypt$00$00", "active": True}
    with store.write() as connection:
        connection.execute(insert(tables.annotator).values(created_at=now(), **values))
    return made


# -- settings and items -----------------------------------------------------------------------------------------------


def app_settings(*projects: Mapping[str, Any], **changes: Any) -> AppSettings:
    """Settings with one project, ``helpfulness``, or with those given; no test has to be passed unless they say so."""
    full = [_project(given) for given in projects or ({},)]
    return AppSettings.model_validate({"projects": full, "qualification": NO_TEST, **changes})


def _project(given: Mapping[str, Any]) -> dict[str, Any]:
    name = given.get("name", given.get("dimension", "helpfulness"))
    return {"name": name, "title": name.title(), "dimension": "helpfulness", "gold_share": 0.0, **given}


def user(content: str) -> Message:
    """A user's turn."""
    return Message(role="user", content=content)


def assistant(content: str) -> Message:
    """An assistant's turn."""
    return Message(role="assistant", content=content)


def sampled(prompt: str, **changes: Any) -> dict[Slot, NewAnswer]:
    """Two answers that were sampled before."""
    return {
        slot: NewAnswer(f"{COLOURS[slot]} to {prompt}", StoredVariant(VARIANTS[slot]), finish_reason="stop", **changes)
        for slot in COLOURS
    }


def new_item(name: str, *, answered: bool = False, **changes: Any) -> NewItem:
    """An item whose prompt is its name, with or without answers."""
    return NewItem(name, (user(name),), answers=sampled(name) if answered else None, **changes)


def slot_of(pane: Pane | None) -> Slot:
    """Which slot an answer is of, by what it says."""
    assert pane is not None
    return next(slot for slot, colour in COLOURS.items() if pane.text.startswith(colour))


# -- variants ---------------------------------------------------------------------------------------------------------


class Scripted:
    """A variant that answers with its colour, how many turns it was given, and the last of them.

    Attributes:
        asked: the conversations it was given.
        seeds: the seeds it was given.
        may_end: answers stop halfway until this is set.
        failures: how many times it still fails.
    """

    def __init__(self, slot: Slot) -> None:
        self.info = VariantInfo(VARIANTS[slot], f"ppo/{slot}", "0" * 64, "1" * 64, {"temperature": 1.0})
        self.colour = COLOURS[slot]
        self.asked: list[tuple[Message, ...]] = []
        self.seeds: list[int] = []
        self.may_end = threading.Event()
        self.may_end.set()
        self.failures = 0

    def stream(self, messages: Sequence[Message], *, seed: int) -> Iterator[Piece]:
        """Two pieces; the second one waits for ``may_end``."""
        self.asked.append(tuple(messages))
        self.seeds.append(seed)
        whole = f"{self.colour} to {len(messages)}: {messages[-1].content}"
        yield Piece(whole[: len(self.colour)])
        if not self.may_end.wait(PATIENCE_SECONDS):
            raise AssertionError("nobody let the variant go on")
        if self.failures:
            self.failures -= 1
            raise VariantFailed("as it was told to")
        yield Piece(whole, "stop", 7)


# -- people at desks --------------------------------------------------------------------------------------------------


class Person:
    """An annotator at a desk, in one project; each action waits until the answers are there, and returns the view."""

    def __init__(self, office: Office, account: Account, project: str) -> None:
        self.office, self.account, self.project = office, account, project
        self.id = account.id
        self.seen: View | None = None

    @property
    def desk(self) -> Desk:
        return self.office.desk

    def at(self, project: str) -> Person:
        """The same one in another project."""
        return Person(self.office, self.account, project)

    def view(self) -> View:
        """What is on the desk, whole or not."""
        self.seen = self.desk.view(self.id, self.project)
        return self.seen

    def settled(self) -> View:
        """What is on the desk once nothing is being written."""
        return wait_for(self.view, lambda view: view.phase != "generating")

    def _after(self, view: View) -> View:
        self.seen = self.settled() if view.phase == "generating" else view
        return self.seen

    def fetch(self) -> View:
        return self._after(self.desk.fetch(self.id, self.project))

    def ask(self, prompt: str) -> View:
        about = (self.seen or self.view()).comparison_id
        return self._after(self.desk.ask(self.id, self.project, prompt, about))

    def given(self, option: Any = 1, **changes: Any) -> Submission:
        """A judgment of what was on the desk when this person looked last."""
        view = self.seen or self.view()
        ids = {"comparison_id": view.comparison_id, "submission_id": view.submission_id}
        return Submission(**{**ids, "option": option, **changes})

    def submit(self, given: Submission) -> View:
        return self._after(self.desk.submit(self.id, given))

    def judge(self, option: Any = 1, **changes: Any) -> View:
        return self.submit(self.given(option, **changes))

    def skip(self, reason: str = "other", **changes: Any) -> View:
        view = self.seen or self.view()
        comparison, submission = str(view.comparison_id), str(view.submission_id)
        return self._after(self.desk.skip(self.id, comparison, submission, reason, **changes))

    def undo(self) -> View:
        return self._after(self.desk.undo(self.id, str(self.view().undoable)))

    def edit(self, comparison_id: str | None) -> View:
        return self._after(self.desk.edit(self.id, str(comparison_id)))

    def retract(self, comparison_id: str | None) -> View:
        return self._after(self.desk.retract(self.id, str(comparison_id)))

    def retry(self) -> View:
        return self._after(self.desk.retry(self.id, self.project))

    def leave(self) -> View:
        return self._after(self.desk.leave(self.id, self.project))

    def train(self) -> View:
        return self._after(self.desk.train(self.id, self.project))

    def accept(self) -> View:
        return self._after(self.desk.accept_warning(self.id, self.project))


class Office:
    """A desk over a store, with its projects; ``live``: two scripted variants answer."""

    def __init__(self, store: Store, settings: AppSettings | None = None, *, live: bool = True) -> None:
        self.store, self.settings = store, settings or app_settings()
        self.variants: dict[Slot, Scripted] = {"a": Scripted("a"), "b": Scripted("b")}
        self.live = live
        self.desk = self._open()
        with store.write() as connection:
            for project in self.settings.projects:
                keep_project(connection, project)

    def _open(self) -> Desk:
        both = (self.variants["a"], self.variants["b"])
        return Desk(self.store, self.settings, Generator(both, workers=4) if self.live else None)

    def close(self) -> None:
        """Stop the generator, as when the server ends in good order; what is held goes on once it is told to stop."""
        generator = self.desk.generator
        if generator is None:
            return
        closing = threading.Thread(target=generator.close)
        closing.start()
        try:
            wait_for(lambda: all(job.stop.is_set() for job in list(generator._jobs.values())), bool)
        finally:
            self.let_go()
            closing.join()

    def hold(self, *slots: Slot) -> None:
        """Have answers stop halfway."""
        for slot in slots or COLOURS:
            self.variants[slot].may_end.clear()

    def let_go(self) -> None:
        """Have answers end."""
        for variant in self.variants.values():
            variant.may_end.set()

    def add_items(self, count_or_items: int | Sequence[NewItem], project: str = "helpfulness", **changes: Any) -> None:
        """Queue items ``ask 0``, ``ask 1``, ... (answered beforehand where no variants are there), or those given."""
        items: Sequence[NewItem]
        if isinstance(count_or_items, int):
            items = [new_item(f"ask {number}", answered=not self.live) for number in range(count_or_items)]
        else:
            items = count_or_items
        with self.store.write() as connection:
            add_items(connection, project_named(connection, project), items, **changes)

    def person(self, name: str, project: str = "helpfulness", **changes: Any) -> Person:
        """Somebody new."""
        return Person(self, add_person(self.store, name, **changes), project)


@pytest.fixture
def office(store: Store) -> Iterator[Office]:
    """One helpfulness project of up to four turns with variants that answer, on each database."""
    opened = Office(store)
    yield opened
    opened.close()


@pytest.fixture
def quiet_office(store: Store) -> Iterator[Office]:
    """The same without variants: answers were sampled before, and an item is one comparison."""
    opened = Office(store, live=False)
    yield opened


def check_taken(store: Store) -> None:
    """What remains of an item is its overlap less who has judged it or has it on a desk."""
    taken = Counter(row.item_id for row in rows(store, tables.assignment) if row.state in ("leased", "done"))
    for row in rows(store, tables.item, source="queue"):
        assert row.remaining == row.overlap - taken[row.id], row


def wait_for(look: Callable[[], Any], is_right: Callable[[Any], bool]) -> Any:
    """Look until it is right, for at most two minutes; returns what was seen."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_right(seen := look()):
        assert time.monotonic() < deadline, f"still {seen}"
        time.sleep(0.005)
    return seen


def together(actions: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do things at the same moment, each in a thread of its own; returns what each returned or raised."""
    barrier = threading.Barrier(len(actions))
    results: list[Any] = [None] * len(actions)

    def act(number: int) -> None:
        barrier.wait(PATIENCE_SECONDS)
        try:
            results[number] = actions[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=act, args=(number,)) for number in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    return results
