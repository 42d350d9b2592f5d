"""Muon in a number format of choice, against torch's own and against singular values taken one by one."""

from __future__ import annotations

import pytest
import torch

from alignment.models.muon import Muon, orthogonalized

SETTINGS = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "ns_steps": 3}
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SHAPES = ((6, 10), (10, 6), (8, 8))


def stepped(optimizer: type[torch.optim.Muon], **settings: object) -> list[torch.Tensor]:
    """Matrices of three shapes after five steps on gradients that are drawn anew; one has none in the third."""
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    made = optimizer(matrices, **settings)  # type: ignore[arg-type]
    for step in range(5):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=generator)
        if step == 2:
            matrices[0].grad = None
        made.step()
    return [matrix.detach() for matrix in matrices]


@pytest.mark.parametrize("nesterov", [True, False])
def test_in_bfloat16_it_is_torchs_to_the_last_bit(nesterov: bool) -> None:
    ours = stepped(Muon, **SETTINGS, nesterov=nesterov, dtype=torch.bfloat16)
    torchs = stepped(torch.optim.Muon, **SETTINGS, nesterov=nesterov)
    assert all(torch.equal(one, other) for one, other in zip(ours, torchs, strict=True))


def test_in_float32_it_is_torchs_but_for_bfloat16s_rounding() -> None:
    ours = stepped(Muon, **SETTINGS, dtype=torch.float32)
    torchs = stepped(torch.optim.Muon, **SETTINGS)
    for one, other in zip(ours, torchs, strict=True):
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, atol=5 * 0.02 * 2**-6, rtol=0.0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_singular_values_go_through_the_polynomial_and_directions_stay(shape: tuple[int, int], steps: int) -> None:
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    left, values, right = torch.linalg.svd(given.double(), full_matrices=False)
    values = values / values.square().sum().sqrt()
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        values = a * values + b * values**3 + c * values**5
    found = orthogonalized(given.clone(), COEFFICIENTS, steps, 1e-7)
    torch.testing.assert_close(found.double(), left @ torch.diag(values) @ right, atol=1e-5, rtol=0.0)


def test_it_reports_the_loss_of_a_closure_that_takes_gradients() -> None:
    matrix = torch.nn.Parameter(torch.eye(2))

    def closure() -> float:
        loss = matrix.square().sum()
        loss.backward()
        return loss.item()

    assert Muon([matrix], dtype=torch.float32, **SETTINGS).step(closure) == 2.0
    assert not torch.equal(matrix.detach(), torch.eye(2))
