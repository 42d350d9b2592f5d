"""Collect comparisons: two variants of the newest policy answer, somebody chooses and grades (section 3.2.1).

``annotate.source=simulated`` asks the toy world's annotators; ``annotate.source=dataset`` takes comparisons that
exist. Leaves ``comparisons.jsonl`` and ``heldout_comparisons.jsonl`` in the round's ``annotate`` folder.

    python -m stages.annotate
    python -m stages.annotate annotate.source=dataset annotate.data=pairs.jsonl annotate.dimension=safety
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.config import Recipe, SamplingSection
from alignment.data.loading import heldout_prompts, training_prompts
from alignment.data.records import AnswerSource, Comparison, Dimension, Prompt, write_jsonl
from alignment.data.sources import load_comparisons, split_by_conversation
from alignment.errors import UserError
from alignment.models.backbone import Backbone
from alignment.models.policies import Policy, answer_prompts, load_backbone, load_policy
from alignment.resources import resolve
from alignment.run import RunFolder
from alignment.toy.simulation import Answer, collect, queue
from stages.runner import progress, run


def main(recipe: Recipe, round_number: int = 1) -> dict[str, Any]:
    """Make ``round-N/annotate/``; returns the stage's result."""
    folder = RunFolder(recipe.run_dir)
    if recipe.annotate.source == "dataset":
        train, heldout, counts, inputs = from_dataset(recipe)
        with folder.lock():
            stage = folder.begin("annotate", recipe, round_number)
    else:
        prompts = {"train": training_prompts(recipe), "heldout": heldout_prompts(recipe)}
        inputs = [folder.require("sft", command="python -m stages.sft")]
        with folder.lock():
            stage = folder.begin("annotate", recipe, round_number)
            train, heldout, counts = simulate(recipe, folder, prompts, round_number)
    with folder.lock():
        write_jsonl(stage.folder / "comparisons.jsonl", train)
        write_jsonl(stage.folder / "heldout_comparisons.jsonl", heldout)
        result = {"comparisons": len(train), "heldout_comparisons": len(heldout), "left_out": counts}
        return folder.finish(stage, result, inputs=inputs)


def from_dataset(recipe: Recipe) -> tuple[list[Comparison], list[Comparison], dict[str, int], list[Path]]:
    """Comparisons of a file or the Hub, split by conversation."""
    settings = recipe.annotate
    if settings.data is None:
        raise UserError("annotate.source=dataset needs annotate.data=FILE or a Hub name")
    source = resolve(settings.data)
    comparisons, report = load_comparisons(
        str(source), dimension=settings.dimension, format=settings.format, on_error=recipe.data.on_error
    )
    train, heldout = split_by_conversation(comparisons, heldout_fraction=recipe.reward.heldout_share, seed=recipe.seed)
    return train, heldout, report.skipped, [source]


def simulate(
    recipe: Recipe, folder: RunFolder, prompts: dict[str, list[Prompt]], round_number: int
) -> tuple[list[Comparison], list[Comparison], dict[str, int]]:
    """Sample both variants on training and held-out prompts and have the simulated annotators compare."""
    settings = recipe.annotate
    sizes: list[tuple[str, Dimension, int]] = [
        ("train", "helpfulness", settings.helpfulness_pairs),
        ("train", "safety", settings.safety_pairs),
        ("heldout", "helpfulness", settings.heldout_helpfulness_pairs),
        ("heldout", "safety", settings.heldout_safety_pairs),
    ]
    backbone = load_backbone(folder, recipe.model)
    policy = load_policy(folder, backbone, "newest")
    collected: dict[str, list[Comparison]] = {"train": [], "heldout": []}
    without_preference = 0
    total = 2 * sum(count for _, _, count in sizes)
    with progress("annotate: sampling") as on_step:
        drawn = 0

        def count_answers(n: int) -> None:
            nonlocal drawn
            drawn += n
            on_step(drawn, total, {})

        variants = [
            _Variant(backbone, policy, recipe, temperature, count_answers) for temperature in settings.temperatures
        ]
        for part, dimension, count in sizes:
            if count:
                rng = random.Random(f"{recipe.seed}/{round_number}/{part}/{dimension}")
                chosen = queue(prompts[part], count, dimension, rng=rng)
                batch = f"round-{round_number}-{part}"
                result = collect(chosen, dimension, (variants[0], variants[1]), batch=batch, seed=recipe.seed)
                collected[part] += result.comparisons
                without_preference += result.without_preference
    return collected["train"], collected["heldout"], {"without preference": without_preference}


class _Variant:
    """The newest policy at one temperature."""

    def __init__(self, backbone: Backbone, policy: Policy, recipe: Recipe, temperature: float, on_batch: Any) -> None:
        self.backbone, self.policy, self.temperature, self.on_batch = backbone, policy, temperature, on_batch
        self.sampling = SamplingSection(
            temperature=temperature,
            max_new_tokens=recipe.annotate.max_new_tokens,
            batch_size_prompts=recipe.annotate.batch_size_prompts,
        )

    def __call__(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answer each prompt once."""
        _, samples = answer_prompts(self.backbone, self.policy.role, prompts, self.sampling, on_batch=self.on_batch)
        return [
            Answer(
                self.backbone.encoder.decode(item.token_ids),
                AnswerSource(
                    variant=f"{self.policy.name}@{self.temperature}",
                    checkpoint=Path(self.policy.checkpoint).name,
                    temperature=self.temperature,
                    finish_reason="stop" if item.stopped else "length",
                    n_tokens=len(item.token_ids),
                ),
            )
            for item in samples
        ]


if __name__ == "__main__":
    run(main, __doc__, "stages.annotate")
