"""Heads that turn hidden states of a transformer into scores: one per answer (reward) or per token (value).

``HEADS`` is where a plugin registers a head of its own::

    from alignment.models.heads import HEADS, RewardHead
    HEADS["mine"] = MyHead

This package is the address that plugins know: the heads to build on stand in it under their names.
"""

from alignment.models.heads.base_head import RewardHead, TokenValueHead, linear_float32, pool_last, score_layer
from alignment.models.heads.known_heads import (
    HEADS,
    AttentionHead,
    LikelihoodHead,
    LinearHead,
    MlpHead,
    build_head,
    head_arguments,
)
from alignment.models.heads.many_score_heads import EnsembleHead, ManyOpinionsHead, ObjectivesHead, QuantileHead

__all__ = [
    "HEADS",
    "AttentionHead",
    "EnsembleHead",
    "LikelihoodHead",
    "LinearHead",
    "ManyOpinionsHead",
    "MlpHead",
    "ObjectivesHead",
    "QuantileHead",
    "RewardHead",
    "TokenValueHead",
    "build_head",
    "head_arguments",
    "linear_float32",
    "pool_last",
    "score_layer",
]
