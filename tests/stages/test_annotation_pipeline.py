"""``annotate.source=ui``: the stage serves its pairs, waits, and reward models train on exactly what people said."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from annotation_fixtures import Person, add_person, app_settings, new_item
from sqlalchemy import func, select, update
from stage_fixtures import reduced_recipe

from alignment.data.jsonl_and_raw_rows import read_jsonl
from alignment.data.records import GRADES, Comparison
from alignment.errors import UserError
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from annotation_ui.app_settings import AppSettings
from annotation_ui.desk.desk import Desk
from annotation_ui.exchange import rounds
from annotation_ui.exchange.rounds import PRIORITY
from annotation_ui.store import accounts
from annotation_ui.store.database import Store
from annotation_ui.store.items import NewItem
from annotation_ui.store.tables import annotator, comparison, item, project
from annotation_ui.vocabulary import UNSAFE_PREFERRED, meaning_of
from stages.annotate import collect as annotate
from stages.annotate import people, people_pairs
from stages.annotate.prompt_queues import prompts_for_people
from stages.reward import train_reward_models

pytestmark = pytest.mark.integration

SECONDS = 300.0
COUNTS = ("helpfulness_pairs=12", "safety_pairs=10", "heldout_helpfulness_pairs=4", "heldout_safety_pairs=4")
WANTED = 12 + 10 + 4 + 4


@pytest.fixture(scope="module")
def recipe(files: dict[str, str], sft_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run whose SFT model is there."""
    run = shutil.copytree(sft_run, tmp_path_factory.mktemp("people") / "run")
    counts = [f"annotate.{count}" for count in COUNTS]
    return reduced_recipe(files, run, "annotate.source=ui", "annotate.ui_port=0", *counts)


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
            outcome.append(annotate.run(recipe))
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


