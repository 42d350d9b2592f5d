"""Snapshots of held-out answers: taken when they should be, without a trace in training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ppo_example import settings, trainer_on
from tiny import encoded_prompts

from alignment.models.backbone import Backbone
from alignment.rl.heldout_answers import read_snapshots
from alignment.settings.read_recipe import load_recipe
from stages.ppo import training_watch
from stages.ppo.training_watch import Snapshots


def test_every_second_update_is_written_and_none_changes_what_is_drawn_next(backbone: Backbone, tmp_path: Path) -> None:
    trainer = trainer_on(backbone)
    recipe = load_recipe().model_copy(update={"ppo": settings(snapshot_every_updates=2, snapshot_prompts=3)})
    snapshots = Snapshots(recipe, tmp_path, trainer, encoded_prompts(backbone, 8))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for update in range(5):
        snapshots.take(update)
    assert torch.equal(torch.get_rng_state(), before)
    taken = read_snapshots(tmp_path / "heldout_samples.jsonl")
    assert {update: len(answers) for update, answers in taken.items()} == {0: 3, 2: 3, 4: 3}
    assert len({tuple(item.prompt.id for item in answers) for answers in taken.values()}) == 1, "the same prompts"


def test_an_answer_is_scored_by_the_gate_of_its_prompts_tag(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A safe answer: under a safety tag the safety model pays it, else the helpfulness model."""
    rows = [
        SimpleNamespace(
            answer="yes",
            kl_nats=0.0,
            reward_helpfulness=1.0,
            reward_safety=3.0,
            reward_guard=None,
            dimension=dimension,
        )
        for dimension in ("safety", "helpfulness")
    ]
    monkeypatch.setattr(training_watch, "measure_policy", lambda *_, **__: rows)
    recipe = load_recipe().model_copy(update={"ppo": settings(snapshot_every_updates=1, snapshot_prompts=2)})
    snapshots = Snapshots(recipe, tmp_path, trainer_on(backbone), encoded_prompts(backbone, 2))
    snapshots.take(0)
    assert [item.score for item in snapshots.taken] == [3.0, 1.0]
