"""People stand in for the simulated annotators: their pairs are served, and waited for. Not a stage itself.

The page is kept open for them by a process of its own while the store is looked at.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import IO

from alignment.data.records import Dimension, Part, Prompt
from alignment.errors import UserError
from alignment.files import read_json, write_json
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from annotation_ui.app_settings import AppSettings, load_settings
from annotation_ui.desk.training_and_test import keep_projects
from annotation_ui.exchange.rounds import (
    Goal,
    RoundJudgments,
    RoundProgress,
    Standing,
    collected,
    has_batch,
    put_away,
    take_up,
)
from annotation_ui.store.database import Store
from annotation_ui.store.items import NewItem
from annotation_ui.store.projects import project_about
from stages.annotate.people_pairs import BOTH, goals_of, made_of, run_id, sample_pairs
from stages.door.progress_and_exit import progress, say


def judged_by_people(
    recipe: Recipe,
    folder: RunFolder,
    round_number: int,
    prompts: Mapping[Part, Sequence[Prompt]],
    *,
    prompt_files: Sequence[Path],
    parts: Collection[Part] = BOTH,
) -> RoundJudgments:
    """Have people judge a round's pairs; returns once enough are judged, with exactly those judgments.

    Args:
        recipe: how many judgments of each kind, how the answers are sampled, and the app's settings.
        folder: the run; the app's store lies in it unless the settings name a database.
        round_number: of the round, from 1.
        prompts: the prompts of each part.
        prompt_files: what they were read from.
        parts: what pairs are wanted for.

    Raises:
        UserError: no project is about what is wanted, or no judgment can be had of a kind that is.
    """
    settings = load_settings(recipe.annotate.ui_settings, [f"port={recipe.annotate.ui_port}"])
    settings = settings.model_copy(update={"variants": None})
    goals = goals_of(recipe, parts)
    with closing(Store(settings.database or folder.root / "annotation" / "annotations.db")) as store:
        keep_projects(store, settings, change=not store.is_served())
        projects = _projects(store, settings, goals)
        round_name = f"round-{round_number}-{run_id(folder)}"
        made = made_of(recipe, folder, round_number, projects, prompt_files, parts=parts)
        batch = f"{round_name}-{made}"
        sampled = folder.root / "annotation" / f"{batch}.json"
        items: dict[str, list[NewItem]] = {}
        if not (has_batch(store, batch) and sampled.is_file()):
            items, left_out = sample_pairs(recipe, folder, round_number, batch, prompts, projects)
            write_json(sampled, left_out)
        take_up(store, batch, round_name, items)
        with folder.let_go():  # for hours, perhaps
            wait_for_people(RoundProgress(store, batch, goals), settings)
        if made_of(recipe, folder, round_number, projects, prompt_files, parts=parts) != made:
            raise UserError(
                f"the policy that answered, or the prompts, are others than when {folder.root} gave people its pairs. "
                "Their judgments are kept: put back what was changed to use them, or run the command again for pairs "
                "of what is there now."
            )
        put_away(store, batch)
        return collected(store, batch, read_json(sampled))


def _projects(store: Store, settings: AppSettings, goals: Sequence[Goal]) -> dict[Dimension, str]:
    """In which project pairs about each dimension are judged."""
    names = [project.name for project in settings.projects]
    with store.read() as connection:
        return {each.dimension: project_about(connection, names, each.dimension).name for each in goals}


POLL_SECONDS = 1.0
GRACE_SECONDS = 60.0
"""For so long, somebody else's server that was stopped may come back before this process starts one."""
STOP_SECONDS = 20.0
"""A server that was asked to stop gets so long for what its browsers wait for."""