def said_by_the_stage(patch: pytest.MonkeyPatch) -> list[str]:
    """What the stage says to the terminal from now on; it looks for judgments more often, too."""
    lines: list[str] = []
    patch.setattr(people, "say", lines.append)
    patch.setattr(people, "POLL_SECONDS", 0.05)
    return lines


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the stage says to the terminal."""
    return said_by_the_stage(monkeypatch)


@pytest.fixture(scope="module")
def judged_round(recipe: Recipe) -> tuple[Store, dict[str, Any]]:
    """A round that people have judged, first one project and then the other: its store, and what the stage returned."""
    with pytest.MonkeyPatch.context() as patch:
        lines = said_by_the_stage(patch)
        with waiting(recipe) as (thread, store, outcome):
            url = until(lambda: next((line.split()[-1] for line in lines if "open" in line), None))
            with RunFolder(recipe.run_dir).lock():
                pass  # while people are waited for, other stages may run
            judge = Judge(url)
            options = iter(range(1000))
            while judge.judge("helpfulness", 1 + next(options) % 8):
                pass
            assert thread.is_alive(), "it went on before the safety project was judged"
            with suppress(httpx.HTTPError):  # once enough are there, the stage stops its server
                while judge.judge("safety", 1 + next(options) % 8):
                    pass
            thread.join(SECONDS)
    assert isinstance(outcome[0], dict), outcome
    return store, outcome[0]


def test_the_stage_pauses_and_trains_on_exactly_what_people_said(
    recipe: Recipe, judged_round: tuple[Store, dict[str, Any]]
) -> None:
    store, made = judged_round
    folder = Path(recipe.run_dir) / "round-1" / "annotate"
    written = {
        part: read_jsonl(folder / file, Comparison)[0]
        for part, file in (("train", "comparisons.jsonl"), ("heldout", "heldout_comparisons.jsonl"))
    }
    with store.read() as connection:
        of_people = set(connection.execute(select(comparison.c.id).where(comparison.c.state == "judged")).scalars())
    found = {record.collected.comparison_id for records in written.values() for record in records if record.collected}
    assert found == of_people
    with store.read() as connection:
        queued = connection.execute(select(item).where(item.c.source == "queue")).all()
    assert {(row.priority, row.overlap) for row in queued} == {(PRIORITY, 0)}  # first of all, and gone at the end
    left_out = made["left_out"]
    unusable = [left_out.get(f"{part}answers equal or empty", 0) for part in ("", "held-out pairs, ")]
    assert sum(unusable) == 14 + 12 + 5 + 5 - len(queued)
    result = train_reward_models.run(recipe)
    trained = result["models"]["helpfulness"]["n_train"], result["models"]["safety"]["n_train"]
    by_dimension = {d: sum(r.dimension == d for r in written["train"]) for d in ("helpfulness", "safety")}
    assert trained[0] == by_dimension["helpfulness"] >= 12
    assert by_dimension["safety"] >= 10
    assert {record.grade for record in written["train"]} == set(GRADES)


@pytest.mark.usefixtures("judged_round")
def test_sides_in_the_file_are_the_sides_that_were_chosen(recipe: Recipe) -> None:
    """Options came in turn, 1 to 8: half of the choices were on the left."""
    assert [meaning_of(option)[0] for option in range(1, 9)] == ["left"] * 4 + ["right"] * 4
    folder = Path(recipe.run_dir) / "round-1" / "annotate"
    rows = [json.loads(line) for line in (folder / "comparisons.jsonl").read_text(encoding="utf-8").splitlines()]
    left = [row["collected"]["chosen_was_left"] for row in rows]
    assert abs(sum(left) - len(left) / 2) <= 4


@pytest.mark.usefixtures("judged_round")
def test_the_same_round_again_goes_on_from_what_is_there(recipe: Recipe, said: list[str]) -> None:
    """A pipeline that was killed while waiting, or a stage that is run again: nobody judges anything twice."""
    with waiting(recipe.model_copy(update={"overwrite": True})) as (thread, store, outcome):
        thread.join(SECONDS)
    assert isinstance(outcome[0], dict), outcome
    with store.read() as connection:
        items = connection.execute(select(func.count()).select_from(item).where(item.c.source == "queue")).scalar_one()
    assert items <= round(WANTED * 1.1) + 8
    assert RunFolder(recipe.run_dir).finished("annotate", 1)


# -- without a model and a browser ------------------------------------------------------------------------------------


class Room:
    """Where rounds are judged at once, by somebody who does as told, in a store of its own that may serve more runs.

    Attributes:
        says: what to do with each next pair: an option, or ``None`` to skip it.
        sampled: the batches that were sampled.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file, self.database = folder / "settings.yaml", folder / "shared.db"
        self.write()
        self.says: Iterator[int | None] = itertools.repeat(1)
        self.safety = "both_safe"
        self.sampled: list[str] = []
        monkeypatch.setattr(people, "sample_pairs", self._sample)
        monkeypatch.setattr(people, "Page", self._page)

    def write(self, **changes: Any) -> None:
        """Settings with a project for each dimension."""
        names = ("helpfulness", "safety")
        both = {name: {"title": name, "dimension": name, "ask_safety": name == "safety", **changes} for name in names}
        settings = {"database": str(self.database), "projects": both, "qualification": {"required": False}}
        self.file.write_text(json.dumps(settings))

    def recipe(self, recipe: Recipe, **changes: Any) -> Recipe:
        """A recipe that is judged here: one pair of each kind, or as it says."""
        counts = {f"{part}{name}_pairs": 1 for part in ("", "heldout_") for name in ("helpfulness", "safety")}
        annotate = recipe.annotate.model_copy(update={**counts, "ui_settings": str(self.file), **changes})
        return recipe.model_copy(update={"annotate": annotate, "overwrite": True})

    @property
    def store(self) -> Store:
        return Store(self.database)

    def _sample(self, recipe: Recipe, folder: Any, number: int, batch: str, prompts: Any, projects: Any) -> Any:
        self.sampled.append(batch)
        items: dict[str, list[NewItem]] = {}
        for goal in people_pairs.goals_of(recipe):
            made = [
                new_item(f"{batch}/{goal.part}/{n}", answered=True, batch=batch, part=goal.part)
                for n in range(goal.judgments + 1)
            ]
            items.setdefault(projects[goal.dimension], []).extend(made)
        return items, Counter({"answers equal or empty": 2})

    @contextmanager
    def _page(self, store: Store, settings: AppSettings) -> Iterator[Any]:
        with store.read() as connection:
            known = {row.username: row.id for row in connection.execute(select(annotator))}
        account = accounts.Account(known["ada"], "ada", "annotator") if "ada" in known else add_person(store, "ada")
        for each in settings.projects:
            person = Person(cast(Any, SimpleNamespace(desk=Desk(store, settings))), account, each.name)
            self._work(person, self.safety if each.ask_safety else None)
        yield SimpleNamespace(keep_open=lambda: None)

    def _work(self, person: Person, safety: Any) -> None:
        if person.view().phase == "warning":
            person.accept()
        for option in self.says:
            view = person.view()
            if view.phase != "open" and person.fetch().phase != "open":
                return
            if option is None:
                person.skip()
            else:
                person.judge(option, safety=safety)


