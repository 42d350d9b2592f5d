"""Episodes and what the roles say of them, against loops over single unpadded sequences."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import add_reward_model, add_role, separate_model, tiny_prompts, token_rows
from torch import Tensor
from transformers import PreTrainedModel

from alignment.data.encoded_dialogues import EncodedAnswer, EncodedPrompt
from alignment.models.backbone import Backbone, Role
from alignment.models.sampling.batch_sampling import SampledAnswers
from alignment.rl.rollout import (
    Episodes,
    ResponsePass,
    in_micro_batches,
    response_pass,
    response_states,
    reward_judgments,
    score_responses,
)

PROMPT_LENGTHS = (9, 3, 5, 12, 4)
ANSWER_LENGTHS = (2, 6, 1, 4, 8)
STOPPED = (True, False, True, True, False)
TEMPERATURE = 0.7


def answers_of(backbone: Backbone) -> list[list[int]]:
    """Answers of mixed lengths; those that stopped end with the stop token, and one unstopped one contains PAD."""
    rows = token_rows(*ANSWER_LENGTHS, seed=1)
    for row, stopped in zip(rows, STOPPED, strict=True):
        if stopped:
            row[-1] = backbone.encoder.stop_id
    rows[1][2] = rows[1][-1] = backbone.encoder.pad_id
    return rows


def sampled(rows: list[list[int]]) -> SampledAnswers:
    """The answers as one record, with room for more tokens, in which anything may stand."""
    ids = torch.tensor([row + [99] * (11 - len(row)) for row in rows])
    return SampledAnswers(ids, torch.tensor([len(row) for row in rows]), torch.tensor(STOPPED))


def episodes_of(backbone: Backbone, *, pad_id: int | None = None) -> Episodes:
    return Episodes.collect(
        [EncodedPrompt(*pair) for pair in zip(tiny_prompts(5), token_rows(*PROMPT_LENGTHS), strict=True)],
        sampled(answers_of(backbone)),
        pad_id=backbone.encoder.pad_id if pad_id is None else pad_id,
        device=backbone.device,
    )


def passed(backbone: Backbone, episodes: Episodes, role: str | None = "policy") -> ResponsePass:
    return response_pass(
        Role(backbone, role),
        episodes.token_ids,
        episodes.prompt_lengths,
        episodes.response_lengths,
        temperature=TEMPERATURE,
        with_entropy=True,
    )


def slow_loop(model: PreTrainedModel, prompt: list[int], answer: list[int]) -> tuple[list[float], list[float]]:
    """Log-probability and entropy of each answer token by the definition, one unpadded sequence."""
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].double() / TEMPERATURE
    logprobs, entropies = [], []
    for place, token in enumerate(answer):
        row = logits[len(prompt) + place - 1]
        probabilities = (row - row.max()).exp() / (row - row.max()).exp().sum()
        logprobs.append(probabilities[token].log().item())
        entropies.append(-sum(p * p.log() for p in probabilities).item())
    return logprobs, entropies


class TestEpisodes:
    def test_rows_are_sorted_by_length_and_stay_together(self, any_backbone: Backbone) -> None:
        episodes = episodes_of(any_backbone)
        prompts, answers = token_rows(*PROMPT_LENGTHS), answers_of(any_backbone)
        order = [2, 1, 0, 4, 3]  # by 6, 9, 11, 12, 16 tokens
        assert [prompt.id for prompt in episodes.prompts] == [f"p{row}" for row in order]
        assert episodes.prompt_lengths.tolist() == [PROMPT_LENGTHS[row] for row in order]
        assert episodes.response_lengths.tolist() == [ANSWER_LENGTHS[row] for row in order]
        assert episodes.stopped.tolist() == [STOPPED[row] for row in order]
        assert episodes.is_safety.tolist() == [row % 3 == 2 for row in order]
        messages = [prompt.messages for prompt in episodes.prompts]
        expected = [EncodedAnswer(prompts[row], answers[row], messages[place]) for place, row in enumerate(order)]
        assert episodes.dialogues() == expected
        assert [episodes.response_ids(row) for row in range(5)] == [answers[row] for row in order]

    def test_a_row_is_prompt_answer_and_padding(self, backbone: Backbone) -> None:
        prompts = [[7, 8, 9], [10], [11, 12]]
        episodes = Episodes.collect(
            [EncodedPrompt(*pair) for pair in zip(tiny_prompts(3), prompts, strict=True)],
            SampledAnswers(
                torch.tensor([[20, 0, 0, 0], [21, 22, 23, 0], [24, 25, 0, 0]]),
                torch.tensor([1, 3, 2]),
                torch.tensor([True, False, True]),
            ),
            pad_id=5,
            device=backbone.device,
        )
        # All are four tokens long: they stay in the order given. Rows are padded to a multiple of eight.
        assert episodes.token_ids.tolist() == [
            [7, 8, 9, 20, 5, 5, 5, 5],
            [10, 21, 22, 23, 5, 5, 5, 5],
            [11, 12, 24, 25, 5, 5, 5, 5],
        ]
        assert [prompt.id for prompt in episodes.prompts] == ["p0", "p1", "p2"]
        assert episodes.prompt_lengths.tolist() == [3, 1, 2]
        assert episodes.response_lengths.tolist() == [1, 3, 2]
        assert episodes.stopped.tolist() == [True, False, True]
        assert episodes.is_safety.tolist() == [False, False, True]

    def test_the_mask_comes_from_lengths(self, any_backbone: Backbone) -> None:
        mask = episodes_of(any_backbone).response_mask
        expected = [[1] * length + [0] * (8 - length) for length in (1, 6, 2, 8, 4)]
        assert mask.dtype == torch.bool
        assert mask.int().tolist() == expected


class TestResponsePass:
    def test_equals_a_slow_loop_over_single_sequences(self, any_backbone: Backbone, tmp_path: Path) -> None:
        add_role(any_backbone, "policy", seed=2)
        add_role(any_backbone, "other", seed=3)
        episodes = episodes_of(any_backbone)
        model = separate_model(any_backbone, "policy", tmp_path)
        with torch.no_grad():
            result = passed(any_backbone, episodes)
            for row, dialogue in enumerate(episodes.dialogues()):
                logprobs, entropies = slow_loop(model, dialogue.prompt_ids, dialogue.answer_ids)
                size = len(logprobs)
                assert result.logprobs[row, :size].tolist() == pytest.approx(logprobs, abs=2e-4)
                assert result.entropy[row, :size].tolist() == pytest.approx(entropies, abs=2e-4)
                assert not result.logprobs[row, size:].any()
                assert not result.entropy[row, size:].any()

    def test_states_are_those_that_predict_the_tokens(self, backbone: Backbone) -> None:
        add_role(backbone, "policy", seed=2)
        episodes = episodes_of(backbone)
        with torch.no_grad():
            states = passed(backbone, episodes).states
            for row, dialogue in enumerate(episodes.dialogues()):
                with backbone.role("policy"):
                    hidden = backbone.base.model(input_ids=torch.tensor([dialogue.input_ids])).last_hidden_state[0]
                start, size = int(episodes.prompt_lengths[row]), int(episodes.response_lengths[row])
                expected = hidden[start - 1 : start - 1 + size]
                torch.testing.assert_close(states[row, :size], expected, atol=2e-5, rtol=1e-4)

    def test_what_fills_the_padding_never_matters(self, backbone: Backbone) -> None:
        add_role(backbone, "policy", seed=2)
        clean, other = (episodes_of(backbone, pad_id=pad_id) for pad_id in (0, 77))
        assert not torch.equal(clean.token_ids, other.token_ids)
        for one, two in zip(passed(backbone, clean)[:2], passed(backbone, other)[:2], strict=True):
            assert torch.equal(one, two)

    def test_gradient_reaches_answers_only(self, backbone: Backbone) -> None:
        """A loss on one answer's first token: the states that predict others get no gradient through the loss."""
        add_role(backbone, "policy", seed=2)
        episodes = episodes_of(backbone)
        seen: list[Tensor] = []

        def keep(module: object, inputs: object, output: object) -> None:
            hidden = output.last_hidden_state  # type: ignore[attr-defined]
            hidden.retain_grad()
            seen.append(hidden)

        handle = backbone.base.base_model.register_forward_hook(keep)
        try:
            result = passed(backbone, episodes)
        finally:
            handle.remove()
        result.logprobs.sum().backward()
        gradient = seen[0].grad
        assert gradient is not None
        reached = gradient.abs().sum(-1) > 0
        for row in range(5):
            start, end = int(episodes.prompt_lengths[row]), int(episodes.lengths[row])
            expected = [start - 1 <= position < end - 1 for position in range(reached.shape[1])]
            assert reached[row].tolist() == expected

    def test_entropy_carries_no_gradient(self, backbone: Backbone) -> None:
        add_role(backbone, "policy", seed=2)
        result = passed(backbone, episodes_of(backbone))
        assert result.logprobs.requires_grad
        assert not result.entropy.requires_grad

    def test_a_row_alone_and_in_a_batch(self, backbone: Backbone) -> None:
        add_role(backbone, "policy", seed=2)
        episodes = episodes_of(backbone)
        with torch.no_grad():
            whole = passed(backbone, episodes).logprobs
            for row in range(5):
                rows = slice(row, row + 1)
                inputs = episodes.token_ids[rows], episodes.prompt_lengths[rows], episodes.response_lengths[rows]
                alone = response_pass(Role(backbone, "policy"), *inputs, temperature=TEMPERATURE).logprobs[0]
                torch.testing.assert_close(alone, whole[row, : len(alone)], atol=2e-5, rtol=1e-4)

    def test_entropy_is_computed_only_when_asked_for(self, backbone: Backbone) -> None:
        add_role(backbone, "policy", seed=2)
        episodes = episodes_of(backbone)
        inputs = episodes.token_ids, episodes.prompt_lengths, episodes.response_lengths
        plain = response_pass(Role(backbone, "policy"), *inputs, temperature=TEMPERATURE)
        whole = passed(backbone, episodes)
        assert not plain.entropy.any() and whole.entropy.any()
        assert torch.equal(plain.logprobs, whole.logprobs)


