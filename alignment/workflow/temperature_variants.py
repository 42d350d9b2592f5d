"""The two variants of a policy whose answers are compared: the same weights at two temperatures (section 3.2.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from alignment.data.records import AnswerSource, Prompt, SampledAnswer
from alignment.models.sampling.batch_sampling import answer_prompts
from alignment.settings.model_sections import SamplingSection
from alignment.settings.recipe import Recipe
from alignment.workflow.run_policies import Policy


class Variant:
    """A policy at one temperature.

    Args:
        policy: who answers.
        recipe: lengths and batch size.
        temperature: of sampling.
        on_batch: called with the number of answers just drawn.
    """

    def __init__(
        self, policy: Policy, recipe: Recipe, temperature: float, on_batch: Callable[[int], None] | None = None
    ) -> None:
        self.policy, self.temperature, self.on_batch = policy, temperature, on_batch
        self.sampling = SamplingSection(
            temperature=temperature,
            max_new_tokens=recipe.annotate.max_new_tokens,
            batch_size_prompts=recipe.annotate.batch_size_prompts,
        )

    def __call__(self, prompts: Sequence[Prompt]) -> list[SampledAnswer]:
        """Answer each prompt once."""
        backbone = self.policy.backbone
        _, samples = answer_prompts(backbone, self.policy.role, prompts, self.sampling, on_batch=self.on_batch)
        return [
            SampledAnswer(
                backbone.encoder.decode(item.token_ids),
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