@pytest.fixture
def room(said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(tmp_path, monkeypatch)


def judged(room: Room, recipe: Recipe, **changes: Any) -> rounds.RoundJudgments:
    return people.judged_by_people(room.recipe(recipe, **changes), RunFolder(recipe.run_dir), 1, {}, prompt_files=[])


def ids(found: rounds.RoundJudgments) -> set[str]:
    return {record.id for records in found.comparisons.values() for record in records}


def test_settings_that_are_put_back_are_judged_no_further_than_they_were(recipe: Recipe, room: Room) -> None:
    """Stopped half-way, run with other settings, and with the old ones again: what is missing is waited for."""
    room.says = iter([1, 1])
    with pytest.raises(UserError, match=r"safety, train: no judgment counts.* users add NAME.* same command"):
        stopped(room, recipe)
    room.says = itertools.repeat(1)
    other = judged(room, recipe, max_new_tokens=7)
    assert len(ids(other)) == 8
    again = judged(room, recipe)
    assert len(ids(again)) == 8 and not ids(again) & ids(other)
    assert len(room.sampled) == 2
    assert all(re.fullmatch(r"round-1-[0-9a-f]{8}-[0-9a-f]{8}", batch) for batch in room.sampled)
    assert again.left_out == {"answers equal or empty": 2}  # as it was when they were sampled


def stopped(room: Room, recipe: Recipe) -> None:
    """A round in which somebody judges a few pairs, and everybody has gone for good."""
    with room_without_waiting():
        judged(room, recipe)


@contextmanager
def room_without_waiting() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "_waiting", lambda *given: Counter())
        yield


def test_nobody_having_judged_is_no_end(recipe: Recipe, room: Room) -> None:
    """All are skipped; somebody new is enough to go on."""
    room.says = itertools.repeat(None)
    with pytest.raises(UserError, match="helpfulness, train: no judgment counts, and no pair is left"):
        judged(room, recipe)
    with room.store.write() as connection:
        connection.execute(update(annotator).values(username="ben"))
    room.says = itertools.repeat(2)
    assert len(ids(judged(room, recipe))) == 8
    assert len(room.sampled) == 1


