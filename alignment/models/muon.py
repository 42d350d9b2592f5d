"""Muon in the number format of the training: torch's computes in bfloat16 whatever the hardware does fast.

On a processor without bfloat16 instructions that takes about thirty times as long as float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Muon(torch.optim.Muon):
    """``torch.optim.Muon`` (Jordan et al. 2024), equal to it to the last bit in bfloat16.

    Args:
        params: the matrices.
        dtype: the number format in which updates are orthogonalised.
        **settings: those of ``torch.optim.Muon``, which says what they are; ``adjust_lr_fn`` stays its default.
    """

    def __init__(self, params: Iterable[Tensor], *, dtype: torch.dtype, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every matrix that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                average = state["momentum_buffer"]
                average.lerp_(matrix.grad, 1 - group["momentum"])
                update = matrix.grad.lerp(average, group["momentum"]) if group["nesterov"] else average
                update = orthogonalized(
                    update.to(self.dtype, copy=True), group["ns_coefficients"], group["ns_steps"], group["eps"]
                )
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * math.sqrt(max(1, matrix.shape[0] / matrix.shape[1])))
        return loss


def orthogonalized(update: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """The update (M, N) with its singular values near one, by Newton-Schulz steps; ``update`` is overwritten.

    Args:
        update: what the momentum gives.
        coefficients: (a, b, c): each step takes a singular value s to a s + b s^3 + c s^5.
        steps: how many.
        eps: least norm that the update is divided by.
    """
    a, b, c = coefficients
    wide = update.T if update.shape[0] > update.shape[1] else update
    wide.div_(wide.norm().clamp(min=eps))
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if update.shape[0] > update.shape[1] else wide
