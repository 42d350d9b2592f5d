"""From logits to the log-probabilities of tokens, at the temperature that they are sampled at.

Shapes: N tokens that count, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignment.tensors.masking import at_least_float32


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities (N, V), at least float32: bf16 has too few digits for ratios near 1."""
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    logits = at_least_float32(logits)
    return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)


def token_logprobs(logits: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """Log-probability of each target token at the temperature that the rollout was sampled at.

    Args:
        logits: (N, V), those that predict the targets, of the tokens that count only.
        targets: (N,) token ids.
        temperature: divides the logits, in the policy as in the reference.

    Returns:
        (N,), at least float32.
    """
    return _tempered(logits, temperature).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def entropy(logits: Tensor, *, temperature: float) -> Tensor:
    """Entropy in nats of each distribution (N, V) -> (N,); logits of -inf count as probability 0."""
    logprobs = _tempered(logits, temperature)
    # 0 * log 0 = 0: with a finite stand-in for -inf neither the product nor its gradient is NaN.
    logprobs = logprobs.clamp_min(torch.finfo(logprobs.dtype).min)
    return -(logprobs.exp() * logprobs).sum(dim=-1)