def test_two_runs_in_one_database_do_not_meet(recipe: Recipe, room: Room, tmp_path: Path) -> None:
    """Equal in all but their folders: each waits for its own pairs, and takes none of the other's off the queue."""
    twin = recipe.model_copy(update={"run_dir": str(tmp_path / "twin")})
    shutil.copytree(recipe.run_dir, twin.run_dir, ignore=shutil.ignore_patterns("annotation"))
    room.says = iter([1])
    with pytest.raises(UserError):
        stopped(room, recipe)
    room.says = itertools.repeat(1)
    theirs = judged(room, twin)
    with room.store.read() as connection:
        left = connection.execute(select(func.sum(item.c.remaining)).where(item.c.overlap > 0)).scalar_one()
    assert left == 0  # whoever works takes the other run's pairs, too
    ours = judged(room, recipe)
    assert (len(ids(ours)), len(ids(theirs)), len(ids(ours) & ids(theirs))) == (8, 8, 0)
    assert len(set(room.sampled)) == 2


def test_what_was_said_and_is_not_taken_is_counted(recipe: Recipe, room: Room) -> None:
    room.safety = UNSAFE_PREFERRED
    with pytest.raises(UserError, match="safety, train: no judgment counts"):
        judged(room, recipe)
    found = judged(room, recipe, safety_pairs=0, heldout_safety_pairs=0)
    assert found.left_out == {"answers equal or empty": 2}
    room.safety = "both_safe"
    room.write(overlap=2)
    with room.store.write() as connection:
        connection.execute(update(annotator).values(username="ben"))
    found = judged(room, recipe)
    assert found.left_out == {
        "answers equal or empty": 2,
        "prefers the unsafe answer": 2,
        "held-out pairs, prefers the unsafe answer": 2,
    }
    assert Counter(record.dimension for record in found.comparisons["train"]) == {"helpfulness": 4, "safety": 2}


