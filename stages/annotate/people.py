"""People stand in for the simulated annotators: their pairs are sampled, served and waited for. Not a stage itself.

The app's store lies outside the stage's folder and outlives it: what people have said stays there whatever happens to
this process, and started again it goes on from there. Where somebody serves that store already, this waits for them,
and serves it itself once they have stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from alignment.data.records import Comparison, Dimension, Part, Prompt
from alignment.files import read_json, write_json
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from annotation_ui.app_settings import AppSettings, load_settings
from annotation_ui.desk.preparation import keep_projects
from annotation_ui.exchange.export_judgments import comparisons
from annotation_ui.exchange.rounds import Goal, RoundProgress, has_batch, put_away, take_up, taken
from annotation_ui.exchange.selection import OTHER_PART
from annotation_ui.store.database import Store
from annotation_ui.store.items import NewItem
from annotation_ui.store.projects import project_about
from stages.annotate.people_pairs import PARTS, goals_of, made_of, run_id, sample_pairs
from stages.annotate.people_waiting import wait_for_people


class RoundJudgments(NamedTuple):
    """What people said of a round, and what was left out by reason."""

    comparisons: dict[Part, list[Comparison]]
    left_out: dict[str, int]


def judged_by_people(
    recipe: Recipe, folder: RunFolder, round_number: int, prompts: Mapping[Part, Sequence[Prompt]]
) -> RoundJudgments:
    """Have people judge a round's pairs; returns once enough are judged, with exactly those judgments.

    Args:
        recipe: how many judgments of each kind, how the answers are sampled, and the app's settings.
        folder: the run; the app's store lies in it unless the settings name a database.
        round_number: of the round, from 1.
        prompts: the prompts of each part.

    Raises:
        UserError: no project is about what is wanted, or no judgment can be had of a kind that is.
    """
    settings = load_settings(recipe.annotate.ui_settings, [f"port={recipe.annotate.ui_port}"])
    settings = settings.model_copy(update={"variants": None})
    goals = goals_of(recipe)
    with closing(Store(settings.database or folder.root / "annotation" / "annotations.db")) as store:
        keep_projects(store, settings, change=not store.is_served())
        projects = _projects(store, settings, goals)
        round_name = f"round-{round_number}-{run_id(folder)}"
        batch = f"{round_name}-{made_of(recipe, folder, round_number, projects)}"
        sampled = folder.root / "annotation" / f"{batch}.json"
        items: dict[str, list[NewItem]] = {}
        if not (has_batch(store, batch) and sampled.is_file()):
            items, left_out = sample_pairs(recipe, folder, round_number, batch, prompts, projects)
            write_json(sampled, left_out)
        take_up(store, batch, round_name, items)
        wait_for_people(RoundProgress(store, batch, goals), settings)
        put_away(store, batch)
        return _collected(store, batch, read_json(sampled))


def _projects(store: Store, settings: AppSettings, goals: Sequence[Goal]) -> dict[Dimension, str]:
    """In which project pairs about each dimension are judged."""
    names = [project.name for project in settings.projects]
    with store.read() as connection:
        return {each.dimension: project_about(connection, names, each.dimension).name for each in goals}


def _collected(store: Store, batch: str, left_out: Mapping[str, int]) -> RoundJudgments:
    """The judgments of a round by part, and all that was left out."""
    found: dict[Part, list[Comparison]] = {}
    reasons = Counter(left_out)
    for part in PARTS:
        found[part], also = comparisons(store, taken(batch, part))
        del also[OTHER_PART[part]]
        reasons += also
    return RoundJudgments(found, dict(+reasons))
