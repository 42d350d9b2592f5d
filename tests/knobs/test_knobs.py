"""No dead knobs: every setting of a recipe is turned through its stage's door, and what it says is seen to happen.

``make test-slow`` has each test fail: once more, with the setting's default where the stage finds it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import knobs_of_a_round
import knobs_of_base
import knobs_of_ppo
import knobs_of_rejection
import knobs_of_reward
import knobs_of_sft
import pytest
from knob_bench import Bench, Knob, Refused, Workshop, check
from knob_data import knob_files, starts

from alignment.settings.read_recipe import recipe_keys

PAGES = (knobs_of_base, knobs_of_sft, knobs_of_a_round, knobs_of_reward, knobs_of_rejection, knobs_of_ppo)
KNOBS: list[Knob] = [knob for page in PAGES for knob in page.KNOBS]
BENCHES: dict[str, Bench] = {name: bench for page in PAGES for name, bench in page.BENCHES.items()}
EXCUSED: dict[str, str] = {}
"""Setting that has no knob test -> why not, and what is tested instead."""
REFUSED_BY_DEFAULT = {
    "run_dir": "it has none, and the first run, whose folder stands in for it, is finished",
    "data.heldout_prompts": "without any there is nothing to evaluate on",
    "annotate.data": "without any there is no file for annotate.source=dataset",
    "reward.helpfulness.data": "comparisons that the run collected, and it has collected none",
    "reward.safety.data": "comparisons that the run collected, and it has collected none",
}
"""Setting whose default does not run in the bench of its knob -> why; its test fails for that, which says less."""
FEW = 4
"""A bench of fewer knobs is not worth its seconds in ``make test-fast``."""


def parameter(knob: Knob) -> Any:
    """A knob, marked unless its bench, and the one that this goes on from, turn many."""
    benches = {knob.bench, BENCHES[knob.bench].after or knob.bench}
    few = any(sum(other.bench == bench for other in KNOBS) < FEW for bench in benches)
    return pytest.param(knob, id=knob.key, marks=[pytest.mark.integration] if few else [])


PARAMETERS = [parameter(knob) for knob in KNOBS]


def test_every_setting_has_one_knob_test_or_says_why_not() -> None:
    keys = [key for key, *_ in recipe_keys()]
    tested = [knob.key for knob in KNOBS]
    assert len(set(tested)) == len(tested)
    assert sorted([*tested, *EXCUSED]) == sorted(keys)
    assert all(EXCUSED.values())


def test_every_knob_has_a_bench_and_two_values() -> None:
    assert {knob.bench for knob in KNOBS} == set(BENCHES)
    assert sum(len(page.BENCHES) for page in PAGES) == len(BENCHES)
    assert [knob.key for knob in KNOBS if knob.values[0] == knob.values[1]] == []


@pytest.fixture(scope="module")
def workshop(files: dict[str, str], sft_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The runs of all benches, each made when the first of its knobs is looked at."""
    folder = tmp_path_factory.mktemp("knobs")
    inputs = {**knob_files(tmp_path_factory.mktemp("knob-data"), files), "scored": str(folder / "scored")}
    return Workshop(folder, inputs, starts(folder, inputs, sft_run), BENCHES, KNOBS)


@pytest.mark.parametrize("knob", PARAMETERS)
def test_a_setting_does_what_it_says(knob: Knob, workshop: Workshop) -> None:
    check(knob, *workshop.sides(knob))


@pytest.mark.slow
@pytest.mark.parametrize("knob", PARAMETERS)
def test_and_its_test_fails_where_the_stage_finds_the_default(knob: Knob, workshop: Workshop) -> None:
    refused = False
    try:
        plain = workshop.sides_with_default(knob)
        with pytest.raises(AssertionError):
            check(knob, *plain)
    except Refused:
        refused = True
    assert refused == (knob.key in REFUSED_BY_DEFAULT)
    for folder in workshop.folder.glob("*-without-*"):
        shutil.rmtree(folder)
