"""Judged answers by prompt, and which prompts a report shows with the answers of all policies side by side."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.data.records import JudgedAnswer, Prompt

JudgedAnswers = Sequence[JudgedAnswer]


def choose_samples(
    prompts: Sequence[Prompt], answers: Mapping[str, JudgedAnswers], *, count: int, seed: int
) -> list[dict[str, Any]]:
    """The report's ``samples``: prompts drawn by seed, evenly over kinds and groups, with first answers.

    Args:
        prompts: the held-out prompts.
        answers: policy name -> its answers.
        count: how many prompts to show; fewer where there are fewer.
        seed: of the draw. Nothing else enters the choice.
    """
    first = {name: {key: rows[0] for key, rows in by_prompt(policy).items()} for name, policy in answers.items()}
    strata: dict[tuple[str, str], list[Prompt]] = defaultdict(list)
    for prompt in sorted(prompts, key=lambda prompt: prompt.id):
        if all(prompt.id in policy for policy in first.values()):
            strata[(prompt.kind, prompt.group or "")].append(prompt)
    rng = random.Random(seed)
    shuffled = [rng.sample(strata[key], len(strata[key])) for key in sorted(strata)]
    rounds = max((len(stratum) for stratum in shuffled), default=0)
    chosen = [stratum[turn] for turn in range(rounds) for stratum in shuffled if turn < len(stratum)][:count]
    return [_sample(prompt, {name: policy[prompt.id] for name, policy in first.items()}) for prompt in chosen]


def _sample(prompt: Prompt, answers: Mapping[str, JudgedAnswer]) -> dict[str, Any]:
    return {
        "prompt_id": prompt.id,
        "messages": [message.model_dump() for message in prompt.messages],
        "kind": prompt.kind,
        "group": prompt.group,
        "answers": {
            name: {
                "text": row.answer,
                "helpfulness": row.helpfulness,
                "unsafe": row.unsafe,
                "refusal": row.refusal,
                "reward_helpfulness": row.reward_helpfulness,
                "reward_safety": row.reward_safety,
            }
            for name, row in answers.items()
        },
    }


def by_prompt(rows: JudgedAnswers) -> dict[str, list[JudgedAnswer]]:
    """The answers to each prompt, by its id."""
    grouped: dict[str, list[JudgedAnswer]] = defaultdict(list)
    for row in rows:
        grouped[row.prompt_id].append(row)
    return dict(grouped)
