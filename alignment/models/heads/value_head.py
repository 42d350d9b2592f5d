"""The value head of PPO: a value per token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alignment.errors import UserError
from alignment.models.heads.base_head import RewardHead, linear_float32
from alignment.models.heads.single_score_heads import LikelihoodHead, LinearHead


class TokenValueHead(nn.Module):
    """The value function's head: a linear map with bias of each token's hidden state."""

    def __init__(self, hidden_size: int) -> None:
        """Make a head that values everything at zero until it is trained."""
        super().__init__()
        self.value = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    @classmethod
    def from_reward_head(cls, head: RewardHead) -> TokenValueHead:
        """Start from a copy of a reward head's linear map (bias 0); the reward head itself is not touched.

        Raises:
            UserError: the head is of another kind.
        """
        if not isinstance(head, (LinearHead, LikelihoodHead)):
            raise UserError(
                "a value head can start from the reward heads 'linear' and 'likelihood' only, not from "
                f"{type(head).__name__}; train the helpfulness model with one of them, or pass ppo.value=head"
            )
        made = cls(head.score.in_features)
        with torch.no_grad():
            made.value.weight.copy_(head.score.weight)
        return made.to(head.score.weight.device)

    def forward(self, hidden: Tensor) -> Tensor:
        """Value of each position: (B, R, H) -> (B, R) float32."""
        return linear_float32(self.value, hidden).squeeze(-1)