class TestScoreResponses:
    @pytest.mark.parametrize("size", [1, 2, 5])
    def test_micro_batches_change_nothing(self, any_backbone: Backbone, size: int) -> None:
        add_role(any_backbone, "policy", seed=2)
        episodes = episodes_of(any_backbone)
        with torch.no_grad():
            whole = passed(any_backbone, episodes)
        parts = score_responses(
            Role(any_backbone, "policy"),
            episodes,
            temperature=TEMPERATURE,
            micro_batch_size=size,
            with_entropy=True,
            values_of=lambda states, rows: states[..., 0] + torch.arange(5)[rows, None],
        )
        torch.testing.assert_close(parts.logprobs, whole.logprobs, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(parts.entropy, whole.entropy, atol=2e-5, rtol=1e-4)
        expected = whole.states[..., 0] + torch.arange(5)[:, None]
        mask = episodes.response_mask
        torch.testing.assert_close(parts.values[mask], expected[mask], atol=1e-4, rtol=1e-4)
        assert not parts.logprobs.requires_grad

    def test_fresh_adapter_equals_the_base(self, backbone: Backbone) -> None:
        from tiny import LORA

        backbone.add_adapter("policy", LORA)
        episodes = episodes_of(backbone)
        arguments = {"temperature": TEMPERATURE, "micro_batch_size": 2}
        own = score_responses(Role(backbone, "policy"), episodes, **arguments)
        bare = score_responses(Role(backbone, None), episodes, **arguments)
        assert torch.equal(own.logprobs, bare.logprobs)

    def test_slices_cover_every_row_once(self) -> None:
        rows = [row for piece in in_micro_batches(7, 3) for row in range(7)[piece]]
        assert rows == list(range(7))
        assert [piece.stop - piece.start for piece in in_micro_batches(7, 3)] == [3, 3, 1]


def test_reward_scores_equal_those_of_each_model_alone(any_backbone: Backbone) -> None:
    models = {
        name: add_reward_model(any_backbone, name, seed=seed) for seed, name in enumerate(("helpfulness", "safety"))
    }
    add_role(any_backbone, "policy", seed=2)
    episodes = episodes_of(any_backbone)
    alone = {
        name: [model.score([dialogue], batch_size=1).item() for dialogue in episodes.dialogues()]
        for name, model in models.items()
    }
    inputs = episodes.token_ids, episodes.prompt_lengths, episodes.response_lengths
    response_states(Role(any_backbone, "policy"), *inputs)
    together = reward_judgments(models, episodes, batch_size=2)
    for name, scores in alone.items():
        assert together[name].scores.tolist() == pytest.approx(scores, abs=1e-5)
    assert alone["helpfulness"] != pytest.approx(alone["safety"], abs=0.05)


def test_an_ensembles_disagreement_is_the_deviation_of_its_members(backbone: Backbone) -> None:
    model = add_reward_model(backbone, "helpfulness", head_name="ensemble")
    alone = add_reward_model(backbone, "safety")
    add_role(backbone, "policy", seed=2)
    episodes = episodes_of(backbone)
    expected = []
    for dialogue in episodes.dialogues():
        ids = torch.tensor([dialogue.input_ids])
        n_answer = len(dialogue.answer_ids)
        (opinions,) = model(ids, torch.tensor([ids.shape[1] - n_answer]), torch.tensor([[n_answer]]), opinions=True)[0]
        mean = sum(opinions.tolist()) / len(opinions)
        expected.append((sum((x - mean) ** 2 for x in opinions.tolist()) / len(opinions)) ** 0.5)
    found = reward_judgments({"helpfulness": model, "safety": alone}, episodes, batch_size=3)
    assert found["helpfulness"].disagreement is not None
    assert found["helpfulness"].disagreement.tolist() == pytest.approx(expected, abs=1e-4)
    assert min(expected) > 0.01
    assert found["safety"].disagreement is None
