"""Evaluation: every policy reads the held-out prompts with its own tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny import encoded_prompts, load_tiny, save_tiny_model, tiny_tokenizer

from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.models.backbone import Backbone, Role
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import load_recipe
from alignment.workflow.prompts_and_policies import Policy
from stages.evaluate import judge_policies


def with_another_tokenizer(folder: Path) -> Path:
    """A model whose tokenizer writes a begin mark before and after each turn's mark."""
    save_tiny_model(folder)
    tokenizer = tiny_tokenizer()
    assert isinstance(tokenizer.chat_template, str)
    tokenizer.chat_template = tokenizer.chat_template.replace("|>{{ m[", "|><|begin|>{{ m[")
    tokenizer.save_pretrained(str(folder))
    return folder


def test_the_base_models_prompts_are_encoded_by_its_own_tokenizer(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = with_another_tokenizer(tmp_path / "base")
    recipe = load_recipe(None, [f"model.name_or_path={base}", "model.dtype=float32", "evaluate.answers_per_prompt=2"])
    read: dict[str, list[list[int]]] = {}

    steps: list[tuple[int, int]] = []

    def measure(role: Role, prompts: Sequence[EncodedPrompt], *_: Any, on_batch: Any, **__: Any) -> list[Any]:
        read["sft" if role.backbone is backbone else "base"] = [item.token_ids for item in prompts]
        on_batch(2)
        on_batch(len(prompts) - 2)
        return []

    @contextmanager
    def progress(title: str) -> Iterator[Any]:
        yield lambda done, total, figures: steps.append((done, total))

    prompts = encoded_prompts(backbone, 3)
    monkeypatch.setattr(judge_policies, "progress", progress)
    monkeypatch.setattr(judge_policies, "measure_policy", measure)
    monkeypatch.setattr(judge_policies, "load_policy", lambda *_: Policy("sft", Role(backbone, None), ""))
    judge_policies.sample_policies(recipe, RunFolder(str(tmp_path / "run")), backbone, prompts, 1)
    own = load_tiny(base).encoder
    once = {
        "base": [own.encode_prompt(item.prompt.messages) for item in prompts],
        "sft": [item.token_ids for item in prompts],
    }
    assert read == {name: rows * 2 for name, rows in once.items()}
    assert steps == [(2, 12), (6, 12), (8, 12), (12, 12)], "3 prompts, each twice, of 2 policies"
    assert all(len(ours) == len(sft) + 1 for ours, sft in zip(once["base"], once["sft"], strict=True))
