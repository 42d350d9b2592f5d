"""The server that the benchmark of the annotation app puts under load, and the store that it serves.

The server is a process of its own, started from the command line as a user would, that may be killed at any moment and
started again at the same address. Its store holds pairs that were sampled before; each answer says of which slot and
item it is, so that what stands on a page can be compared with what is in the store.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from alignment.data.records import Message
from annotation_ui.app_settings import load_settings
from annotation_ui.desk.training_and_test import keep_projects
from annotation_ui.store.accounts import add_account
from annotation_ui.store.database import Store
from annotation_ui.store.items import NewItem, add_items
from annotation_ui.store.pairs import NewAnswer, VariantInfo
from annotation_ui.store.projects import project_named
from annotation_ui.vocabulary import Slot

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PROJECT = "helpfulness"
PASSWORD = "annotate under load"
NO_TEST = "qualification.required=false"
VARIANTS: dict[Slot, VariantInfo] = {"a": VariantInfo("one"), "b": VariantInfo("other")}
START_SECONDS = 60.0
MIB = 2**20
PROMPT = """How would you explain to a child of ten why the sky is blue at noon and red in the evening? (question {})"""
ANSWER = """This is answer-{slot}-of-{item}. Sunlight is a mixture of **all colours**; air does not treat them alike:

1. Blue light is scattered by the molecules of the air far more than red light is, since its waves are shorter.
2. At noon, light comes to us through little air. The blue that is scattered reaches the eye from all sides.
3. In the evening, light has come a long way through air, and *most of the blue is gone from it*.

```python
def scattered(wavelength_nm: float) -> float:
    return (400 / wavelength_nm) ** 4  # Rayleigh: violet is scattered about nine times as much as red
```

| colour | wavelength | scattered |
|--------|-----------:|----------:|
| violet |     400 nm |       1.0 |
| red    |     700 nm |       0.1 |

If you shine a torch through a glass of water with a drop of milk in it, you can see the same at home. {more}
"""
MORE = {"a": "Look at it from the side, and then straight on.", "b": "It works best in a dark room, with a tall glass."}


# -- the store --------------------------------------------------------------------------------------------------------


def prepare(database: str, *, people: int, items: int) -> list[str]:
    """Fill a store with accounts and pairs to be judged; returns the names of the accounts."""
    names = [f"annotator-{number}" for number in range(people)]
    store = Store(database)
    keep_projects(store, load_settings(None, [NO_TEST]))
    for name in names:
        add_account(store, name, "annotator", PASSWORD)
    with store.write() as connection:
        add_items(connection, project_named(connection, PROJECT), [new_item(number) for number in range(items)])
    store.close()
    return names


def new_item(number: int) -> NewItem:
    """An item with answers as long as real ones, a thousand characters with a list, a table and some code."""
    answers = {
        slot: NewAnswer(ANSWER.format(slot=slot, item=number, more=MORE[slot]), info, finish_reason="stop")
        for slot, info in VARIANTS.items()
    }
    return NewItem(f"{number:06}", (Message(role="user", content=PROMPT.format(number)),), answers=answers)


# -- the server -------------------------------------------------------------------------------------------------------


class Served:
    """A server process.

    Args:
        folder: for what it prints, and for what it sends beyond this machine.
        arguments: of ``python -m annotation_ui``.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.arguments, self.port = folder, arguments, 0
        self.log, self.outgoing_log = folder / "server.log", folder / "outgoing.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is; the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def outgoing(self) -> list[str]:
        """What it tried to send beyond this machine."""
        return self.outgoing_log.read_text(encoding="utf-8").splitlines() if self.outgoing_log.exists() else []

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        command = [sys.executable, "-m", "annotation_ui", *self.arguments, f"port={self.port}", NO_TEST]
        watched = {"PYTHONPATH": str(HERE / "outgoing"), "OUTGOING_LOG": str(self.outgoing_log)}
        with self.log.open("wb") as log:
            environment = {**os.environ, **watched}
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill_nine()
                raise RuntimeError(f"the server does not start:\n{self.said()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        listens = re.search(r"^open http://[\d.]+:(\d+)", self.said(), re.MULTILINE)
        if listens is None:
            return False
        self.port = int(listens[1])
        try:
            return httpx.get(f"{self.url}/login", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def said(self) -> str:
        """What it printed since its last start."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill_nine(self) -> None:
        """Kill it at once, whatever it is doing."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it in good order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=30)
            self.process = None

    # -- what it uses ------------------------------------------------------------------------------------------------

    def _running(self) -> psutil.Process:
        assert self.process is not None
        return psutil.Process(self.process.pid)

    def rss_mb(self) -> float:
        """Memory that it holds now, with its children, in MiB."""
        one = self._running()
        return round(sum(each.memory_info().rss for each in (one, *one.children(recursive=True))) / MIB, 1)

    def cpu_seconds(self) -> float:
        """Processor time that it has used since its start."""
        times = self._running().cpu_times()
        return times.user + times.system

    def has_torch(self) -> bool:
        """Whether the libraries of torch are in its memory."""
        return any("libtorch" in Path(mapped.path).name for mapped in self._running().memory_maps())
