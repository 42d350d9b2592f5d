"""The store: what the tables refuse, versions, transactions, backups while it is written, one server a file."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from operator import lt
from pathlib import Path
from typing import Any

import pytest
from annotation_fixtures import Office, add_person, current, only, rows, together, wait_for
from child_process import ChildProcess
from sqlalchemy import Connection, Table, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from alignment.errors import UserError
from annotation_ui.store import database as store_module
from annotation_ui.store import migrations_and_maintenance, tables
from annotation_ui.store import rows as rows_module
from annotation_ui.store.database import Store, new_id, now
from annotation_ui.store.tables import assignment, comparison, judgment


@pytest.mark.parametrize(
    ("table", "row"),
    [
        (tables.annotator, rows_module.AccountRow),
        (tables.login_failure, rows_module.LoginFailureRow),
        (tables.project, rows_module.ProjectRow),
        (tables.variant, rows_module.VariantRow),
        (tables.item, rows_module.ItemRow),
        (tables.assignment, rows_module.AssignmentRow),
        (tables.conversation, rows_module.ConversationRow),
        (tables.desk_place, rows_module.DeskPlaceRow),
        (tables.pair, rows_module.PairRow),
        (tables.answer, rows_module.AnswerRow),
        (tables.comparison, rows_module.ComparisonRow),
        (tables.judgment, rows_module.JudgmentRow),
        (tables.qualification, rows_module.QualificationRow),
    ],
)
def test_a_row_type_has_the_columns_of_its_table_in_order(table: Table, row: Any) -> None:
    assert row._fields == tuple(table.columns.keys())
    for column in table.columns:
        assert bool(column.nullable) == ("None" in str(row.__annotations__[column.name])), column


# -- what the tables refuse -------------------------------------------------------------------------------------------


@pytest.fixture
def shown(quiet_office: Office) -> Any:
    """The comparison on somebody's desk, with nothing said about it."""
    quiet_office.add_items(1)
    quiet_office.person("ada").fetch()
    return only(quiet_office.store, comparison)


Say = Callable[..., int]


@pytest.fixture
def say(store: Store, shown: Any) -> Say:
    """Adds a row about the comparison as somebody would who goes past the desk; returns its id."""
    sha256 = only(store, tables.guideline).sha256

    def add(number: int, **values: Any) -> int:
        whole = {
            "submission_id": f"s{number}",
            "comparison_id": shown.id,
            "annotator_id": shown.annotator_id,
            "kind": "judgment",
            "chosen_slot": "a",
            "grade": "better",
            "app_version": "0",
            "guidelines_sha256": sha256,
            "created_at": now(),
        }
        with store.write() as connection:
            made = connection.execute(insert(judgment).values(**{**whole, **values}).returning(judgment.c.id))
            return int(made.scalar_one())

    return add


def test_a_submission_is_there_once(store: Store, say: Say) -> None:
    first = say(1)
    with pytest.raises(IntegrityError, match="submission_id"):
        say(1, supersedes=first)
    assert len(rows(store, judgment)) == 1


def test_a_comparison_has_one_first_judgment(store: Store, say: Say) -> None:
    say(1)
    with pytest.raises(IntegrityError, match=r"one_root_judgment|judgment\.comparison_id"):
        say(2)
    assert len(rows(store, judgment)) == 1


def test_what_was_said_is_superseded_once(store: Store, say: Say) -> None:
    first = say(1)
    second = say(2, supersedes=first)
    with pytest.raises(IntegrityError, match="supersedes"):
        say(3, supersedes=first)
    say(3, supersedes=second)
    assert [row.supersedes for row in rows(store, judgment)] == [None, first, second]


WRONG: list[dict[str, Any]] = [
    {"grade": None},
    {"chosen_slot": None},
    {"chosen_slot": "left"},
    {"grade": "best"},
    {"safety": "fairly_safe"},
    {"kind": "opinion"},
    {"kind": "skip"},
    {"kind": "retraction"},
    {"comparison_id": "cmp_unknown"},
    {"annotator_id": "ann_unknown"},
    {"guidelines_sha256": "of others"},
    {"supersedes": 99},
    {"kind": None},
    {"submission_id": None},
    {"app_version": None},
]


