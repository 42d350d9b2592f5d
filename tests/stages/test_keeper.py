"""What a PPO run leaves behind where its numbers go bad."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alignment.data.records import Message, Prompt
from alignment.files import read_json
from alignment.models.backbone import Backbone
from alignment.rl.ppo import NonFiniteError
from alignment.rl.rollout import Episodes
from alignment.run.stage_records import StageRun
from alignment.settings.ppo_sections import PPOSection
from stages.ppo.keeper import ResumablePPO


def failing(backbone: Backbone) -> NonFiniteError:
    """The error of the second and third of three episodes, whose answers have two tokens each."""
    asked = [Prompt(id=f"p{n}", messages=(Message(role="user", content=f"why {n}"),)) for n in range(3)]
    answers = torch.tensor(backbone.encoder.encode_answer(asked[0].messages, "the sea").answer_ids[:2])
    episodes = Episodes(
        prompts=asked,
        token_ids=torch.stack([torch.cat([torch.tensor([n, n]), answers]) for n in range(3)]),
        prompt_lengths=torch.full((3,), 2),
        response_lengths=torch.full((3,), 2),
        stopped=torch.zeros(3, dtype=torch.bool),
        is_safety=torch.zeros(3, dtype=torch.bool),
    )
    return NonFiniteError("PPO loss is not finite", episodes, [1, 2])


@pytest.mark.parametrize("is_main", [True, False])
def test_episodes_that_gave_no_numbers_are_written_down_and_named(
    is_main: bool, backbone: Backbone, tmp_path: Path
) -> None:
    trainer: Any = SimpleNamespace(processes=SimpleNamespace(is_main=is_main), backbone=backbone)
    place = ResumablePPO(StageRun("round-1/ppo", tmp_path), PPOSection(), trainer, {})
    place.done, error = 4, failing(backbone)
    file = tmp_path / "nonfinite_batch.json"
    said = f"update 5: PPO loss is not finite. The answers that did it are in {file}; the checkpoints before stay"
    with pytest.raises(FloatingPointError, match=f"^{re.escape(said)}$"), place.explained_failure():
        raise error
    assert file.is_file() == is_main, "several processes have the same episodes, and one writes"
    if is_main:
        rows = read_json(file)
        assert [row["prompt"]["id"] for row in rows] == ["p1", "p2"]
        assert [row["answer"] for row in rows] == [backbone.encoder.decode(error.episodes.response_ids(0))] * 2


def test_other_failures_are_left_as_they_are(backbone: Backbone, tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(processes=SimpleNamespace(is_main=True), backbone=backbone)
    place = ResumablePPO(StageRun("round-1/ppo", tmp_path), PPOSection(), trainer, {})
    with pytest.raises(ZeroDivisionError), place.explained_failure():
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
