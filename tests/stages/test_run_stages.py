"""Which stage makes which folder of a run, and for which round."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from alignment.settings.read_recipe import load_recipe
from stages.annotate import collect
from stages.base import write_base_model
from stages.evaluate import judge_policies
from stages.pipeline.run_stages import WORK
from stages.ppo import train_policy
from stages.reward import train_reward_models
from stages.sft import finetune

STAGES: dict[str, tuple[ModuleType, tuple[int, ...], dict[str, str]]] = {
    "base": (write_base_model, (), {}),
    "sft": (finetune, (), {}),
    "annotate": (collect, (2,), {}),
    "reward": (train_reward_models, (2,), {}),
    "rejection": (train_policy, (2,), {"method": "rejection"}),
    "ppo": (train_policy, (2,), {"method": "ppo"}),
    "eval": (judge_policies, (2,), {}),
}


@pytest.mark.parametrize("name", WORK)
def test_each_folder_is_made_by_its_own_stage_for_its_round(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    for module in {module for module, *_ in STAGES.values()}:
        monkeypatch.setattr(module, "run", lambda *given, of=module, **more: asked.append((of, given, more)) or {})
    recipe = load_recipe(None, [])
    WORK[name](recipe, 2)
    module, numbers, more = STAGES[name]
    assert asked == [(module, (recipe, *numbers), more)]


def test_every_folder_is_made_by_one() -> None:
    assert list(WORK) == list(STAGES)
