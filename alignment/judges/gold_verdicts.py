"""The gold judge's word on what a run left behind. For evaluation only: no training code may import it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from alignment.data.jsonl_and_raw_rows import read_jsonl
from alignment.data.records import Comparison, Dimension, JudgedAnswer, Prompt
from alignment.errors import UserError
from alignment.figures.pair_accuracy import accuracy_by_grade
from alignment.rl.heldout_answers import Snapshot
from alignment.toy.gold_judge import judge, utility
from alignment.toy.toy_questions import lookup

JUDGE = "gold judge of the toy world"


def check_prompts_known(prompts: Sequence[Prompt]) -> None:
    """Raise ``UserError`` naming the first prompt that is not of the toy world."""
    unknown = next((prompt for prompt in prompts if lookup(prompt.messages) is None), None)
    if unknown is not None:
        raise UserError(
            f"the gold judge does not know prompt {unknown.id}; it knows the toy world only. Pass evaluate.judge=none."
        )


def with_verdicts(rows: Sequence[JudgedAnswer], prompts: Sequence[Prompt]) -> list[JudgedAnswer]:
    """Answers to those prompts, in their order, with the gold judge's verdicts."""
    verdicts = [judge(prompt.messages, row.answer) for row, prompt in zip(rows, prompts, strict=True)]
    return [
        replace(row, helpfulness=verdict.helpfulness, unsafe=verdict.unsafe, refusal=verdict.refusal)
        for row, verdict in zip(rows, verdicts, strict=True)
    ]


def gold_ceilings(
    heldout_comparisons: Path, *, dimensions: Sequence[Dimension] = get_args(Dimension)
) -> dict[str, dict[str, Any]]:
    """How often the gold judge agrees with the annotators' held-out choices: no reward model can be expected above.

    Args:
        heldout_comparisons: file that a round's annotators left; where it is missing there is no ceiling.
        dimensions: of the reward models that were measured on these comparisons. A dimension is left out where a prompt
            is not of the toy world.
    """
    if not heldout_comparisons.is_file():
        return {}
    comparisons, _ = read_jsonl(heldout_comparisons, Comparison)
    ceilings: dict[str, dict[str, Any]] = {}
    for dimension in dimensions:
        own = [item for item in comparisons if item.dimension == dimension]
        if any(lookup(item.prompt) is None for item in own):
            continue
        gaps = [
            utility(judge(item.prompt, item.chosen_text), item.dimension)
            - utility(judge(item.prompt, item.rejected_text), item.dimension)
            for item in own
        ]
        if own:
            ceilings[dimension] = accuracy_by_grade(
                gaps, [item.grade for item in own], [item.conversation_id for item in own]
            )
    return ceilings


def gold_helpfulness(snapshots: Mapping[int, Sequence[Snapshot]]) -> dict[int, list[float | None]]:
    """Update -> gold helpfulness of each answer written down at it; ``None`` where the prompt is tagged safety."""
    return {update: [_helpfulness(item) for item in taken] for update, taken in snapshots.items()}


def _helpfulness(item: Snapshot) -> float | None:
    if item.prompt.dimension == "safety":
        return None
    return judge(item.prompt.messages, item.answer).helpfulness