def test_a_row_that_says_nothing_whole_is_refused(store: Store, say: Say) -> None:
    for wrong in WRONG:
        with pytest.raises(IntegrityError):
            say(1, **wrong)
        assert rows(store, judgment) == [], wrong
    say(1)  # the same without a mistake


CHANGES = [
    "UPDATE judgment SET grade = 'slightly_better'",
    "UPDATE judgment SET note = note",
    "DELETE FROM judgment",
    "DELETE FROM comparison",
    "DELETE FROM annotator",
]
UPSERT = "INSERT INTO judgment SELECT * FROM judgment WHERE true ON CONFLICT (id) DO UPDATE SET grade = 'better'"
REPLACEMENTS = [
    "INSERT OR REPLACE INTO judgment SELECT * FROM judgment",
    "REPLACE INTO judgment (submission_id, comparison_id, annotator_id, kind, chosen_slot, grade, app_version, "
    "guidelines_sha256, created_at) SELECT submission_id, comparison_id, annotator_id, kind, 'b', grade, app_version, "
    "guidelines_sha256, created_at FROM judgment",
]
POSTGRES_CHANGES = ["TRUNCATE judgment CASCADE", "TRUNCATE comparison CASCADE", "TRUNCATE annotator CASCADE"]


def test_what_was_said_is_never_changed_or_removed(store: Store, say: Say) -> None:
    say(1)
    before = rows(store, judgment)
    for statement in CHANGES + ([] if store.file else POSTGRES_CHANGES):
        with pytest.raises(DBAPIError), store.write() as connection:
            connection.execute(text(statement))
        assert rows(store, judgment) == before, statement


def test_what_was_said_is_never_replaced(store: Store, say: Say) -> None:
    say(1)
    before = rows(store, judgment)
    for statement in [UPSERT] + (REPLACEMENTS if store.file else []):
        with pytest.raises(DBAPIError, match="append-only"), store.write() as connection:
            connection.execute(text(statement))
        assert rows(store, judgment) == before, statement


def test_what_holds_now(store: Store, say: Say) -> None:
    def now_said() -> list[tuple[str, str]]:
        return [(row.chosen_slot, row.grade) for row in current(store)]

    skipped = say(1, kind="skip", chosen_slot=None, grade=None, skip_reason="other")
    assert now_said() == []
    back = say(2, kind="retraction", chosen_slot=None, grade=None, supersedes=skipped)
    assert now_said() == []
    judged = say(3, supersedes=back)
    assert now_said() == [("a", "better")]
    edited = say(4, supersedes=judged, chosen_slot="b", grade="negligibly_better")
    assert now_said() == [("b", "negligibly_better")]
    say(5, kind="retraction", chosen_slot=None, grade=None, supersedes=edited)
    assert now_said() == []
    assert len(rows(store, judgment)) == 5


def test_an_annotator_has_an_item_once_and_a_pair_once(store: Store, shown: Any) -> None:
    with pytest.raises(IntegrityError), store.write() as connection:
        again = {**shown._asdict(), "id": new_id("cmp"), "turn": 2}
        connection.execute(insert(comparison).values(**again))
    with pytest.raises(IntegrityError), store.write() as connection:
        again = {**only(store, assignment)._asdict(), "id": new_id("asg")}
        connection.execute(insert(assignment).values(**again))
    assert len(rows(store, comparison)) == len(rows(store, assignment)) == 1


# -- versions ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the program further versions: the steps that lead to versions 2, 3, ..."""

    def add(*steps: Callable[[Connection], None]) -> None:
        first = tables.VERSION + 1
        monkeypatch.setattr(
            migrations_and_maintenance,
            "STEPS",
            {**migrations_and_maintenance.STEPS, **dict(enumerate(steps, start=first))},
        )
        monkeypatch.setattr(tables, "VERSION", tables.VERSION + len(steps))

    return add


def adds(name: str) -> Callable[[Connection], None]:
    """A step that adds a column."""

    def step(connection: Connection) -> None:
        connection.execute(text(f"ALTER TABLE annotator ADD COLUMN {name} INTEGER"))

    return step


