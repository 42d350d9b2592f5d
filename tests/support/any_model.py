"""Recipes over models and data that are not the toy's: a tiny model per family, own comparisons, no judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stage_fixtures import own_data, own_model, reduced_recipe
from tiny import Family

from alignment.settings.recipe import Recipe


@dataclass(frozen=True)
class Case:
    family: Family
    template: bool
    quantization: str
    value: str


CASES = {
    "llama": Case("llama", template=True, quantization="none", value="adapter"),
    "llama without a template": Case("llama", template=False, quantization="none", value="head"),
    "qwen2": Case("qwen2", template=True, quantization="none", value="head"),
    "qwen3 in nf4": Case("qwen3", template=True, quantization="nf4", value="adapter"),
}


def recipe_for(case: Case, folder: Path, *overrides: str) -> Recipe:
    """A recipe over a new tiny model and data of one's own."""
    if not (folder / "model").exists():
        own_model(folder / "model", family=case.family, template=case.template)
    files = own_data(folder / "data")
    settings = [
        f"model.name_or_path={folder / 'model'}",
        f"model.quantization={case.quantization}",
        "model.sampling_copy=false",
        f"ppo.value={case.value}",
        "annotate.source=dataset",
        f"annotate.data={files['pairs']}",
        "annotate.dimension=helpfulness",
        f"reward.safety.data={files['pairs']}",
        "reward.heldout_share=0.3",
        "reward.helpfulness.epochs=2",  # the first step of a warm-up has learning rate 0
        "reward.safety.epochs=2",
        "sft.epochs=3",
        "evaluate.judge=none",
    ]
    return reduced_recipe({**files, "pretraining": "none"}, folder / "run", *settings, *overrides)
