"""The annotation app under load: how long saving takes, and whether anything is lost; run alone: make bench-annotation

A server serves pairs that were sampled before, from SQLite or PostgreSQL. Annotators in one other process judge them
over HTTP, each thinking for some seconds before they begin and in between. Every tenth judgment is sent twice.
Afterwards each judgment that the server acknowledged is looked for in the store. The time of saving is from sending a
judgment to the complete answer, which brings the next pair. The last line of the output is a JSON object.

    make bench-annotation
    make bench-annotation ARGS="--postgres"
    make bench-annotation ARGS="--memory --run runs/toy"

``--memory`` measures what the server needs with all sessions open, and what it tries to send beyond this machine. With
``--run``, that run's models are loaded and answer a prompt of each session at the same time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from annotation_clients import Plan, Saved
from annotation_served import HERE, PASSWORD, PROJECT, ROOT, Served, prepare
from sqlalchemy import select

from annotation_ui.store import tables
from annotation_ui.store.database import Store

MEMORY_JUDGMENTS = 5
"""Of each session where memory is measured; without a pause in between."""


# -- clients ----------------------------------------------------------------------------------------------------------


class Clients:
    """The process of the annotators, and what it told so far.

    Args:
        folder: where to write that.
        plan: what they do.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.told = folder / "told.jsonl"
        with self.told.open("wb") as told:
            command = [sys.executable, str(HERE / "annotation_clients.py")]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=told, cwd=ROOT)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asdict(plan)).encode())
        self.process.stdin.close()

    def lines(self) -> list[dict[str, Any]]:
        """Everything that was told in whole lines."""
        whole = self.told.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def saved(self) -> list[Saved]:
        """The judgments that they know to be saved."""
        return [Saved(**line) for line in self.lines() if "submission_id" in line]

    def are_open(self) -> bool:
        """Whether all of them have signed in, or tried to."""
        return any("open" in line for line in self.lines())

    def at_work(self) -> bool:
        """Whether they are still judging."""
        return self.process.poll() is None

    def tally(self) -> dict[str, Any]:
        """What happened, once they have ended; raises if they failed."""
        if self.process.wait() or "end" not in (last := self.lines()[-1]):
            raise RuntimeError("the annotators' process failed")
        return dict(last["end"])


# -- comparing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """What the store makes of what was acknowledged.

    Attributes:
        acknowledged: judgments that the server said were saved.
        lost: how many of them are not in the store.
        wrong: how many are there with another annotator, item, side, choice or grade.
        doubled: judgments in the store beyond one for each annotator and item.
        shared: items that went to more annotators than they should.
        extra: judgments in the store that nobody was told of.
    """

    acknowledged: int
    lost: int
    wrong: int
    doubled: int
    shared: int
    extra: int

    @property
    def is_right(self) -> bool:
        """Whether the store holds what was acknowledged, each of it once."""
        return not (self.lost or self.wrong or self.doubled or self.shared)


def compare(store: Store, saved: Sequence[Saved]) -> Compared:
    """Look up each judgment that was acknowledged, and count those that should not be there."""
    rows = {row.submission_id: row for row in _judgments(store)}
    told = {one.submission_id: one for one in saved}
    judged = Counter((row.username, row.item_id) for row in rows.values())
    annotators = Counter(item_id for _, item_id in judged)
    return Compared(
        acknowledged=len(told),
        lost=len(told.keys() - rows.keys()),
        wrong=sum(_on_page(one) != _in_store(rows[name]) for name, one in told.items() if name in rows),
        doubled=sum(judged.values()) - len(judged) + len(saved) - len(told),
        shared=sum(count > 1 for count in annotators.values()),
        extra=len(rows.keys() - told.keys()),
    )


def _judgments(store: Store) -> list[Any]:
    """Every judgment with whose it is, of which item, and how it was shown."""
    said, shown = tables.judgment, tables.comparison
    query = (
        select(
            said.c.submission_id,
            said.c.chosen_slot,
            said.c.grade,
            shown.c.left_slot,
            tables.annotator.c.username,
            tables.pair.c.item_id,
        )
        .join(shown, shown.c.id == said.c.comparison_id)
        .join(tables.pair, tables.pair.c.id == shown.c.pair_id)
        .join(tables.annotator, tables.annotator.c.id == said.c.annotator_id)
        .where(said.c.kind == "judgment")
    )
    with store.read() as connection:
        return list(connection.execute(query))


def _on_page(one: Saved) -> tuple[str, ...]:
    return (one.name, f"{PROJECT}/{one.item:06}", one.left, one.chosen, one.grade)


def _in_store(row: Any) -> tuple[str, ...]:
    return (row.username, row.item_id, row.left_slot, row.chosen_slot, row.grade)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of all are not above; ``None`` where there are none."""
    ordered = sorted(values)
    return round(ordered[math.ceil(share * len(ordered)) - 1], 1) if ordered else None


