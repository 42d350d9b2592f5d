"""Kernels that Tandem replaces on a processor, against PyTorch's own; run alone: python benchmarks/cpu_kernels.py

Prints milliseconds per call, and the ratio.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention

from alignment.models.sampling.batch_sampling import draw_tokens


def milliseconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times[2:])[repeats // 2]


def attention(batch: int, tokens: int) -> None:
    """Forward and backward of causal attention, six heads of 32, on bfloat16 inputs."""
    inputs = [torch.randn(batch, 6, tokens, 32, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]

    def plain() -> None:
        scaled_dot_product_attention(*inputs, is_causal=True).sum().backward()

    def widened() -> None:
        wide = [item.float() for item in inputs]
        scaled_dot_product_attention(*wide, is_causal=True).to(torch.bfloat16).sum().backward()

    report(f"attention {batch} x {tokens} tokens", milliseconds(plain), milliseconds(widened))


def drawing(rows: int, vocabulary: int) -> None:
    """One token per row."""
    probabilities = torch.softmax(4 * torch.randn(rows, vocabulary), dim=-1)
    plain = milliseconds(lambda: torch.multinomial(probabilities, 1))
    report(f"drawing {rows} of {vocabulary}", plain, milliseconds(lambda: draw_tokens(probabilities)))


def report(what: str, plain: float, own: float) -> None:
    """One line."""
    print(f"{what:<32} PyTorch {plain:8.2f} ms   Tandem {own:8.2f} ms   {plain / own:5.1f} times as fast")


if __name__ == "__main__":
    for batch, tokens in ((16, 50), (64, 80), (128, 80)):
        attention(batch, tokens)
    for rows, vocabulary in ((512, 3072), (64, 32000)):
        drawing(rows, vocabulary)
