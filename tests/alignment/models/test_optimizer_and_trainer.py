"""Float32 masters: the same steps as torch's AdamW, and progress where bfloat16 alone stands still."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alignment.models.optimizer_and_trainer import MasterWeightAdamW


def made(dtype: torch.dtype) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(size, generator=generator).to(dtype)) for size in ((3, 4), (5,))]


def targets() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, generator=generator) for size in ((3, 4), (5,))]


def train(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss = sum(((p.float() - t) ** 2).sum() for p, t in zip(parameters, targets(), strict=True))
        assert isinstance(loss, Tensor)
        loss.backward()
        optimizer.step()


PAPER: dict[str, Any] = {"betas": (0.9, 0.95), "eps": 1e-5, "weight_decay": 0.1}


class TestFloat32:
    def test_equals_torch_with_the_papers_defaults(self) -> None:
        ours, theirs = made(torch.float32), made(torch.float32)
        train(MasterWeightAdamW([{"params": ours}], lr=0.05), ours, 7)
        train(torch.optim.AdamW(theirs, lr=0.05, **PAPER), theirs, 7)
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))

    def test_groups_keep_their_own_rates(self) -> None:
        ours, theirs = made(torch.float32), made(torch.float32)
        rates = ({"lr": 0.2, "weight_decay": 0.0}, {})
        train(MasterWeightAdamW([{"params": [p], **r} for p, r in zip(ours, rates, strict=True)], lr=0.01), ours, 5)
        grouped = [{"params": [p], **r} for p, r in zip(theirs, rates, strict=True)]
        train(torch.optim.AdamW(grouped, lr=0.01, **PAPER), theirs, 5)
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))

    def test_no_second_copy_is_kept(self) -> None:
        parameters = made(torch.float32)
        optimizer = MasterWeightAdamW([{"params": parameters}], lr=0.1)
        assert all(one is other for one, other in zip(optimizer.param_groups[0]["params"], parameters, strict=True))


class TestBfloat16:
    def test_small_steps_add_up_where_bfloat16_alone_stalls(self) -> None:
        ours, naive = nn.Parameter(torch.ones(4).bfloat16()), nn.Parameter(torch.ones(4).bfloat16())
        settings = {"lr": 1e-3, "weight_decay": 0.0}
        for parameter, optimizer in (
            (ours, MasterWeightAdamW([{"params": [ours]}], **settings)),
            (naive, torch.optim.AdamW([naive], **settings)),
        ):
            for _ in range(50):
                optimizer.zero_grad()
                parameter.sum().backward()
                optimizer.step()
        assert naive.tolist() == [1.0] * 4, "1 - 0.001 rounds to 1 in bfloat16"
        # Adam divides a constant gradient by itself: 50 steps of 0.001, then one rounding of 0.95 (step 2^-8).
        assert ours.tolist() == pytest.approx([0.95] * 4, abs=2**-9)

    def test_masters_follow_float32_adamw_and_the_model_holds_them_rounded(self) -> None:
        ours, theirs = made(torch.bfloat16), [nn.Parameter(p.detach().float()) for p in made(torch.bfloat16)]
        optimizer = MasterWeightAdamW([{"params": ours}], lr=0.01)
        reference = torch.optim.AdamW(theirs, lr=0.01, **PAPER)
        generator = torch.Generator().manual_seed(2)
        for _ in range(6):
            for one, other in zip(ours, theirs, strict=True):
                one.grad = torch.randn(one.shape, generator=generator).bfloat16()
                other.grad = one.grad.float()
            optimizer.step()
            reference.step()
        for one, master, other in zip(ours, optimizer.weights.masters, theirs, strict=True):
            assert torch.equal(master, other)
            assert torch.equal(one, other.bfloat16())

    def test_gradients_that_are_taken_one_after_the_other_are_summed_in_float32(self) -> None:
        parameter = nn.Parameter(torch.zeros(1).bfloat16())
        optimizer = MasterWeightAdamW([{"params": [parameter]}], lr=1.0)
        for gradient in (1.0, 2**-9):  # 1 + 2^-9 is 1 in bfloat16
            parameter.grad = torch.tensor([gradient]).bfloat16()
            optimizer.weights.take_gradients()
        (master,) = optimizer.weights.masters
        assert master.grad is not None and master.grad.tolist() == [1 + 2**-9] and parameter.grad is None
        optimizer.step()
        assert master.grad is None, "the next step begins anew, whoever clears the model's gradients"

    def test_a_gradient_clipped_in_the_model_is_what_is_stepped_with(self) -> None:
        parameter = nn.Parameter(torch.zeros(2).bfloat16())
        optimizer = MasterWeightAdamW([{"params": [parameter]}], lr=1.0, eps=1.0, betas=(0.0, 0.0), weight_decay=0.0)
        parameter.grad = torch.tensor([30.0, 40.0]).bfloat16()
        nn.utils.clip_grad_norm_([parameter], 5.0)
        optimizer.step()
        # clipped to (3, 4); the step is -g / (|g| + 1)
        assert parameter.tolist() == pytest.approx([-3 / 4, -4 / 5], abs=2**-8)

    def test_parameters_without_gradient_stay(self) -> None:
        used, idle = nn.Parameter(torch.ones(2).bfloat16()), nn.Parameter(torch.ones(2).bfloat16())
        optimizer = MasterWeightAdamW([{"params": [used, idle]}], lr=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            used.sum().backward()
            optimizer.step()
        assert idle.tolist() == [1.0, 1.0]
        assert used.tolist() != [1.0, 1.0]

    def test_old_gradients_are_forgotten(self) -> None:
        parameter = nn.Parameter(torch.ones(2).bfloat16())
        optimizer = MasterWeightAdamW([{"params": [parameter]}], lr=0.5)
        parameter.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert parameter.grad is None
        before = parameter.tolist()
        optimizer.step()
        assert parameter.tolist() == before
