"""One judgment of a pair with the scores that a reward model gave its two answers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True)
class ScoredPair:
    """One judgment; several of one pair are several of these, with the same conversation.

    Attributes:
        id: of the judgment.
        conversation_id: judgments with the same one are not independent.
        dimension: what was asked, such as helpfulness or safety.
        grade: strength of the preference; ``None`` where the data has none.
        turns: user turns of the prompt.
        chosen: raw score of the preferred answer, before any sigmoid.
        rejected: raw score of the other answer.
        chosen_tokens: length of the preferred answer.
        rejected_tokens: length of the other answer.
        chosen_safe: label; ``None`` where nobody was asked.
        rejected_safe: label; ``None`` where nobody was asked.
        chosen_key: equal where prompt and preferred answer are; ``None``: like no other.
        rejected_key: the same for the other answer.
    """

    id: str
    conversation_id: str
    dimension: str
    grade: str | None
    turns: int
    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int
    chosen_safe: bool | None
    rejected_safe: bool | None
    chosen_key: Hashable | None = None
    rejected_key: Hashable | None = None

    @property
    def extra_tokens(self) -> int:
        """By how many tokens the preferred answer is longer."""
        return self.chosen_tokens - self.rejected_tokens
