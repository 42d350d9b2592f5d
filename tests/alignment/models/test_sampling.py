"""Sampling: the plain softmax at a temperature, whatever the batch, the padding and the compaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from scipy.stats import chisquare
from tiny import TEXTS, add_role, load_tiny, token_rows
from torch import Tensor

from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.data.records import Message, Prompt
from alignment.models.backbone import Backbone, Role
from alignment.models.sampling.batch_sampling import SampledAnswers, answer_prompts, draw_tokens, keyed_noise, sample
from alignment.settings.sections import SamplingSection

COLD = 1e-4
"""A temperature at which the likeliest token is drawn: two tokens are never this close."""

PLAIN = Prompt(id="p", messages=(Message(role="user", content="of which the tokens alone are read"),))


class Answer(NamedTuple):
    """One answer: its tokens, the stop token included where there is one."""

    token_ids: list[int]
    stopped: bool


def draw(
    backbone: Backbone,
    prompts: list[list[int]],
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 8,
    batch_size_prompts: int = 64,
    role: str | None = "policy",
) -> list[Answer]:
    answers = sample(
        Role(backbone, role),
        prompts,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        batch_size_prompts=batch_size_prompts,
    )
    return [Answer(*pair) for pair in zip(answers.row_ids(), answers.stopped.tolist(), strict=True)]


@torch.no_grad()
def next_logits(backbone: Backbone, ids: list[int], role: str | None = "policy") -> Tensor:
    """Logits (V,) after one unpadded sequence, without any cache."""
    with backbone.role(role):
        return backbone.base(input_ids=torch.tensor([ids])).logits[0, -1]


def greedy(backbone: Backbone, prompt: list[int], limit: int, role: str | None) -> Answer:
    """The likeliest answer by a slow loop."""
    answer: list[int] = []
    while len(answer) < limit:
        answer.append(int(next_logits(backbone, prompt + answer, role).argmax()))
        if answer[-1] in backbone.encoder.stop_ids:
            return Answer(answer, stopped=True)
    return Answer(answer, stopped=False)


def end_at_many_tokens(backbone: Backbone) -> None:
    """Greedy answers of mixed lengths: some of the likeliest tokens stop, the usual stop token no longer is likely."""
    backbone.encoder.stop_ids = frozenset({8, 32, 48, 239})
    with torch.no_grad():
        backbone.base.get_output_embeddings().weight[backbone.encoder.stop_id] = 0.0


def prompts_of(backbone: Backbone) -> list[list[int]]:
    """Prompts of very different lengths, in no order of length."""
    texts = [*TEXTS, "s", "the sun and the sea", "a"]
    return [backbone.encoder.encode_prompt([Message(role="user", content=text)]) for text in texts]


class TestGreedyAnswers:
    """At a temperature near 0 every answer is determined, so it can be compared token by token."""

    @pytest.mark.parametrize("batch_size", [1, 3, 64])
    def test_every_prompt_gets_its_own_answer(self, any_backbone: Backbone, batch_size: int) -> None:
        add_role(any_backbone, "policy", seed=0)
        end_at_many_tokens(any_backbone)
        prompts = token_rows(5, 14, 3, 9, 9, 4, 20, 6, 11, 8, 2, 7)
        expected = [greedy(any_backbone, prompt, 7, "policy") for prompt in prompts]
        drawn = draw(any_backbone, prompts, temperature=COLD, max_new_tokens=7, batch_size_prompts=batch_size)
        assert drawn == expected
        assert len({tuple(item.token_ids) for item in expected}) >= 6, "answers tell prompts apart"
        assert len({len(item.token_ids) for item in expected}) >= 3, "rows finish at different times"

    @pytest.mark.parametrize("copying", [False, True])
    def test_the_role_is_the_one_asked_for(self, tiny_folder: Callable[[str], Path], copying: bool) -> None:
        backbone = load_tiny(tiny_folder("llama"), sampling_copy=copying)
        prompts = token_rows(5, 14, 3, 9)
        for seed, role in enumerate(("policy", "other")):
            add_role(backbone, role, seed=seed)
        answers = {}
        for role in ("policy", None, "other"):
            answers[role] = draw(backbone, prompts, temperature=COLD, max_new_tokens=4, role=role)
            assert answers[role] == [greedy(backbone, prompt, 4, role) for prompt in prompts]
        assert answers["policy"] != answers["other"] != answers[None]

    def test_answers_come_back_in_the_order_of_the_prompts_however_long_these_are(self, any_backbone: Backbone) -> None:
        add_role(any_backbone, "policy", seed=0)
        end_at_many_tokens(any_backbone)
        rows = token_rows(5, 14, 3, 9, 9, 4, 20, 6)
        answers = answer_prompts(
            Role(any_backbone, "policy"),
            [EncodedPrompt(PLAIN, row) for row in rows],
            SamplingSection(temperature=COLD, max_new_tokens=7, batch_size_prompts=3),
        )
        expected = [greedy(any_backbone, row, 7, "policy") for row in rows]
        assert len({tuple(item.token_ids) for item in expected}) >= 5, "answers tell prompts apart"
        assert answers.row_ids() == [item.token_ids for item in expected]
        assert answers.stopped.tolist() == [item.stopped for item in expected]

    def test_an_answer_may_fill_the_context_and_no_more(self, backbone: Backbone) -> None:
        settings = SamplingSection(temperature=1.0, max_new_tokens=7, batch_size_prompts=1)
        fits = [1] * (backbone.context_tokens - 7)
        assert answer_prompts(Role(backbone, None), [EncodedPrompt(PLAIN, fits)], settings).token_ids.shape == (1, 7)
        with pytest.raises(AssertionError, match="97 tokens do not fit in 96"):
            answer_prompts(Role(backbone, None), [EncodedPrompt(PLAIN, [1, *fits])], settings)


class TestStopping:
    def test_nothing_follows_the_stop_token_which_is_part_of_the_answer(self, any_backbone: Backbone) -> None:
        add_role(any_backbone, "policy")
        torch.manual_seed(0)
        drawn = draw(any_backbone, prompts_of(any_backbone) * 8, max_new_tokens=10)
        stops = any_backbone.encoder.stop_ids
        assert {item.stopped for item in drawn} == {True, False}
        assert len({len(item.token_ids) for item in drawn if item.stopped}) >= 3
        for item in drawn:
            assert not stops & set(item.token_ids[:-1])
            assert (item.token_ids[-1] in stops) == item.stopped
            assert item.stopped or len(item.token_ids) == 10

    def test_every_stop_id_stops(self, backbone: Backbone) -> None:
        add_role(backbone, "policy")
        backbone.encoder.stop_ids = frozenset(range(0, 300, 2))
        torch.manual_seed(0)
        drawn = draw(backbone, prompts_of(backbone) * 4, max_new_tokens=5)
        for item in drawn:
            assert all(token % 2 for token in item.token_ids[:-1])
            assert item.stopped == (item.token_ids[-1] % 2 == 0)

    def test_an_answer_that_stops_with_its_last_token_has_stopped(self, backbone: Backbone) -> None:
        add_role(backbone, "policy")
        backbone.encoder.stop_ids = frozenset(range(300))
        assert all(
            item.stopped and len(item.token_ids) == 1 for item in draw(backbone, token_rows(3), max_new_tokens=1)
        )

    def test_progress_counts_each_answer_once(self, backbone: Backbone) -> None:
        add_role(backbone, "policy")
        counts: list[int] = []
        sample(
            Role(backbone, "policy"),
            token_rows(3, 4, 5, 6, 7),
            temperature=1.0,
            max_new_tokens=1,
            batch_size_prompts=2,
            on_batch=counts.append,
        )
        assert sum(counts) == 5


class TestSampledAnswers:
    def test_row_ids_leave_the_padding_out(self) -> None:
        answers = SampledAnswers(
            torch.tensor([[4, 5, 0], [6, 0, 0], [0, 7, 8]]), torch.tensor([2, 1, 3]), torch.tensor([True, True, False])
        )
        assert answers.row_ids() == [[4, 5], [6], [0, 7, 8]]

    def test_what_lies_beyond_the_length_is_zero_whatever_the_batch(self, backbone: Backbone) -> None:
        add_role(backbone, "policy")
        role, prompts = Role(backbone, "policy"), prompts_of(backbone)
        noise = keyed_noise(3, rows=range(len(prompts)), max_new_tokens=10)
        draw_all = partial(sample, role, prompts, temperature=1.0, max_new_tokens=10, noise=noise)
        whole = draw_all(batch_size_prompts=64)
        assert whole.token_ids.shape == (len(prompts), 10)
        assert len(set(whole.lengths.tolist())) >= 3, "rows finish at different times"
        for ids, length in zip(whole.token_ids.tolist(), whole.lengths.tolist(), strict=True):
            assert ids[length:] == [0] * (10 - length)
        parts = draw_all(batch_size_prompts=3)
        assert torch.equal(parts.token_ids, whole.token_ids)
        assert torch.equal(parts.lengths, whole.lengths)
        assert torch.equal(parts.stopped, whole.stopped)

    def test_no_prompts_have_no_answers(self, backbone: Backbone) -> None:
        none = sample(Role(backbone, None), [], temperature=1.0, max_new_tokens=4, batch_size_prompts=2)
        assert none.row_ids() == []
        assert none.token_ids.shape == (0, 4)


class TestDistribution:
    DRAWS = 4000

    def p_value(self, observed: Counter[int], probabilities: Tensor) -> float:
        """Chi-square of tokens expected at least ten times, all others in one class."""
        expected = (probabilities.double() / probabilities.double().sum() * self.DRAWS).tolist()
        common = [token for token, count in enumerate(expected) if count >= 10]
        assert len(common) >= 5
        seen = [observed[token] for token in common]
        hoped = [expected[token] for token in common]
        return float(chisquare([*seen, self.DRAWS - sum(seen)], [*hoped, self.DRAWS - sum(hoped)]).pvalue)

    @pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
    def test_first_tokens_follow_the_softmax_at_the_temperature(self, backbone: Backbone, temperature: float) -> None:
        add_role(backbone, "policy")
        prompts = token_rows(5, 9)  # half of the batch is padded on the left
        torch.manual_seed(3)
        drawn = draw(backbone, prompts * self.DRAWS, temperature=temperature, max_new_tokens=1, batch_size_prompts=2000)
        for position, prompt in enumerate(prompts):
            observed = Counter(item.token_ids[0] for item in drawn[position::2])
            logits = next_logits(backbone, prompt)
            assert self.p_value(observed, torch.softmax(logits / temperature, -1)) > 1e-3
            for wrong in (temperature * 1.25, temperature / 1.25):
                assert self.p_value(observed, torch.softmax(logits / wrong, -1)) < 1e-3, "the test tells temperatures"

    def test_later_tokens_are_conditioned_on_what_was_drawn(self, backbone: Backbone) -> None:
        add_role(backbone, "policy")
        (prompt,) = token_rows(6)
        backbone.encoder.stop_ids = frozenset({backbone.encoder.stop_id})
        torch.manual_seed(5)
        drawn = draw(backbone, [prompt] * self.DRAWS, max_new_tokens=2, batch_size_prompts=1000)
        first = torch.softmax(next_logits(backbone, prompt), -1)
        likely = [token for token in first.topk(4).indices.tolist() if token != backbone.encoder.stop_id][:2]
        for token in likely:
            seconds = [item.token_ids[1] for item in drawn if item.token_ids[0] == token]
            probabilities = torch.softmax(next_logits(backbone, [*prompt, token]), -1)
            # Mean log-probability of what was drawn is minus the entropy, within five standard errors.
            logs = probabilities.log()
            mean = (probabilities * logs).sum()
            error = ((probabilities * (logs - mean) ** 2).sum() / len(seconds)).sqrt()
            assert len(seconds) > 50
            assert abs(logs[torch.tensor(seconds)].mean() - mean) < 5 * error


class TestDrawingTokens:
    def test_frequencies_are_the_probabilities(self) -> None:
        probabilities = torch.tensor([0.5, 0.0, 0.2, 0.05, 0.25, 0.0])
        torch.manual_seed(0)
        drawn = draw_tokens(probabilities.expand(20000, -1)).flatten().bincount(minlength=6)
        assert drawn[1] == drawn[5] == 0, "what has no probability is never drawn"
        possible = probabilities > 0
        assert chisquare(drawn[possible], probabilities[possible].double() * 20000).pvalue > 1e-3

    def test_rows_are_drawn_apart(self) -> None:
        certain = torch.eye(50)[torch.randperm(50, generator=torch.Generator().manual_seed(1))]
        assert draw_tokens(certain)[:, 0].tolist() == certain.argmax(1).tolist()

    def test_what_is_not_a_number_is_refused(self) -> None:
        with pytest.raises(FloatingPointError, match="not finite"):
            draw_tokens(torch.tensor([[0.5, 0.5], [float("nan"), 0.5]]))

    def test_rare_tokens_of_a_large_vocabulary_are_reached(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Past 0.5 a running sum in float32 moves in steps of 6e-8: it would pass over tokens of 2e-8.
        probabilities = torch.full((4, 2**17), 2e-8)
        probabilities[:, 0] = 0.9
        probabilities[:, -1] = 1 - 0.9 - 2e-8 * (2**17 - 2)
        wanted = torch.tensor([[5], [1000], [70000], [130000]])
        first, each = probabilities[0, 0].double(), probabilities[0, 1].double()
        where = (first + each * (wanted.double() - 0.5)) / probabilities[0].double().sum()
        monkeypatch.setattr(torch, "rand", lambda *shape, **options: where)
        assert draw_tokens(probabilities).tolist() == wanted.tolist()


def test_left_padding_leaves_the_logits_alone(any_backbone: Backbone) -> None:
    add_role(any_backbone, "policy")
    prompts = token_rows(12, 3, 7)
    seen: list[Tensor] = []
    positions: list[list[int]] = []

    def keep_positions(module: object, args: object, given: dict[str, Tensor]) -> None:
        positions.extend(given["position_ids"].tolist())

    base = any_backbone.base
    handles = [
        base.base_model.register_forward_pre_hook(keep_positions, with_kwargs=True),
        base.get_output_embeddings().register_forward_hook(lambda module, args, output: seen.append(output)),
    ]
    try:
        draw(any_backbone, prompts, max_new_tokens=1)
    finally:
        for handle in handles:
            handle.remove()
    (logits,) = seen
    by_length = sorted(prompts, key=len, reverse=True)
    # Rotary embeddings would hide a shift; models with absolute positions would not.
    assert [row[-len(prompt) :] for row, prompt in zip(positions, by_length, strict=True)] == [
        list(range(len(prompt))) for prompt in by_length
    ]
    for row, prompt in enumerate(by_length):
        torch.testing.assert_close(logits[row], next_logits(any_backbone, prompt), atol=2e-5, rtol=1e-4)
