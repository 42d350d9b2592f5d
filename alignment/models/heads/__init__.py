"""Heads that turn hidden states of a transformer into scores: one per answer (reward) or per token (value).

``HEADS`` is where a plugin registers a head of its own::

    from alignment.models.heads import HEADS, RewardHead
    HEADS["mine"] = MyHead
"""

from alignment.models.heads.base_head import RewardHead
from alignment.models.heads.known_heads import HEADS

__all__ = ["HEADS", "RewardHead"]
