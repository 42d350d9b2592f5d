"""Answers of the two variants that are compared: the newest policy at two temperatures (section 3.2.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.data.records import AnswerSource, SampledAnswer
from alignment.models.sampling.batch_sampling import answer_prompts
from alignment.settings.sections import AnnotateSection, SamplingSection
from alignment.workflow.prompts_and_policies import Policy


def answers_of_both(
    policy: Policy,
    prompts: Sequence[EncodedPrompt],
    settings: AnnotateSection,
    on_batch: Callable[[int], None] | None = None,
) -> tuple[list[SampledAnswer], list[SampledAnswer]]:
    """Each variant's answers to the prompts, one a prompt.

    Args:
        policy: who answers.
        prompts: in the order of the answers, encoded for the policy.
        settings: both temperatures, lengths and batch size.
        on_batch: called with the number of answers just drawn.
    """
    first, second = (answers_at(policy, prompts, settings, t, on_batch) for t in settings.temperatures)
    return first, second


def answers_at(
    policy: Policy,
    prompts: Sequence[EncodedPrompt],
    settings: AnnotateSection,
    temperature: float,
    on_batch: Callable[[int], None] | None = None,
) -> list[SampledAnswer]:
    """A policy's answers at one temperature, one a prompt.

    Args:
        policy: who answers.
        prompts: in the order of the answers, encoded for the policy.
        settings: lengths and batch size; its temperatures are not used.
        temperature: of the sampling.
        on_batch: called with the number of answers just drawn.
    """
    # Sample one answer per prompt.
    sampling = SamplingSection(
        temperature=temperature,
        max_new_tokens=settings.max_new_tokens,
        batch_size_prompts=settings.batch_size_prompts,
    )
    answers = answer_prompts(policy.role, prompts, sampling, on_batch=on_batch)
    # Decode the answers and note where each comes from.
    return [
        SampledAnswer(
            text=policy.role.backbone.encoder.decode(answer_ids),
            source=AnswerSource(
                variant=f"{policy.name}@{temperature}",
                checkpoint=Path(policy.checkpoint).name,
                temperature=temperature,
                finish_reason="stop" if stopped else "length",
                n_tokens=len(answer_ids),
            ),
        )
        for answer_ids, stopped in zip(answers.row_ids(), answers.stopped.tolist(), strict=True)
    ]
