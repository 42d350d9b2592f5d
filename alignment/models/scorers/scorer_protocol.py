"""What PPO, rejection sampling and evaluation need of a reward model, wherever its weights are.

Shapes: B dialogues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor

from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.errors import UserError
from alignment.models.backbone import Backbone, Role
from alignment.models.heads.base_head import RewardHead

OnBatch = Callable[[int], None] | None
"""Called with the number of answers just scored."""


class RewardJudgment(NamedTuple):
    """What a reward model says of dialogues."""

    scores: Tensor
    """(B,) raw scores, on the CPU."""
    disagreement: Tensor | None
    """(B,) standard deviation of the opinions behind each score; ``None`` where there is one opinion."""


class ValueStart(NamedTuple):
    """What a value function can start from."""

    role: Role
    """Reads the dialogues."""
    head: RewardHead
    """Its linear map makes scores of the role's states."""


class RewardScorer(Protocol):
    """Whatever scores answers: a reward model on the shared base, one beside it, or several of them."""

    def judge(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> RewardJudgment:
        """Scores of dialogues encoded for the policy, and how far the opinions behind them are apart."""

    def score(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> Tensor:
        """Raw scores (B,), on the CPU, of dialogues encoded for the policy."""

    def value_start(self, backbone: Backbone, *, whole: bool) -> ValueStart:
        """What PPO's value function can start from.

        Args:
            backbone: the policy's base.
            whole: the value function has all its weights to itself, so that it may start from a model that has as well.

        Raises:
            UserError: the scores come from another model than the policy's base, or from several.
        """

    @property
    def folders(self) -> list[Path]:
        """Where it lies, for the record of what a stage was made from."""


def no_value_start(found: str = "a helpfulness model on another base", instead: str = "ppo.value=head") -> UserError:
    """The error of reward models that a value function cannot start from."""
    return UserError(f"the value role cannot start from {found}; pass {instead}")


def check_finite(scores: Tensor, name: str) -> None:
    """Raise ``UserError`` where a score (B,) is not a number: nothing that follows from it would mean anything."""
    bad = scores.isfinite().logical_not()
    if bad.any():
        raise UserError(
            f"the reward model {name} gives scores that are not finite ({scores[bad][0].item()} to {int(bad.sum())} of "
            f"{len(scores)} answers): its weights are damaged, or overflow in this number format. Train it again, or "
            "pass model.dtype=float32."
        )