def test_a_store_whose_server_was_stopped_is_served_here_if_it_does_not_come_back(
    said: list[str], sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with people.Page(sqlite_store, app_settings(port=0)) as page:
        for url in ("http://first", "http://again"):
            with sqlite_store.serving(url):
                page.keep_open()
                page.keep_open()
            page.keep_open()  # it may come back
            assert said[-1] == f"waiting for people: open {url}"
        assert len(said) == 2 and not sqlite_store.is_served()
        monkeypatch.setattr(people, "GRACE_SECONDS", 0.0)
        page.keep_open()
        page.keep_open()
        assert said[2:] == [f"waiting for people: open {sqlite_store.server_url()}/login?{said[-1].partition('?')[2]}"]
        assert httpx.get(said[-1].split()[-1], verify=False, timeout=60).status_code in (200, 303)
    assert not sqlite_store.is_served()


def test_projects_are_changed_by_who_serves_them_only(
    recipe: Recipe, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(room, recipe)
    room.write(title="Changed")
    served = monkeypatch.context()
    with served as patch:
        patch.setattr(Store, "is_served", lambda store: True)
        judged(room, recipe)
    assert titles(room.store) == {"helpfulness", "safety"}
    judged(room, recipe)
    assert titles(room.store) == {"Changed"}
    room.write(mode="free")
    with pytest.raises(UserError, match="is about helpfulness and has a queue"):
        judged(room, recipe)


def titles(store: Store) -> set[str]:
    with store.read() as connection:
        return set(connection.execute(select(project.c.title)).scalars())


def test_other_prompts_are_another_batch_wherever_they_are(recipe: Recipe, room: Room, tmp_path: Path) -> None:
    """What the file says counts, not what it is called."""
    folder, projects = RunFolder(recipe.run_dir), {"helpfulness": "helpfulness", "safety": "safety"}

    def made_of(file: Path) -> str:
        return people_pairs.made_of(recipe, folder, 1, cast(Any, projects), [file])

    before = made_of(Path(recipe.data.prompts))
    copy = Path(shutil.copy(recipe.data.prompts, tmp_path / Path(recipe.data.prompts).name))
    assert made_of(copy) == before
    copy.write_text("\n".join(copy.read_text().splitlines()[1:]) + "\n")
    assert made_of(copy) != before


def test_held_out_prompts_among_the_training_prompts_are_found_at_once(
    recipe: Recipe, room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anybody is asked anything, and also where the round goes on."""
    monkeypatch.setattr(annotate, "judged_by_people", lambda *given: pytest.fail("it went on"))
    leaky = tmp_path / "prompts.jsonl"
    leaky.write_text(Path(recipe.data.prompts).read_text() + Path(str(recipe.data.heldout_prompts)).read_text())
    data = recipe.data.model_copy(update={"prompts": str(leaky)})
    with pytest.raises(UserError, match=r"prompts\.jsonl"):
        annotate.run(room.recipe(recipe.model_copy(update={"data": data})))


def test_what_was_left_out_is_in_the_result(
    recipe: Recipe, room: Room, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "prompts.jsonl"
    broken.write_text(Path(recipe.data.prompts).read_text() + '{"id": 1}\n')
    data = recipe.data.model_copy(update={"prompts": str(broken), "on_error": "skip"})
    run = tmp_path / "run"
    shutil.copytree(recipe.run_dir, run)
    result = annotate.run(room.recipe(recipe.model_copy(update={"data": data, "run_dir": str(run)})))
    assert result["left_out"] == {"answers equal or empty": 2, "training prompts, malformed": 1}
    assert "1 malformed" in capsys.readouterr().err


def test_queues_are_filled_by_tag() -> None:
    import random

    from alignment.data.records import Message, Prompt

    def prompts(tag: Any, count: int) -> list[Prompt]:
        return [
            Prompt(id=f"{tag}-{n}", messages=(Message(role="user", content=f"{tag} {n}"),), dimension=tag)
            for n in range(count)
        ]

    pool = prompts("helpfulness", 5) + prompts("safety", 7)
    chosen = prompts_for_people(pool, 20, "safety", rng=random.Random(0))
    tags = [prompt.dimension for prompt in chosen]
    assert (tags.count("safety"), tags.count("helpfulness")) == (12, 8)
    assert len({prompt.id for prompt in chosen if prompt.dimension == "safety"}) == 7, (
        "each once before one comes again"
    )
    assert {p.dimension for p in prompts_for_people(pool, 9, "helpfulness", rng=random.Random(0))} == {"helpfulness"}


def test_a_page_whose_server_has_ended_stops_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could judge anything, and the stage would look at the store for ever."""
    codes = iter([None, 137])
    server = SimpleNamespace(poll=lambda: next(codes))
    monkeypatch.setattr(people, "serving", lambda *_: nullcontext(("http://127.0.0.1:1", server)))
    with people.Page(SimpleNamespace(is_served=lambda: False), SimpleNamespace()) as page:
        page.keep_open()  # starts it
        page.keep_open()  # it runs
        with pytest.raises(UserError, match=r"exit code 137"):
            page.keep_open()


def test_judgments_of_pairs_from_other_prompts_than_there_are_now_are_kept_and_not_taken(
    recipe: Recipe, room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("before")
    wait = people.wait_for_people

    def edited_meanwhile(*given: Any) -> None:
        wait(*given)
        prompts.write_text("after")

    def judgments() -> rounds.RoundJudgments:
        folder = RunFolder(recipe.run_dir)
        return people.judged_by_people(room.recipe(recipe), folder, 1, {}, prompt_files=[prompts])

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"prompts, are others than when .*are kept"):
        patch.setattr(people, "wait_for_people", edited_meanwhile)
        judgments()
    prompts.write_text("before")
    monkeypatch.setattr(room, "says", iter(()))  # nobody has to judge anything again
    assert len(ids(judgments())) == 8


def test_the_bar_counts_the_judgments_that_are_wanted(
    recipe: Recipe, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[int, int]] = []

    @contextmanager
    def progress(title: str) -> Iterator[Any]:
        yield lambda done, total, figures: steps.append((done, total))

    monkeypatch.setattr(people, "progress", progress)
    judged(room, recipe, safety_pairs=2)
    assert steps[-1] == (5, 5)
