"""Eight encoded pairs of random tokens with margins and safety labels, and settings to train on them, for tests."""

from __future__ import annotations

from typing import Any

from tiny import token_rows

from alignment.reward.encoded_pairs import EncodedPair
from alignment.settings.reward_sections import RewardModelSection

MARGINS = (1.0, 0.0, 1 / 3, 2 / 3, 0.0, 1.0, 0.0, 1 / 3)
LABELS = ((True, False), (True, True), None, (False, False), None, (False, True), (True, False), None)


def pairs_of(
    *, margins: tuple[float, ...] = MARGINS, labels: tuple[tuple[bool, bool] | None, ...] = LABELS
) -> list[EncodedPair]:
    prompts = token_rows(3, 8, 2, 4, 7, 5, 6, 3, seed=4)
    chosen = token_rows(7, 4, 2, 5, 8, 1, 3, 6, seed=1)
    rejected = token_rows(2, 5, 9, 6, 4, 3, 8, 7, seed=2)
    return [
        EncodedPair(prompt, one, two, margin, *(label or (True, True)), labelled=label is not None)
        for prompt, one, two, margin, label in zip(prompts, chosen, rejected, margins, labels, strict=True)
    ]


def settings(**changes: Any) -> RewardModelSection:
    defaults: dict[str, Any] = {
        "epochs": 2,
        "batch_size_pairs": 8,
        "micro_batch_size_pairs": 8,
        "learning_rate": 1e-2,
    }
    return RewardModelSection(**{**defaults, **changes})