def columns(store: Store) -> set[str]:
    with store.read() as connection:
        return {column["name"] for column in inspect(connection).get_columns("annotator")}


def version(store: Store) -> int:
    with store.read() as connection:
        return int(connection.execute(text("SELECT version FROM store_version")).scalar_one())


@pytest.fixture
def opened(database: str) -> Iterator[Callable[[], Store]]:
    """Opens the same database again and again."""
    stores: list[Store] = []

    def again() -> Store:
        stores.append(Store(database))
        return stores[-1]

    yield again
    for store in stores:
        store.close()


def test_an_earlier_store_is_brought_up_to_date_once(opened: Any, next_version: Any) -> None:
    first = opened()
    old = version(first)
    before, ada = columns(first), add_person(first, "ada")

    def fills(connection: Connection) -> None:
        connection.execute(text("UPDATE annotator SET age = 40"))

    next_version(adds("age"), fills)
    for _ in range(2):  # a second time it would fail: the column is there
        store = opened()
        assert version(store) == old + 2
        assert columns(store) == before | {"age"}
    with store.read() as connection:
        assert connection.execute(text("SELECT id, age FROM annotator")).all() == [(ada.id, 40)]


def test_a_step_that_fails_leaves_the_store_as_it_was(opened: Any, next_version: Any) -> None:
    first = opened()
    old, before = version(first), columns(first)

    def fails(connection: Connection) -> None:
        adds("height")(connection)
        raise RuntimeError("half done")

    next_version(adds("age"), fails)
    with pytest.raises(RuntimeError, match="half done"):
        opened()
    assert version(first) == old
    assert columns(first) == before


def test_a_store_of_a_newer_version_is_refused(opened: Any, database: str) -> None:
    first = opened()
    with first.write() as connection:
        connection.execute(text("UPDATE store_version SET version = version + 1"))
    with pytest.raises(UserError, match=rf"version {tables.VERSION + 1}.*up to {tables.VERSION}.*Update"):
        opened()
    assert version(first) == tables.VERSION + 1


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as shop:
        shop.execute("CREATE TABLE customer (name TEXT)")
        shop.commit()
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"other tables: customer.*empty one"):
        Store(file)
    assert file.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["shop.db"]


def test_a_postgres_database_of_something_else_is_refused(opened: Any, database: str) -> None:
    first = opened()
    with first.write() as connection:
        connection.execute(text("DROP TABLE store_version"))
    with pytest.raises(UserError, match="other tables"):
        opened()


def test_opened_by_many_at_the_same_moment(database: str) -> None:
    stores = together([lambda: Store(database)] * 6)
    assert [type(store) for store in stores] == [Store] * 6
    for store in stores:
        assert version(store) == tables.VERSION  # fails where there is more than one row
        store.close()


@pytest.fixture
def written_by_another(tmp_path: Path) -> Iterator[tuple[Store, sqlite3.Connection]]:
    """A store that has no write-ahead log yet, and another process's connection that writes."""
    store = Store(tmp_path / "annotations.db")
    store.engine.dispose()
    writer = sqlite3.connect(tmp_path / "annotations.db", isolation_level=None)
    writer.execute("PRAGMA journal_mode=DELETE")
    writer.execute("BEGIN IMMEDIATE")
    yield store, writer
    writer.close()
    store.close()


