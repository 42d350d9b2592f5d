"""Which prompts a run trains on, and which select a checkpoint: never those that its report is made on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignment.data.records import Message, Prompt
from alignment.data.splits import check_heldout_apart, overlap_key
from alignment.errors import UserError
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import load_recipe
from alignment.settings.recipe import Recipe
from alignment.workflow.training_prompts import other_prompt_files, selected_by, selection_prompts, training_prompts


def test_held_out_prompts_that_select_are_a_file_more_that_is_read() -> None:
    heldout = "data/toy/heldout_prompts.jsonl"
    recipe = load_recipe(None, ["data.selection_prompts=heldout", f"data.heldout_prompts={heldout}"])
    assert [path.name for path in other_prompt_files(recipe)] == ["heldout_prompts.jsonl"]
    assert other_prompt_files(load_recipe(None)) == []


def dialogue(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(role=("user", "assistant")[place % 2], content=text) for place, text in enumerate(texts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "same",
    [
        "What is the sea?",
        "what is the  SEA",
        "What is the sea ?!",
        "\u201cWhat is the sea?\u201d",
        "What is the \uff53ea?",
    ],
)
def test_case_quotes_width_and_end_punctuation_are_no_difference(same: str) -> None:
    assert overlap_key(dialogue(same)) == overlap_key(dialogue("What is the sea?"))


@pytest.mark.parametrize("other", ["What is a sea?", "What's the sea?", "What is the sea? Tell me."])
def test_other_words_are_one(other: str) -> None:
    assert overlap_key(dialogue(other)) != overlap_key(dialogue("What is the sea?"))
    assert overlap_key(dialogue("It\u2019s")) == overlap_key(dialogue("It's"))


@pytest.mark.parametrize(
    ("trained", "held_out", "is_apart"),
    [
        (("Hi?",), ("hi",), False),
        (("Hi?", "Yes.", "And?"), ("Hi!",), False),
        (("Hi?", "Yes.", "And?", "So."), ("Hi?", "Yes.", "and",), False),
        (("Hi?", "Yes.", "And?"), ("And?",), True),
        (("Hi?", "Yes.", "And?"), ("Hi?", "No.", "And?"), True),
        (("Hi?",), ("Hi?", "Yes.", "And?"), True),
    ],
)  # fmt: skip
def test_a_held_out_prompt_is_found_at_every_beginning_of_a_dialogue(
    trained: tuple[str, ...], held_out: tuple[str, ...], is_apart: bool
) -> None:
    try:
        check_heldout_apart([dialogue(*trained)], [dialogue(*held_out)], train_name="a", heldout_name="b")
        found = True
    except UserError as error:
        assert "1 prompts of b are also in a" in str(error)
        found = False
    assert found == is_apart


def write(file: Path, *texts: str) -> str:
    rows = [{"id": f"{file.stem}-{text}", "messages": [{"role": "user", "content": text}]} for text in texts]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


NUMBERS = [f"ask {number}" for number in range(200)]


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    return [
        f"run_dir={tmp_path / 'run'}",
        f"data.prompts={write(tmp_path / 'train.jsonl', *NUMBERS)}",
        f"data.heldout_prompts={write(tmp_path / 'heldout.jsonl', 'held out')}",
    ]


def asked(prompts: list[Prompt]) -> set[str]:
    return {prompt.messages[0].content for prompt in prompts}


def both(recipe: Recipe) -> tuple[set[str], set[str]]:
    folder = RunFolder(recipe.run_dir)
    found = [load(recipe, folder, 1).prompts for load in (training_prompts, selection_prompts)]
    return asked(found[0]), asked(found[1])


def test_without_a_file_a_share_selects_and_is_not_trained_on(settings: list[str]) -> None:
    recipe = load_recipe(None, [*settings, "data.selection_prompts=null"])
    train, selection = both(recipe)
    assert train | selection == set(NUMBERS) and not train & selection
    assert 2 <= len(selection) <= 25
    _, more = both(load_recipe(None, [*settings, "data.selection_prompts=null", "data.selection_share=0.5"]))
    assert selection < more and 70 < len(more) < 130
    seeded = load_recipe(None, [*settings, "data.selection_prompts=null", "seed=1"])
    assert both(seeded)[1] == selection, "a stage with a seed of its own trains on none of them"
    assert selected_by(recipe) == "0.05 of data.prompts"


def test_a_file_selects_and_all_prompts_are_trained_on(settings: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "selection.jsonl", "select")
    recipe = load_recipe(None, [*settings, f"data.selection_prompts={file}"])
    assert both(recipe) == (set(NUMBERS), {"select"})
    assert selected_by(recipe) == file


@pytest.mark.parametrize(("text", "other"), [("Held out!", "heldout.jsonl"), ("ASK 7", "train.jsonl")])
def test_a_file_that_shares_a_prompt_is_refused(text: str, other: str, settings: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "selection.jsonl", "select", text)
    recipe = load_recipe(None, [*settings, f"data.selection_prompts={file}"])
    with pytest.raises(UserError, match=f"also in|{other}") as caught:
        both(recipe)
    assert "selection.jsonl" in str(caught.value) and other in str(caught.value)


def test_the_toys_selection_prompts_select_nothing_in_a_run_with_own_data(settings: list[str], tmp_path: Path) -> None:
    own = write(tmp_path / "own.jsonl", "x")
    recipe = load_recipe(None, [*settings, f"sft.data={own}"])
    assert recipe.data.selection_prompts == "data/toy/selection_prompts.jsonl"
    train, selection = both(recipe)
    assert train | selection == set(NUMBERS) and selection


def test_runs_of_an_earlier_version_select_by_their_held_out_prompts(settings: list[str]) -> None:
    recipe = load_recipe(None, [*settings, "data.selection_prompts=heldout"])
    assert both(recipe) == (set(NUMBERS), {"held out"})
    assert "the report is made on what selected the policy" in selected_by(recipe)
