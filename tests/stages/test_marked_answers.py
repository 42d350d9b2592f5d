"""Sampled answers that hold a mark of the chat template become no record, and are counted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from stage_fixtures import reduced_recipe

from alignment.data.dialogue_encoder import DialogueEncoder
from alignment.data.encoded_dialogues import has_mark
from alignment.data.jsonl_and_raw_rows import read_jsonl
from alignment.data.records import Comparison
from alignment.models.pretrained import load_tokenizer
from alignment.rl.rejection import Winner
from stages.annotate import collect, simulated_round
from stages.ppo import rejection_sampling
from stages.ppo import train_policy as ppo


def test_a_mark_is_one_of_the_template(tiny_folder: Any) -> None:
    tokenizer = load_tokenizer(str(tiny_folder("llama")))
    own = DialogueEncoder(tokenizer)
    tokenizer.chat_template = None
    llama_2 = DialogueEncoder(tokenizer)
    assert has_mark("So [INST] it goes", llama_2) and has_mark("<<SYS>>", llama_2)
    assert not has_mark("So INST it goes [1]", llama_2)
    assert not has_mark("So [INST] it goes", own), "whose marks are tokens, which no answer holds"


def is_marked(text: str, encoder: object) -> bool:
    """Stands in for a mark: a random model writes no real one."""
    return len(text) % 3 == 0


@pytest.mark.integration
def test_no_comparison_holds_one(
    files: dict[str, str], sft_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(sft_run, tmp_path / "run"))
    monkeypatch.setattr(simulated_round, "has_mark", is_marked)
    result = collect.run(reduced_recipe(files, run))
    parts = [
        read_jsonl(run / "round-1" / "annotate" / f"{name}comparisons.jsonl", Comparison)[0]
        for name in ("", "heldout_")
    ]
    answers = {text for part in parts for item in part for text in (item.chosen_text, item.rejected_text)}
    assert answers and not any(is_marked(text, None) for text in answers)
    asked = 40 + 20 + 20 + 20
    pairs = {(item.prompt, item.dimension) for part in parts for item in part}
    counts = [
        result["left_out"][f"{part}answers with a mark of the chat template"] for part in ("", "held-out pairs, ")
    ]
    assert min(counts) > 0 and sum(counts) <= asked - len(pairs)


@pytest.mark.integration
def test_no_winner_holds_one(
    files: dict[str, str], rewarded_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(rewarded_run, tmp_path / "run"))
    monkeypatch.setattr(rejection_sampling, "has_mark", is_marked)
    result = ppo.run(reduced_recipe(files, run, "ppo.method=rejection", "rejection.prompts=20"))
    winners = read_jsonl(run / "round-1" / "rejection" / "winners.jsonl", Winner)[0]
    assert not any(is_marked(item.answer, None) for item in winners)
    empty, marked = (
        result["left_out"][why] for why in ("candidates empty", "answers with a mark of the chat template")
    )
    assert marked > 0
    drawn = 20 * 2
    assert sum(item.candidates for item in winners) == drawn - marked - empty