def test_the_write_ahead_log_waits_for_whoever_writes(
    written_by_another: tuple[Store, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, writer = written_by_another
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        writer.close()

    monkeypatch.setattr("annotation_ui.store.database.time.sleep", wait)
    store_module._write_ahead(store.engine)
    assert len(waits) == 1
    with store.read() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"


def test_a_file_that_stays_busy_is_said(
    written_by_another: tuple[Store, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = written_by_another
    monkeypatch.setattr("annotation_ui.store.database._WAIT_MS", 0)
    with pytest.raises(UserError, match=r"annotations\.db cannot be opened.*locked"):
        Store(store.name)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        store_module._write_ahead(store.engine)


def test_what_cannot_be_opened_is_said_without_passwords(tmp_path: Path) -> None:
    file = tmp_path / "notes.db"
    file.write_text("no database at all, only a text that is long enough to be read as a header\n" * 20, "utf-8")
    with pytest.raises(UserError, match=r"notes\.db cannot be opened.*not a database"):
        Store(file)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be opened"):
        Store(tmp_path / "file" / "annotations.db")
    with pytest.raises(UserError, match=r"postgresql\+psycopg"):
        Store("mysql://user:secret@localhost/x")
    url = f"postgresql+psycopg://user:secret@/x?host={tmp_path}"
    pytest.importorskip("psycopg", exc_type=ImportError)
    with pytest.raises(UserError, match="cannot be opened") as refused:
        Store(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["a b.db", "50%25.db", "why?.db", "x#1.db", "ä.db", "a&b=c.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / name)
    add_person(store, "ada")
    store.backup(tmp_path / "copy.db")
    store.close()
    assert name in {file.name for file in tmp_path.iterdir()}
    copy = Store(tmp_path / "copy.db")
    assert only(copy, tables.annotator).username == "ada"
    copy.close()


# -- transactions -----------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.write() as connection:
        connection.execute(insert(tables.guideline).values(sha256="1", markdown="one"))
        raise RuntimeError
    assert rows(store, tables.guideline) == []
    with store.write() as connection:  # and the next one is not in the way of anything
        connection.execute(insert(tables.guideline).values(sha256="2", markdown="two"))
    assert len(rows(store, tables.guideline)) == 1


def test_each_connection_to_a_file_writes_through_to_disk(sqlite_store: Store) -> None:
    def settings(connection: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    with sqlite_store.read() as first, sqlite_store.read() as second, sqlite_store.write() as third:
        assert [settings(each) for each in (first, second, third)] == [["wal", 2, 1, 30_000]] * 3


def test_a_read_sees_one_state_throughout(store: Store) -> None:
    with store.read() as connection:
        before = connection.execute(select(tables.guideline)).all()
        with store.write() as other:
            other.execute(insert(tables.guideline).values(sha256="1", markdown="one"))
        assert connection.execute(select(tables.guideline)).all() == before == []
    assert len(rows(store, tables.guideline)) == 1


def test_writes_of_many_threads_wait_for_each_other(store: Store) -> None:
    with store.write() as connection:
        connection.execute(insert(tables.guideline).values(sha256="counter", markdown="0"))

    def count_up() -> None:
        for _ in range(5):
            with store.write() as connection:
                was = connection.execute(select(tables.guideline.c.markdown)).scalar_one()
                connection.execute(tables.guideline.update().values(markdown=str(int(was) + 1)))

    assert together([count_up] * 8) == [None] * 8
    assert only(store, tables.guideline).markdown == "40"


def test_times_sort_as_text() -> None:
    moment = now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert moment <= now()


# -- backups ----------------------------------------------------------------------------------------------------------


def add_two(store: Store, number: int) -> None:
    """One transaction of two rows."""
    with store.write() as connection:
        for half in "ab":
            connection.execute(insert(tables.guideline).values(sha256=f"{number:05}{half}", markdown="x" * 2000))


def test_a_backup_is_whole_while_the_store_is_written(sqlite_store: Store, tmp_path: Path) -> None:
    written, enough = [0], threading.Event()

    def write() -> None:
        while not enough.is_set():
            add_two(sqlite_store, written[0])
            written[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            least = 10 * number + 5
            acknowledged = wait_for(lambda: written[0], partial(lt, least))
            sqlite_store.backup(tmp_path / "backups" / f"{number}.db")
            copy = Store(tmp_path / "backups" / f"{number}.db")
            names = [row.sha256 for row in rows(copy, tables.guideline)]
            copy.close()
            assert len(names) >= 2 * acknowledged
            assert sorted(names) == [f"{each:05}{half}" for each in range(len(names) // 2) for half in "ab"]
    finally:
        enough.set()
        writer.join()
    sqlite_store.backup(tmp_path / "backups" / "last.db")
    left = {file.name for file in (tmp_path / "backups").iterdir()}
    assert {name for name in left if not name.endswith(("-wal", "-shm"))} == {
        *(f"{number}.db" for number in range(5)),
        "last.db",
    }


def test_a_backup_has_what_a_copy_of_the_file_lacks(sqlite_store: Store, tmp_path: Path) -> None:
    add_two(sqlite_store, 0)
    assert sqlite_store.file is not None
    (tmp_path / "copy.db").write_bytes(sqlite_store.file.read_bytes())
    sqlite_store.backup(tmp_path / "backup.db")

    def count(file: Path) -> int:
        with closing(sqlite3.connect(file)) as connection:
            try:
                return int(connection.execute("SELECT count(*) FROM guideline").fetchone()[0])
            except sqlite3.OperationalError:
                return 0

    assert count(tmp_path / "copy.db") == 0
    assert count(tmp_path / "backup.db") == 2


def test_a_backup_replaces_nothing(sqlite_store: Store, tmp_path: Path) -> None:
    target = tmp_path / "kept.db"
    target.write_text("precious", encoding="utf-8")
    with pytest.raises(UserError, match=r"kept\.db exists"):
        sqlite_store.backup(target)
    assert target.read_text(encoding="utf-8") == "precious"


def test_a_damaged_store_gives_no_backup(sqlite_store: Store, tmp_path: Path) -> None:
    for number in range(40):
        add_two(sqlite_store, number)
    file = sqlite_store.file
    assert file is not None
    sqlite_store.close()
    content = bytearray(file.read_bytes())
    for page in range(60, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match="damaged"):
        sqlite_store.backup(tmp_path / "backup.db")
    assert not (tmp_path / "backup.db").exists()


def test_postgres_has_a_backup_of_its_own(postgres_store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pg_dump"):
        postgres_store.backup(tmp_path / "backup.db")


# -- one server a file ------------------------------------------------------------------------------------------------


def test_a_file_has_one_server(sqlite_store: Store) -> None:
    assert sqlite_store.server_url() is None
    assert sqlite_store.file is not None
    other = Store(sqlite_store.file)
    with sqlite_store.serving("http://127.0.0.1:7860"):
        assert other.server_url() == "http://127.0.0.1:7860"
        with pytest.raises(UserError, match=r"served already, at http://127\.0\.0\.1:7860"), other.serving("http://b"):
            raise AssertionError("two servers")
        assert other.server_url() == "http://127.0.0.1:7860"
    assert other.server_url() is None
    with pytest.raises(RuntimeError), other.serving("http://b"):
        assert sqlite_store.server_url() == "http://b"
        raise RuntimeError("it crashed")
    with sqlite_store.serving("http://c"):
        pass
    other.close()


def test_a_file_has_one_server_by_whatever_name(sqlite_store: Store, tmp_path: Path) -> None:
    assert sqlite_store.file is not None
    (tmp_path / "link.db").symlink_to(sqlite_store.file)
    other = Store(tmp_path / "link.db")
    with sqlite_store.serving("http://a"), pytest.raises(UserError, match="http://a"), other.serving("http://b"):
        raise AssertionError("two servers")
    other.close()


def test_another_process_can_take_over_from_one_that_was_killed(sqlite_store: Store) -> None:
    program = (
        "import sys; from annotation_ui.store.database import Store\n"
        "with Store(sys.argv[1]).serving('http://first'):\n"
        "    print('serving', flush=True); sys.stdin.read()\n"
    )
    file = str(sqlite_store.file)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with ChildProcess([sys.executable, "-c", program, file], text=True, **pipes) as first:
        assert first.stdout is not None and first.stdout.readline() == "serving\n"
        with pytest.raises(UserError, match="http://first"), sqlite_store.serving("http://second"):
            raise AssertionError("two servers")
        first.kill()
    with sqlite_store.serving("http://second"):
        assert sqlite_store.server_url() == "http://second"


def test_a_postgres_database_may_have_several_servers(postgres_store: Store) -> None:
    with postgres_store.serving("http://a"):
        with postgres_store.serving("http://b"):
            assert postgres_store.is_served()
        assert postgres_store.is_served()
        assert postgres_store.server_url() is None
    assert not postgres_store.is_served()
