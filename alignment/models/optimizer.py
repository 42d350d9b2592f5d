"""Optimisers for parameters that live in bfloat16: float32 master weights, as in mixed-precision training.

Adding a step of 1e-3 to a bfloat16 weight near 1 changes nothing (eight bits of mantissa), so training directly in
bfloat16 stalls. The optimiser therefore steps float32 copies and the result is rounded into the model (Micikevicius
et al. 2018, section 3.1). For float32 parameters the copies are the parameters themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class MasterWeights:
    """Float32 copies of some parameters, and the traffic between the two."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.masters: list[Tensor] = [
            p if p.dtype == torch.float32 else p.detach().float().clone() for p in self.parameters
        ]

    def take_gradients(self) -> None:
        """Hand the model's gradients to the masters."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is not parameter:
                master.grad = None if parameter.grad is None else parameter.grad.float()

    @torch.no_grad()
    def write_back(self) -> None:
        """Round the masters into the model."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is not parameter:
                parameter.copy_(master)

    @torch.no_grad()
    def load(self, masters: Sequence[Tensor]) -> None:
        """Take over masters from a checkpoint, in the same order."""
        for own, saved in zip(self.masters, masters, strict=True):
            own.copy_(saved)
        self.write_back()

    def clear_gradients(self) -> None:
        """Forget the gradients of both."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.grad = master.grad = None


class MasterWeightAdamW(torch.optim.AdamW):
    """``torch.optim.AdamW`` over float32 masters of the given parameters.

    Args:
        groups: dicts with ``params`` and their own ``lr`` or ``weight_decay``, as for any torch optimiser.
        lr: learning rate.
        betas: decay of the two moments; default from the paper (section 3.2.2).
        eps: default from the paper.
        weight_decay: default from the paper.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-5,
        weight_decay: float = 0.1,
    ) -> None:
        given = [{**group, "params": list(group["params"])} for group in groups]
        self.weights = MasterWeights([parameter for group in given for parameter in group["params"]])
        masters = iter(self.weights.masters)
        for group in given:
            group["params"] = [next(masters) for _ in group["params"]]
        super().__init__(given, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step the masters with the model's gradients, then round them into the model."""
        self.weights.take_gradients()
        loss = super().step(closure)
        self.weights.write_back()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the model's parameters."""
        self.weights.clear_gradients()
