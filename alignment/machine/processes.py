"""Several processes as one: a batch is always the global batch, split by place and joined in the same order.

Accelerate starts and connects the processes; alone, nothing is connected. Each process works on every n-th row of the
batch, what they found is joined, and gradients are summed, not averaged: losses are divided by the token count of the
global minibatch beforehand, so that any number of processes takes the same step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch import Tensor, nn

from alignment.machine.device import pick_device

Item = TypeVar("Item")


class Processes:
    """This process and its peers."""

    def __init__(self) -> None:
        state = PartialState(cpu=pick_device().type == "cpu")
        self.count: int = state.num_processes
        self.rank: int = state.process_index

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, n_rows: int) -> list[int]:
        """Places of this process in a batch of ``n_rows``: every n-th one, so that sorted batches split evenly."""
        return list(range(self.rank, n_rows, self.count))

    def join(self, own: Sequence[Item], n_rows: int) -> list[Item]:
        """What all processes found for their shares, in the order of the global batch."""
        if self.count == 1:
            return list(own)
        found: list[Item] = gather_object(list(own))
        places = [place for rank in range(self.count) for place in range(rank, n_rows, self.count)]
        return [item for _, item in sorted(zip(places, found, strict=True), key=lambda pair: pair[0])]

    def join_rows(self, own: Tensor, n_rows: int) -> Tensor:
        """Rows of all processes' tensors in the order of the global batch; equal shapes except for the first axis."""
        if self.count == 1:
            return own
        return torch.stack(self.join([row.cpu() for row in own], n_rows)).to(own.device)

    def sum(self, figures: dict[str, float]) -> dict[str, float]:
        """Sums over all processes, key by key."""
        if self.count == 1:
            return figures
        total = reduce(torch.tensor(list(figures.values()), dtype=torch.float64, device=PartialState().device), "sum")
        return dict(zip(figures, total.tolist(), strict=True))

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over all processes; one without rows of a minibatch adds zeros."""
        if self.count == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        # A weight that no process has a gradient for, such as an unused output layer, is to keep none.
        used = self.sum({str(place): float(p.grad is not None) for place, p in enumerate(trained)})
        wanted = [p for p, count in zip(trained, used.values(), strict=True) if count]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in wanted]
        flat = torch.cat([gradient.flatten().float() for gradient in gradients])
        parts: Any = reduce(flat, "sum").split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(wanted, parts, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def from_main(self, item: Item) -> Item:
        """The main process's item, in all processes."""
        if self.count == 1:
            return item
        found: list[Item] = gather_object([item])
        return found[0]

    def wait(self) -> None:
        """Go on when all processes have come here."""
        PartialState().wait_for_everyone()