# -- measuring --------------------------------------------------------------------------------------------------------


def _follow(server: Served, clients: Clients, is_over: Callable[[], bool]) -> float:
    """Look again and again until something is over; returns the largest memory that was seen, in MiB."""
    largest = server.rss_mb()
    while clients.at_work() and not is_over():
        time.sleep(0.1)
        largest = max(largest, server.rss_mb())
    return largest


def measure(server: Served, clients: Clients) -> dict[str, Any]:
    """Wait for the annotators; what the server needed, and how long saving took."""
    signing_in = _follow(server, clients, clients.are_open)
    opened, began, used = server.rss_mb(), time.monotonic(), server.cpu_seconds()
    largest = _follow(server, clients, lambda: False)
    seconds, used = time.monotonic() - began, server.cpu_seconds() - used
    tally, saved = clients.tally(), clients.saved()
    times = [one.ms for one in saved if one.ms is not None]
    return {
        **{f"p{round(100 * share)}_ms": percentile(times, share) for share in (0.5, 0.95, 0.99)},
        "max_ms": percentile(times, 1),
        "requests_failed": tally["unanswered"] + len(tally["wrong"]),
        "went_wrong": tally["wrong"],
        "resent": tally["resent"],
        "timed": len(times),
        "seconds": round(seconds, 1),
        "cpu_ms_per_judgment": round(1000 * used / max(1, len(saved)), 1),
        "rss_mb_signing_in": signing_in,
        "rss_mb_sessions_open": opened,
        "rss_mb_largest_after": largest,
        "rss_mb": server.rss_mb(),
        "torch_loaded": server.has_torch(),
        "outgoing": server.outgoing,
    }


@contextmanager
def database_of(arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The store to serve: the one that was named, a PostgreSQL server that is thrown away, or a SQLite file."""
    if not arguments.postgres:
        yield arguments.database or str(folder / "annotations.db")
        return
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from postgres import Postgres, need_binaries

    with tempfile.TemporaryDirectory(prefix="pg-") as data:
        postgres = Postgres(need_binaries(), Path(data))
        postgres.initialise()
        postgres.start()
        try:
            postgres.administer("CREATE DATABASE annotation")
            yield postgres.url("annotation")
        finally:
            postgres.stop()


def bench(arguments: argparse.Namespace, folder: Path, database: str) -> dict[str, Any]:
    """One measurement from the empty store to the comparison."""
    sessions, asks = arguments.sessions, arguments.run is not None
    judgments = MEMORY_JUDGMENTS if arguments.memory else arguments.judgments
    thinks = 0.0 if arguments.memory else arguments.think_seconds
    names = prepare(database, people=sessions, items=sessions * (judgments + 1))
    options = ["--run", str(_copied(arguments.run, folder))] if asks else ["--pairs-only"]
    server = Served(folder, *options, f"database={database}")
    server.start()
    try:
        again = arguments.resend_every
        plan = Plan(server.url, names, PASSWORD, PROJECT, judgments, thinks, arguments.seed, again, ask=asks)
        clients = Clients(folder, plan)
        found = measure(server, clients)
    finally:
        server.stop()
    store = Store(database)
    compared = asdict(compare(store, clients.saved()))
    store.close()
    kind = "PostgreSQL" if "://" in database else "SQLite"
    return {**compared, **found, "database": kind, "sessions": sessions, "load_average": os.getloadavg()}


def _copied(run: Path, folder: Path) -> Path:
    """A copy of a run folder, so that nothing is written into the original."""
    return Path(shutil.copytree(run, folder / "run", ignore=shutil.ignore_patterns("annotation")))


def main(argv: Sequence[str]) -> int:
    """Measure; returns 1 if anything was lost, doubled or refused."""
    arguments = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="annotation-") as name, database_of(arguments, Path(name)) as database:
        found = bench(arguments, Path(name), database)
    for key, value in found.items():
        print(f"{key:22} {value}")
    print(json.dumps(found), flush=True)
    return 1 if any(found[key] for key in ("lost", "wrong", "doubled", "shared", "went_wrong")) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=32, help="annotators at the same time")
    parser.add_argument("--judgments", type=int, default=30, help="of each")
    parser.add_argument("--think-seconds", type=float, default=3.0, help="mean time before each, exponential")
    parser.add_argument("--resend-every", type=int, default=10, help="judgments of each, of which one is sent twice")
    parser.add_argument("--seed", type=int, default=0, help="of times and choices")
    parser.add_argument("--memory", action="store_true", help="measure memory; few judgments without a pause")
    parser.add_argument("--run", type=Path, help="with --memory: load the models of this run")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--database", help="SQLite file, or SQLAlchemy URL of an empty PostgreSQL database")
    where.add_argument("--postgres", action="store_true", help="on a PostgreSQL server that is thrown away")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
