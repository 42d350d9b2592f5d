"""``annotate.source=ui``: the stage serves its pairs, waits, and reward models train on exactly what people said."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from stage_fixtures import reduced_recipe

from alignment.data.records import GRADES, Comparison, read_jsonl
from alignment.recipe import Recipe
from alignment.run import RunFolder
from annotation_ui.presampling import choose_prompts
from annotation_ui.schema import comparison, item
from annotation_ui.session import meaning_of
from annotation_ui.store import Store
from stages import annotate, base, people, reward, sft

SECONDS = 60.0
COUNTS = ("helpfulness_pairs=12", "safety_pairs=10", "heldout_helpfulness_pairs=4", "heldout_safety_pairs=4")
WANTED = 12 + 10 + 4 + 4


@pytest.fixture(scope="module")
def recipe(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run whose SFT model is there."""
    counts = [f"annotate.{count}" for count in COUNTS]
    made = reduced_recipe(files, tmp_path_factory.mktemp("run"), "annotate.source=ui", "annotate.ui_port=0", *counts)
    base.main(made)
    sft.main(made)
    return made


class Judge:
    """A person's browser, as far as the server can tell."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=re.sub(r"/login.*", "", url), timeout=30)
        self.client.get(url).raise_for_status()

    def do(self, action: str, **form: Any) -> dict[str, Any]:
        """One action; gives the state of the page."""
        answer = self.client.post(f"/gradio_api/run/{action}", json={"data": [form]})
        answer.raise_for_status()
        state: dict[str, Any] = answer.json()["data"][0]
        return state

    def judge(self, project: str, option: int) -> bool:
        """Fetch if there is nothing on the desk, and judge; ``False`` once there is nothing more."""
        view = self.do("view", project=project)["view"]
        if view["phase"] == "warning":
            view = self.do("accept", project=project)["view"]
        if view["phase"] != "open":
            view = self.do("fetch", project=project)["view"]
        if view["phase"] != "open":
            return False
        bins = ("both_safe", "preferred_safe_other_unsafe")
        safety = bins[option % 2] if project == "safety" else None
        ids = {key: view[key] for key in ("comparison_id", "submission_id")}
        state = self.do("submit", **ids, option=option, safety=safety, active_ms=1000)
        assert state["level"] == "saved", state
        return True


@contextmanager
def waiting(recipe: Recipe) -> Iterator[tuple[threading.Thread, Store, list[Any]]]:
    """The stage in a thread; gives what it returns or raises in a list."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(annotate.main(recipe))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    store = Store(Path(recipe.run_dir) / "annotation" / "annotations.db")
    try:
        yield thread, store, outcome
    finally:
        thread.join(SECONDS)


def until(condition: Callable[[], Any]) -> Any:
    """What a condition gives once it holds."""
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the stage says to the terminal."""
    lines: list[str] = []
    monkeypatch.setattr(people, "say", lines.append)
    monkeypatch.setattr(people, "POLL_SECONDS", 0.05)
    return lines


def test_the_stage_pauses_with_the_address_and_trains_on_exactly_what_people_said(
    recipe: Recipe, said: list[str]
) -> None:
    with waiting(recipe) as (thread, store, outcome):
        url = until(lambda: next((line.split()[-1] for line in said if "open" in line), None))
        judge = Judge(url)
        options = iter(range(1000))
        while judge.judge("helpfulness", 1 + next(options) % 8):
            pass
        assert thread.is_alive(), "it went on before the safety project was judged"
        with suppress(httpx.TransportError):  # once enough are there, the stage stops its server
            while judge.judge("safety", 1 + next(options) % 8):
                pass
        thread.join(SECONDS)
    assert isinstance(outcome[0], dict), outcome
    folder = Path(recipe.run_dir) / "round-1" / "annotate"
    written = {
        part: read_jsonl(folder / file, Comparison)[0]
        for part, file in (("train", "comparisons.jsonl"), ("heldout", "heldout_comparisons.jsonl"))
    }
    with store.read() as connection:
        judged = set(connection.execute(select(comparison.c.id).where(comparison.c.state == "judged")).scalars())
    found = {record.collected.comparison_id for records in written.values() for record in records if record.collected}
    assert found == judged
    result = reward.main(recipe)
    trained = result["models"]["helpfulness"]["n_train"], result["models"]["safety"]["n_train"]
    by_dimension = {d: sum(r.dimension == d for r in written["train"]) for d in ("helpfulness", "safety")}
    assert trained[0] == by_dimension["helpfulness"] >= 12
    assert by_dimension["safety"] >= 10
    assert {record.grade for record in written["train"]} == set(GRADES)


def test_sides_in_the_file_are_the_sides_that_were_chosen(recipe: Recipe) -> None:
    """Options came in turn, 1 to 8: half of the choices were on the left."""
    assert [meaning_of(option)[0] for option in range(1, 9)] == ["left"] * 4 + ["right"] * 4
    folder = Path(recipe.run_dir) / "round-1" / "annotate"
    rows = [json.loads(line) for line in (folder / "comparisons.jsonl").read_text(encoding="utf-8").splitlines()]
    left = [row["collected"]["chosen_was_left"] for row in rows]
    assert abs(sum(left) - len(left) / 2) <= 4


def test_the_same_round_again_goes_on_from_what_is_there(recipe: Recipe, said: list[str]) -> None:
    """A pipeline that was killed while waiting, or a stage that is run again: nobody judges anything twice."""
    with waiting(recipe.model_copy(update={"overwrite": True})) as (thread, store, outcome):
        thread.join(SECONDS)
    assert isinstance(outcome[0], dict), outcome
    with store.read() as connection:
        items = connection.execute(select(func.count()).select_from(item).where(item.c.source == "queue")).scalar_one()
    assert items <= round(WANTED * 1.1) + 8
    assert RunFolder(recipe.run_dir).finished("annotate", 1)


def test_queues_are_filled_by_tag() -> None:
    import random

    from alignment.data.records import Message, Prompt

    def prompts(tag: Any, count: int) -> list[Prompt]:
        return [
            Prompt(id=f"{tag}-{n}", messages=(Message(role="user", content=f"{tag} {n}"),), dimension=tag)
            for n in range(count)
        ]

    pool = prompts("helpfulness", 5) + prompts("safety", 7)
    chosen = choose_prompts(pool, 20, "safety", rng=random.Random(0))
    tags = [prompt.dimension for prompt in chosen]
    assert (tags.count("safety"), tags.count("helpfulness")) == (12, 8)
    assert len({prompt.id for prompt in chosen if prompt.dimension == "safety"}) == 7, (
        "each once before one comes again"
    )
    assert {p.dimension for p in choose_prompts(pool, 9, "helpfulness", rng=random.Random(0))} == {"helpfulness"}
