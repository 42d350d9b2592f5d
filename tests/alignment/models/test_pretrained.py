"""Widened attention: the plain kernel's result and gradients, closer to the truth than bfloat16 arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import load_tiny, token_rows
from torch import Tensor

from alignment.models.backbone import Backbone
from alignment.models.pretrained import WIDENED_ATTENTION


def hidden_and_gradient(backbone: Backbone, implementation: str) -> tuple[Tensor, Tensor]:
    """Hidden states of a padded batch, and the gradient of their sum by the embeddings."""
    backbone.base.set_attn_implementation(implementation)
    rows = token_rows(9, 5, 12)
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.tensor([row + [0] * (12 - len(row)) for row in rows])
    embeddings = backbone.base.get_input_embeddings().weight.requires_grad_(True)
    hidden = backbone.hidden_states(ids, lengths)
    real = hidden[torch.arange(12) < lengths[:, None]].float()
    (gradient,) = torch.autograd.grad(real.sin().sum(), embeddings)
    return real.detach(), gradient.float()


@pytest.mark.skipif(torch.cuda.is_available(), reason="only on a processor")
class TestWidenedAttention:
    def test_a_bfloat16_model_on_a_processor_gets_it_and_a_float32_one_does_not(
        self, tiny_folder: Callable[[str], Path]
    ) -> None:
        folder = tiny_folder("llama")
        assert load_tiny(folder, dtype="bfloat16").base.config._attn_implementation == WIDENED_ATTENTION
        assert load_tiny(folder, dtype="float32").base.config._attn_implementation == "sdpa"

    def test_in_float32_it_is_the_plain_kernel(self, any_backbone: Backbone) -> None:
        plain, widened = (hidden_and_gradient(any_backbone, name) for name in ("sdpa", WIDENED_ATTENTION))
        for one, other in zip(plain, widened, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)

    def test_in_bfloat16_it_is_no_further_from_the_truth(self, tiny_folder: Callable[[str], Path]) -> None:
        folder = tiny_folder("llama")
        truth = hidden_and_gradient(load_tiny(folder, dtype="float32"), "eager")
        half = load_tiny(folder, dtype="bfloat16")
        errors = {
            name: [
                (found - true).norm() / true.norm()
                for found, true in zip(hidden_and_gradient(half, name), truth, strict=True)
            ]
            for name in ("sdpa", WIDENED_ATTENTION)
        }
        assert all(error < 0.1 for error in errors[WIDENED_ATTENTION])
        assert all(mine <= 1.1 * plain for mine, plain in zip(errors[WIDENED_ATTENTION], errors["sdpa"], strict=True))

    def test_a_saved_model_does_not_name_it(self, tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
        load_tiny(tiny_folder("llama"), dtype="bfloat16").base.save_pretrained(tmp_path)
        assert WIDENED_ATTENTION not in (tmp_path / "config.json").read_text(encoding="utf-8")
