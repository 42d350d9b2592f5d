"""Answers that share a row with others see exactly what they would see alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import add_reward_model, add_role, token_rows
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.masks_padding_logprobs import group_by_length, group_sizes
from alignment.models import shared_prompts
from alignment.models.backbone import Backbone
from alignment.models.pretrained import WIDENED_ATTENTION
from alignment.models.shared_prompts import (
    SharedPrompts,
    batches_by_prompt,
    can_share,
    dialogue_states,
    pack_answers,
)

CPU = torch.device("cpu")
PROMPTS, ANSWERS = token_rows(9, 2, 5, seed=3), token_rows(4, 1, 7, 3, 12, 2, 6, 5, 1, seed=4)
SHARING = ("gemma", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "qwen3_moe")
ROWS = [[EncodedAnswer(prompt, answer) for answer in ANSWERS[3 * n : 3 * n + 3]] for n, prompt in enumerate(PROMPTS)]


def random_model(family: str, attention: str = "sdpa", **settings: Any) -> PreTrainedModel:
    """Two blocks of random weights, large enough for a wrong position or mask to show."""
    shape: dict[str, Any] = {
        "vocab_size": 210,
        "hidden_size": 16,
        "intermediate_size": 24,
        "moe_intermediate_size": 12,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "max_position_embeddings": 64,
        "initializer_range": 0.4,
        "sliding_window": None,
        "pad_token_id": None,
    }
    torch.manual_seed(5)
    config = AutoConfig.for_model(family, **{**shape, **settings})
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def states_alone(model: PreTrainedModel, answer: EncodedAnswer) -> Tensor:
    """Hidden states (L, H) of one dialogue that passes by itself."""
    states: Tensor = model.base_model(input_ids=torch.tensor([answer.input_ids]), use_cache=False).last_hidden_state[0]
    return states


class TestStates:
    @pytest.mark.parametrize("attention", ["sdpa", "eager", WIDENED_ATTENTION])
    @pytest.mark.parametrize("family", [*SHARING, "opt"])
    @torch.no_grad()
    def test_are_those_of_each_dialogue_alone(self, backbone: Backbone, family: str, attention: str) -> None:
        backbone.base = random_model(family, "eager" if family == "opt" else attention)
        assert can_share(backbone.base) == (family in SHARING)
        token_ids, *lengths = pack_answers(ROWS, 0, CPU)
        states = dialogue_states(backbone, token_ids, SharedPrompts(*lengths))
        for dialogue, found in zip([answer for row in ROWS for answer in row], states, strict=True):
            expected = states_alone(backbone.base, dialogue)
            assert expected.std() > 0.1
            torch.testing.assert_close(found[: len(expected)], expected, atol=2e-5, rtol=1e-4)

    @torch.no_grad()
    def test_in_bfloat16_too(self, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        backbone.base = random_model("llama").to(torch.bfloat16)
        masks: list[Tensor] = []
        forward = backbone.base.base_model.forward

        def noted(**inputs: Any) -> Any:
            masks.append(inputs["attention_mask"])
            return forward(**inputs)

        monkeypatch.setattr(backbone.base.base_model, "forward", noted)
        token_ids, *lengths = pack_answers(ROWS, 0, CPU)
        states = dialogue_states(backbone, token_ids, SharedPrompts(*lengths))
        assert [mask.dtype for mask in masks] == [torch.bfloat16], "a GPU takes no other"
        monkeypatch.undo()
        expected = states_alone(backbone.base, ROWS[0][2])
        assert states.dtype == torch.bfloat16
        torch.testing.assert_close(states[2, : len(expected)], expected, atol=0.1, rtol=0.1)

    @torch.no_grad()
    def test_the_prompt_passes_once(self, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        passed: list[int] = []
        forward = backbone.base.base_model.forward

        def counted(**inputs: Any) -> Any:
            passed.append(inputs["input_ids"].numel())
            return forward(**inputs)

        monkeypatch.setattr(backbone.base.base_model, "forward", counted)
        token_ids, *lengths = pack_answers(ROWS, 0, CPU)
        dialogue_states(backbone, token_ids, SharedPrompts(*lengths))
        assert passed == [token_ids.numel()]

    @pytest.mark.parametrize(
        ("family", "settings"),
        [
            ("mistral", {"sliding_window": 4}),
            ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}),
            ("gemma2", {"sliding_window": 4}),
            ("bloom", {}),
        ],
    )
    @torch.no_grad()
    def test_of_other_attention_pass_alone(self, backbone: Backbone, family: str, settings: dict[str, Any]) -> None:
        """A window or ALiBi would be lost in the mask; what is not known to work is not tried."""
        backbone.base = random_model(family, "eager", **settings)
        assert not can_share(backbone.base)
        token_ids, *lengths = pack_answers(ROWS, 0, CPU)
        states = dialogue_states(backbone, token_ids, SharedPrompts(*lengths))
        expected = states_alone(backbone.base, ROWS[0][2])
        torch.testing.assert_close(states[2, : len(expected)], expected, atol=2e-5, rtol=1e-4)

    @pytest.mark.parametrize("head_name", ["linear", "likelihood"])
    def test_gradients_are_those_of_each_dialogue_alone(
        self, any_backbone: Backbone, head_name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_role(any_backbone, "unused")
        model = add_reward_model(any_backbone, "helpfulness", seed=3, head_name=head_name)
        parameters = model.trainable_parameters()
        for parameter in parameters:
            parameter.requires_grad_(True)
        weights = torch.arange(1.0, 10.0).view(3, 3)
        results = []
        for shares in (True, False):
            monkeypatch.setattr(shared_prompts, "can_share", lambda base, shares=shares: shares)
            scores = model(*pack_answers(ROWS, 0, CPU))
            results.append((scores, torch.autograd.grad((scores * weights).sum(), parameters)))
        torch.testing.assert_close(results[0][0], results[1][0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(results[0][1], results[1][1], atol=2e-3, rtol=1e-3)


@given(prompt=st.integers(1, 5), answers=st.lists(st.integers(1, 4), min_size=2, max_size=4), extra=st.integers(0, 3))
def test_positions_and_mask_by_walking_through_the_row(prompt: int, answers: list[int], extra: int) -> None:
    owner = [0] * prompt + [k for k, length in enumerate(answers, start=1) for _ in range(length)]
    place = [*range(prompt), *(prompt + step for length in answers for step in range(length))]
    shared = SharedPrompts(torch.tensor([prompt]), torch.tensor([answers]))
    positions, visible = shared.positions_and_mask(len(owner) + extra)
    assert positions[0, : len(owner)].tolist() == place
    for query, its_owner in enumerate(owner):
        seen = visible[0, 0, query].nonzero().flatten().tolist()
        assert seen == [key for key in range(query + 1) if owner[key] in (0, its_owner)]
    assert bool(visible.any(-1).all())  # padding attends to something, too: no row of -inf
    assert shared.dialogue_lengths.tolist() == [prompt + length for length in answers]
    dialogues = shared.split(torch.arange(len(owner) + extra)[None])
    for k, (found, length) in enumerate(zip(dialogues, answers, strict=True), start=1):
        expected = [column for column, whose in enumerate(owner) if whose in (0, k)]
        assert found[: prompt + length].tolist() == expected


def test_rows_of_a_group_are_neighbours_in_length() -> None:
    lengths = torch.tensor([400, 8, 390, 16, 8])
    # Another pass costs 256 tokens of padding: too much to spare two rows of 8 that of 16, or one of 392 that of 400.
    groups = group_by_length(lengths, most=32)
    assert [sorted(group.tolist()) for group in groups] == [[1, 3, 4], [0, 2]]
    assert [len(group) for group in group_by_length(lengths, most=1)] == [1] * 5


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5), cost=st.integers(0, 90), most=st.integers(1, 5))
def test_no_other_grouping_by_length_costs_less(lengths: list[int], cost: int, most: int) -> None:
    lengths.sort()

    def total(sizes: Sequence[int]) -> int:
        widths = [-(-lengths[end - 1] // 8) * 8 for end in itertools.accumulate(sizes)]
        return sum(size * width for size, width in zip(sizes, widths, strict=True)) + cost * len(sizes)

    all_sizes = (sizes for n in range(len(lengths)) for sizes in itertools.product(range(1, most + 1), repeat=n + 1))
    allowed = [sizes for sizes in all_sizes if sum(sizes) == len(lengths)]
    found = group_sizes(lengths, pass_tokens=cost, most=most)
    assert tuple(found) in allowed
    assert total(found) == min(map(total, allowed))


class TestBatches:
    DIALOGUES = (*ROWS[0], ROWS[1][0], *ROWS[2][:2])

    @pytest.mark.parametrize(("batch_size", "shared"), [(1, 1), (4, 1), (2, 2), (6, 3), (100, 8)])
    def test_every_dialogue_is_there_once_with_its_own_prompt(self, batch_size: int, shared: int) -> None:
        batches = list(batches_by_prompt(self.DIALOGUES, batch_size=batch_size, shared=shared))
        assert sorted(index for batch in batches for row in batch for index in row) == list(range(6))
        for batch in batches:
            assert len({len(row) for row in batch}) == 1
            assert sum(map(len, batch)) <= batch_size
            for row in batch:
                assert len(row) <= shared
                assert len({tuple(self.DIALOGUES[index].prompt_ids) for index in row}) == 1

    def test_answers_of_one_prompt_are_together(self) -> None:
        rows = [row for batch in batches_by_prompt(self.DIALOGUES, batch_size=8, shared=8) for row in batch]
        assert sorted(rows) == [[0, 1, 2], [3], [4, 5]]

    def test_scores_come_back_in_order(self, backbone: Backbone) -> None:
        model = add_reward_model(backbone, "helpfulness", seed=3)
        alone = [model.score([dialogue], batch_size=1).item() for dialogue in self.DIALOGUES]
        assert model.score(self.DIALOGUES, batch_size=4).tolist() == pytest.approx(alone, abs=1e-5)
