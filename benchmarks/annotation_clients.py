"""Annotators who judge over HTTP as the page does: a process of its own, beside the server that it puts under load.

    python annotation_clients.py < plan.json > told.jsonl

Each signs in, opens the page, takes pairs from the queue and judges them, thinking in between. A judgment that was not
answered, since the server was killed, is looked at again once there is a server, with the cookie of before, and sent
again under the same id; the same pair has to be there on the same sides, or the judgment has to be known already.

It prints a line of JSON for each thing that is known to be saved, and one at the end with what went otherwise.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from annotation_ui.texts import UNEXPECTED

GRADES = ("significantly_better", "better", "slightly_better", "negligibly_better")
ANSWER = re.compile(r"answer-([ab])-of-(\d+)")
"""In each answer of the queue: its slot and its item."""
PATIENCE_SECONDS = 90.0
KEPT_SECONDS = 4.0
"""A connection that rested for longer is not used again: the server closes it after five seconds."""


class Unanswered(Exception):
    """Nobody knows whether it was saved: the server did not answer, or said that something went wrong."""


class Wrong(Exception):
    """The server did what it must not."""


@dataclass(frozen=True)
class Plan:
    """What the annotators do.

    Attributes:
        url: of the server.
        names: of their accounts.
        password: of all of them.
        project: they work on.
        judgments: of each.
        think_seconds: mean time before a judgment, drawn from an exponential distribution.
        seed: of times and choices.
        resend_every: every so many judgments, one is sent twice: now at the same time, now one after the other.
        ask: have each send one prompt of their own instead, and wait for its answers.
    """

    url: str
    names: list[str]
    password: str
    project: str
    judgments: int
    think_seconds: float
    seed: int
    resend_every: int = 10
    ask: bool = False


@dataclass(frozen=True)
class Saved:
    """A judgment that the server has acknowledged, in terms of what stood on the page.

    Attributes:
        name: whose.
        item: number of what was judged.
        submission_id: that it was sent with.
        left: slot of the answer on the left.
        chosen: slot of the better one.
        grade: by how much.
        ms: from sending to the complete answer; ``None`` if it took more than one attempt.
        known: it was not answered at first, and known when it was sent again.
    """

    name: str
    item: int
    submission_id: str
    left: str
    chosen: str
    grade: str
    ms: float | None
    known: bool = False


@dataclass
class Tally:
    """What happened to all annotators together.

    Attributes:
        resent: judgments that were sent twice on purpose.
        unanswered: requests that got no answer.
        repeated: judgments that were sent again since nobody knew; ``known``: how many of them were saved before.
        wrong: what must not happen.
    """

    resent: int = 0
    unanswered: int = 0
    repeated: int = 0
    known: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Shown:
    """A pair on the page: its comparison, and slot and item of the answer on each side."""

    comparison_id: str
    submission_id: str
    left: tuple[str, int]
    right: tuple[str, int]


class Annotator:
    """One annotator in one browser."""

    def __init__(self, plan: Plan, number: int, tally: Tally) -> None:
        self.plan, self.tally, self.name = plan, tally, plan.names[number]
        self.chance = random.Random(f"{plan.seed}/{number}")
        self.hash = f"session{number}"
        limits = httpx.Limits(keepalive_expiry=KEPT_SECONDS)
        self.http = httpx.AsyncClient(base_url=plan.url, limits=limits, timeout=PATIENCE_SECONDS, trust_env=False)
        self.view: dict[str, Any] = {}
        self.has: dict[str, str] = {}
        self.panes: list[str] = []

    # -- requests ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Sign in and open the page."""
        form = {"username": self.name, "password": self.plan.password}
        if (await self.http.post("/login", data=form)).status_code != 303 or (await self.http.get("/")).is_error:
            raise Wrong("cannot sign in")
        await self.act("view", project=self.plan.project)

    async def act(self, action: str, **values: Any) -> str:
        """Do something as the page does it, and take up the new view; returns the message."""
        body = {"data": [{"has": self.has, **values}], "session_hash": self.hash}
        try:
            response = await self.http.post(f"/gradio_api/run/{action}", json=body)
        except httpx.TransportError as error:
            self.tally.unanswered += 1
            raise Unanswered(repr(error)) from error
        if response.status_code >= 500:
            self.tally.unanswered += 1
            raise Unanswered(f"{response.status_code}")
        if response.status_code != 200:
            raise Wrong(f"{action}: {response.status_code} {response.text[:200]}")
        return self._take(action, response.json()["data"])

    def _take(self, action: str, parts: list[Any]) -> str:
        state, panes = parts[0], parts[2:4]
        if state["level"] == "error":
            if state["message"] == UNEXPECTED:
                self.tally.unanswered += 1
                raise Unanswered(UNEXPECTED)
            raise Wrong(f"{action}: {state['message']}")
        self.view, self.has = state["view"], state["has"]
        if all(isinstance(pane, str) for pane in panes):
            self.panes = panes
        return str(state["message"])

    def shown(self) -> Shown:
        """What is to be judged."""
        if self.view["phase"] != "open":
            raise Wrong(f"there is nothing to judge in phase {self.view['phase']}")
        left, right = (slot_and_item(pane) for pane in self.panes)
        return Shown(self.view["comparison_id"], self.view["submission_id"], left, right)

    async def until_answered(self, action: str, **values: Any) -> str:
        """Do something that can be done twice, again and again until there is a server that answers."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with suppress(Unanswered):
                return await self.act(action, **values)
            await asyncio.sleep(0.05)
        raise Wrong(f"{action}: no answer for {PATIENCE_SECONDS:g} seconds")

    # -- work --------------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Judge as many as planned, or ask."""
        if self.plan.ask:
            return await self.ask()
        for number in range(self.plan.judgments):
            if self.view["phase"] != "open":
                await self.until_answered("view", project=self.plan.project)
            if self.view["phase"] != "open":
                await self.think()  # nobody begins at the very moment of everybody else
                await self.until_answered("fetch", project=self.plan.project)
            await self.think()
            await self.judge(number)

    async def think(self) -> None:
        """Do nothing for as long as people do."""
        if self.plan.think_seconds:
            await asyncio.sleep(self.chance.expovariate(1 / self.plan.think_seconds))

    async def ask(self) -> None:
        """Send a prompt and follow its answers to their end."""
        text = f"What is {self.chance.randrange(100)} plus one?"
        await self.act("ask", project=self.plan.project, text=text, comparison_id=self.view["comparison_id"])
        while self.view["phase"] == "generating":
            followed = {"project": self.plan.project, "comparison_id": self.view["comparison_id"]}
            body = {"data": [followed], "session_hash": self.hash}
            event = (await self.http.post("/gradio_api/call/watch", json=body)).json()["event_id"]
            await self.http.get(f"/gradio_api/call/watch/{event}")
            await self.act("view", project=self.plan.project)
        if self.view["phase"] != "open":
            raise Wrong(f"a prompt ended in phase {self.view['phase']}")

    async def judge(self, number: int) -> None:
        """Judge what is on the desk, and report it once it is known to be saved."""
        shown, option = self.shown(), self.chance.randint(1, 8)
        given = {"comparison_id": shown.comparison_id, "submission_id": shown.submission_id, "option": option}
        twice = (number + 1) % self.plan.resend_every == 0
        at_once = twice and (number + 1) // self.plan.resend_every % 2 == 1
        ms, known = None, False
        try:
            ms = await (self._twice_at_once(given) if at_once else self._save(given))
        except Unanswered:
            known = await self._again(shown, given)
        _print(asdict(self._saved(shown, option, ms, known)))
        if twice:
            self.tally.resent += 1
        if twice and not at_once and "Already saved" not in await self.until_answered("submit", **given):
            raise Wrong("what was sent twice was saved twice")

    async def _save(self, given: dict[str, Any]) -> float:
        began = time.perf_counter()
        message = await self.act("submit", **given)
        took = 1000 * (time.perf_counter() - began)
        if "Saved" not in message:
            raise Wrong(f"a new judgment was answered with: {message}")
        return took

    async def _twice_at_once(self, given: dict[str, Any]) -> float | None:
        """Send it twice at the same time: one of the two is saved, the other one knows of it. Returns no time."""
        answers = await asyncio.gather(*[self.act("submit", **given) for _ in range(2)], return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        if sorted(str(answer).split()[0] for answer in answers) != ["Already", "Saved"]:
            raise Wrong(f"what was sent twice at the same time was answered with {answers}")
        return None

    async def _again(self, shown: Shown, given: dict[str, Any]) -> bool:
        """After no answer: see that all is as it was, or saved, and send the same again.

        Returns whether it was saved before.
        """
        self.tally.repeated += 1
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            self.has = {}
            await self.until_answered("view", project=self.plan.project)
            here = self.view["comparison_id"] == shown.comparison_id
            if here and self.shown() != shown:
                raise Wrong(f"after a restart, {shown} had become {self.shown()}")
            with suppress(Unanswered):
                message = await self.act("submit", **given)
                known = "Already saved" in message
                if known == here:
                    raise Wrong(f"it was {'still' if here else 'no longer'} to be judged, and answered with: {message}")
                self.tally.known += known
                return known
        raise Wrong(f"{shown} could not be saved within {PATIENCE_SECONDS:g} seconds")

    def _saved(self, shown: Shown, option: int, ms: float | None, known: bool) -> Saved:
        chosen = shown.left if option <= 4 else shown.right
        grade = GRADES[option - 1] if option <= 4 else GRADES[8 - option]
        return Saved(self.name, chosen[1], shown.submission_id, shown.left[0], chosen[0], grade, ms, known)


def slot_and_item(pane: str) -> tuple[str, int]:
    """Slot and item that an answer of the queue names."""
    found = ANSWER.search(pane)
    if found is None:
        raise Wrong(f"this is no answer of the queue: {pane[:200]}")
    return found[1], int(found[2])


def _print(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


async def run(plan: Plan) -> Tally:
    """Have all of them sign in, then all of them work."""
    tally = Tally()
    everyone = [Annotator(plan, number, tally) for number in range(len(plan.names))]

    async def noting(who: Annotator, doing: Any) -> None:
        try:
            await doing
        except (Wrong, Unanswered, httpx.HTTPError, ValueError, KeyError) as error:
            tally.wrong.append(f"{who.name}: {type(error).__name__}: {error}")

    await asyncio.gather(*[noting(who, who.open()) for who in everyone])
    _print({"open": len(everyone) - len(tally.wrong)})
    if not tally.wrong:
        await asyncio.gather(*[noting(who, who.work()) for who in everyone])
    await asyncio.gather(*[who.http.aclose() for who in everyone])
    return tally


if __name__ == "__main__":
    _print({"end": asdict(asyncio.run(run(Plan(**json.load(sys.stdin)))))})