@contextmanager
def serving(store: Store, settings: AppSettings) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Have the app serve a store in a process of its own while the block runs; gives the address, and that process.

    Raises:
        UserError: as the app itself: the port is taken, say.
    """
    own = settings.model_copy(update={"database": store.name})
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        # JSON is YAML; the file can be read by this user only, since the address of a database may hold a password
        file.write(own.model_dump_json())
        file.flush()
        # The app stops when its standard input is closed, which this process cannot fail to do, even if it is killed.
        # A session of its own, so that Ctrl-C ends this process first.
        command = [sys.executable, "-m", "annotation_ui", "serve", "--config", file.name]
        server = subprocess.Popen(
            [*command, "--pairs-only", "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert server.stdin is not None and server.stderr is not None, "both are pipes"
            url = _address(server.stderr)
            Thread(target=_pass_on, args=(server.stderr,), daemon=True).start()
            yield url, server
        finally:
            _stop(server)


def _address(lines: IO[str]) -> str:
    """The address that a server says it has; raise ``UserError`` with what it says instead."""
    said: list[str] = []
    for line in lines:
        if line.startswith("open "):
            next(lines)  # that Ctrl-C stops it, which is true of this process
            return line.split()[1]
        said.append(line.removeprefix("error: ").strip())
    raise UserError(" ".join(said[-1:]) or "the annotation app ended before it could be opened")


def _pass_on(lines: IO[str]) -> None:
    """Say what a server says later."""
    for line in lines:
        say(line.rstrip())


def _stop(server: subprocess.Popen[str]) -> None:
    assert server.stdin is not None, "it is a pipe"
    server.stdin.close()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


class Page:
    """Where people judge: at the server of whoever has the store, else at one of our own, which ends with the block."""

    def __init__(self, store: Store, settings: AppSettings) -> None:
        self._store, self._settings = store, settings
        self._ours = ExitStack()
        self._server: subprocess.Popen[str] | None = None
        self._told = ""
        self._last_seen = -math.inf

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()

    def keep_open(self) -> None:
        """See to it that somebody serves the store, and say where whenever that is new.

        Raises:
            UserError: our own server has ended, so that nobody could judge anything.
        """
        if self._server is not None:
            if (code := self._server.poll()) is not None:
                raise UserError(
                    f"the server of the annotation page ended by itself (exit code {code}). What was judged is kept; "
                    "run the same command again to go on."
                )
            return
        if self._store.is_served():
            self._last_seen = time.monotonic()
            self._tell(self._store.server_url() or "the server that has this store")
        elif time.monotonic() - self._last_seen >= GRACE_SECONDS:
            url, self._server = self._ours.enter_context(serving(self._store, self._settings))
            self._tell(url)

    def _tell(self, url: str) -> None:
        if url != self._told:
            say(f"waiting for people: open {url}")
        self._told = url


def wait_for_people(round_progress: RoundProgress, settings: AppSettings) -> None:
    """Keep the page open until there is enough, or nothing left that somebody could judge.

    Raises:
        UserError: there is no judgment at all of a kind that is wanted, and nothing left to judge.
    """
    total = sum(each.judgments for each in round_progress.goals)
    with Page(round_progress.store, settings) as page, progress("annotate: judged") as on_step:
        while True:
            page.keep_open()
            found = round_progress.look()
            on_step(sum(min(each.judged, each.goal.judgments) for each in found), total, {})
            if all(each.is_over for each in found):
                break
            time.sleep(POLL_SECONDS)
    for each in found:
        if each.judged < each.goal.judgments:
            _accept_shortage(each)


def _accept_shortage(found: Standing) -> None:
    """Say that there are fewer judgments than wanted; raise ``UserError`` where there is none."""
    what = f"{found.goal.dimension}, {found.goal.part}"
    if not found.judged:
        raise UserError(
            f"{what}: no judgment counts, and no pair is left to judge. What was said is kept. To go on, let somebody "
            "else judge these pairs (python -m annotation_ui users add NAME) or draw others (another seed= or "
            "annotate.temperatures=), and run the same command again."
        )
    say(f"{what}: {found.judged} of {found.goal.judgments} judged, and no pair is left")
