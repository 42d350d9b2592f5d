"""Answers drawn token by token: what is drawn, what is shown of it, and several of them in turn on one backbone."""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from tiny import SPECIALS, add_role, load_tiny, tiny_tokenizer
from torch import Tensor

from alignment.data.records import Message
from alignment.errors import UserError
from alignment.models.backbone import Backbone, Role
from alignment.models.sampling import batch_sampling, streaming
from alignment.models.sampling.batch_sampling import sample
from alignment.models.sampling.streaming import Partial, stream_answer
from alignment.settings.sections import SamplingSection

ASK = [Message(role="user", content="what is it")]
LONGER = [*ASK, Message(role="assistant", content="the sea"), Message(role="user", content="why is it so")]


def answer(
    backbone: Backbone,
    role: str | None = "policy",
    *,
    seed: int = 0,
    messages: list[Message] = ASK,
    temperature: float = 1.0,
    max_new_tokens: int = 12,
) -> Iterator[Partial]:
    sampling = SamplingSection(temperature=temperature, max_new_tokens=max_new_tokens, batch_size_prompts=1)
    return stream_answer(backbone, role, messages, sampling, seed=seed)


@torch.no_grad()
def next_logits(backbone: Backbone, ids: list[int], role: str | None = "policy") -> Tensor:
    """Logits (V,) after one sequence, without any cache."""
    with backbone.role(role):
        return backbone.base(input_ids=torch.tensor([ids])).logits[0, -1]


def noise_of(seed: int, count: int) -> list[float]:
    """The random numbers of an answer."""
    generator = torch.Generator().manual_seed(seed)
    return [float(torch.rand(1, 1, generator=generator, dtype=torch.float64)) for _ in range(count)]


def never_stops(backbone: Backbone) -> None:
    """Take the stop token's lift away, see ``tiny``."""
    with torch.no_grad():
        backbone.base.get_output_embeddings().weight[backbone.encoder.stop_id] *= -10


class TestWhatIsDrawn:
    def test_is_what_the_batch_sampler_draws_from_the_same_numbers(self, any_backbone: Backbone) -> None:
        add_role(any_backbone, "policy")
        encoder = any_backbone.encoder
        seen: set[str | None] = set()
        for seed, messages in itertools.product(range(3), (ASK, LONGER)):
            noise = torch.tensor([noise_of(seed, 12)], dtype=torch.float64)
            expected = sample(
                Role(any_backbone, "policy"),
                [encoder.encode_prompt(messages)],
                temperature=0.8,
                max_new_tokens=12,
                batch_size_prompts=1,
                noise=noise,
            )
            *_, last = answer(any_backbone, seed=seed, messages=messages, temperature=0.8)
            (answer_ids,) = expected.row_ids()
            assert last.text == encoder.decode(answer_ids).rstrip("\ufffd")
            assert last.n_tokens == len(answer_ids)
            assert last.finish_reason == ("stop" if expected.stopped[0] else "length")
            seen.add(last.finish_reason)
        assert seen == {"stop", "length"}

    @pytest.mark.integration
    @pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
    def test_first_tokens_follow_the_softmax_at_the_temperature(
        self, backbone: Backbone, temperature: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_role(backbone, "policy")
        drawn = self.first_tokens(backbone, temperature, range(400), monkeypatch)
        probabilities = torch.softmax(next_logits(backbone, backbone.encoder.encode_prompt(ASK)) / temperature, -1)
        # Token by token: the one in whose share of the line from 0 to 1 the seed's random number falls.
        borders = list(itertools.accumulate(probabilities.double().tolist()))
        expected = [bisect.bisect_right(borders, noise_of(seed, 1)[0] * borders[-1]) for seed in range(400)]
        assert drawn == expected
        # And as frequencies, tokens expected at least ten times apart, all others together.
        hoped = (probabilities.double() * 400).tolist()
        common = [token for token, count in enumerate(hoped) if count >= 10]
        assert len(common) >= 4
        observed, shares = Counter(drawn), [hoped[token] for token in common]
        counts = [observed[token] for token in common]
        assert chisquare([*counts, 400 - sum(counts)], [*shares, 400 - sum(shares)]).pvalue > 1e-3

    @staticmethod
    def first_tokens(
        backbone: Backbone, temperature: float, seeds: range, monkeypatch: pytest.MonkeyPatch
    ) -> list[int]:
        drawn: list[int] = []
        draw = batch_sampling.draw_tokens

        def remember(probabilities: Tensor, uniform: Tensor) -> Tensor:
            chosen = draw(probabilities, uniform)
            drawn.append(int(chosen))
            return chosen

        monkeypatch.setattr(streaming, "draw_tokens", remember)
        for seed in seeds:
            next(answer(backbone, seed=seed, temperature=temperature))
        return drawn

    def test_the_seed_decides_and_nothing_else_does(self, backbone: Backbone) -> None:
        add_role(backbone, "policy")
        texts = []
        for seed in (1, 2, 1):
            torch.rand(7)  # the generator that everybody shares has moved on
            texts.append(list(answer(backbone, seed=seed)))
        assert texts[0] == texts[2] != texts[1]

    def test_what_people_type_is_never_a_control_token(self, backbone: Backbone) -> None:
        read: list[int] = []
        backbone.base.base_model.register_forward_pre_hook(
            lambda module, args, given: read.extend(given["input_ids"][0].tolist()), with_kwargs=True
        )
        next(answer(backbone, None, messages=[Message(role="user", content="<|end|>")]))
        assert backbone.encoder.stop_id not in read
        assert backbone.tokenizer.decode(read) == "<|begin|><|user|><|end|><|assistant|>", "though it reads the same"

    def test_what_is_not_a_number_is_an_error(self, backbone: Backbone) -> None:
        with torch.no_grad():
            backbone.base.get_output_embeddings().weight.fill_(torch.nan)
        with pytest.raises(FloatingPointError, match="not finite"):
            list(answer(backbone, None))


class TestInTurn:
    """Two answers on one backbone with different adapters."""

    ROLES = ("policy", "other")

    @pytest.fixture
    def shared(self, any_backbone: Backbone) -> Backbone:
        never_stops(any_backbone)
        for seed, role in enumerate(self.ROLES):
            add_role(any_backbone, role, seed=seed)
        return any_backbone

    @pytest.mark.parametrize("turns", ["01", "0011", "0100010"], ids=["each in turn", "two at a time", "uneven"])
    def test_each_is_what_it_is_alone(self, shared: Backbone, turns: str) -> None:
        def both() -> list[Iterator[Partial]]:
            return [answer(shared, self.ROLES[0], seed=5), answer(shared, self.ROLES[1], seed=6, messages=LONGER)]

        alone = [list(one) for one in both()]
        streams, together = both(), [list[Partial](), list[Partial]()]
        for turn in itertools.islice(itertools.cycle(map(int, turns)), 80):
            together[turn] += itertools.islice(streams[turn], 1)
        assert together == alone
        assert [len(one) for one in alone] == [12, 12]
        same_seed = list(answer(shared, "other", seed=5))
        assert same_seed != alone[0], "the adapters matter"

    def test_between_two_tokens_the_backbone_is_as_it_was(self, shared: Backbone) -> None:
        ids = shared.encoder.encode_prompt(LONGER)
        bare = next_logits(shared, ids, None)
        stream = answer(shared)
        with shared.role(None):
            next(stream)
            seen = shared.base(input_ids=torch.tensor([ids])).logits[0, -1]
        assert torch.equal(seen, bare)
        assert not torch.equal(next_logits(shared, ids), bare)

    def test_a_sampling_copy_is_left_alone(
        self, tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain, copying = (load_tiny(tiny_folder("llama"), sampling_copy=copy) for copy in (False, True))
        for backbone in (plain, copying):
            add_role(backbone, "policy")
        expected = list(answer(plain))

        def fill(*unused: Any) -> None:
            raise AssertionError("merging at every token takes far too long")

        monkeypatch.setattr(copying, "_fill_copy", fill)
        assert list(answer(copying)) == expected


class TestWhatIsShown:
    """Scripted tokens instead of drawn ones."""

    @pytest.fixture
    def say(self, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Partial]]:
        def shown(tokens: list[int], **settings: Any) -> list[Partial]:
            waiting = iter(tokens)
            monkeypatch.setattr(streaming, "draw_tokens", lambda *unused: torch.tensor([[next(waiting)]]))
            return list(answer(backbone, None, **settings))

        return shown

    @staticmethod
    def bytes_of(text: str) -> list[int]:
        """Each byte as a token of its own."""
        tokenizer = tiny_tokenizer()
        words = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
        return [tokenizer.get_vocab()[letter] for word, _ in words for letter in word]

    def test_only_whole_characters(self, backbone: Backbone, say: Callable[..., list[Partial]]) -> None:
        tokens = self.bytes_of("é€😀!")
        assert len(tokens) == 2 + 3 + 4 + 1
        texts = [partial.text for partial in say([*tokens, backbone.encoder.stop_id])]
        assert texts == ["", "é", "é", "é", "é€", "é€", "é€", "é€", "é€😀", "é€😀!", "é€😀!"]

    def test_half_a_character_at_the_limit_is_left_out(self, say: Callable[..., list[Partial]]) -> None:
        assert say(self.bytes_of("a€")[:3], max_new_tokens=3)[-1] == Partial("a", 3, "length")

    def test_the_stop_token_counts_and_is_not_shown(
        self, backbone: Backbone, say: Callable[..., list[Partial]]
    ) -> None:
        *_, last = say([*self.bytes_of("ab"), backbone.encoder.stop_id, *self.bytes_of("c")])
        assert last == Partial("ab", 3, "stop")

    def test_a_stop_token_that_is_ordinary_text_is_not_shown_either(
        self, backbone: Backbone, say: Callable[..., list[Partial]]
    ) -> None:
        a, b = self.bytes_of("ab")
        backbone.encoder.stop_ids = frozenset({b})
        assert say([a, b]) == [Partial("a", 1, None), Partial("a", 2, "stop")]

    def test_the_limit_ends_an_answer(self, say: Callable[..., list[Partial]]) -> None:
        pieces = say(self.bytes_of("abcd"), max_new_tokens=3)
        assert pieces == [Partial("a", 1, None), Partial("ab", 2, None), Partial("abc", 3, "length")]

    def test_stopping_at_the_limit_is_stopping(self, backbone: Backbone, say: Callable[..., list[Partial]]) -> None:
        assert say([*self.bytes_of("a"), backbone.encoder.stop_id], max_new_tokens=2)[-1].finish_reason == "stop"

    def test_control_tokens_are_not_shown(self, backbone: Backbone, say: Callable[..., list[Partial]]) -> None:
        marker = backbone.tokenizer.convert_tokens_to_ids(SPECIALS[4])
        assert say([*self.bytes_of("a"), marker, *self.bytes_of("b"), backbone.encoder.stop_id])[-1].text == "ab"


class TestTheBeginningAndTheEnd:
    def test_a_conversation_without_room_for_an_answer_is_refused(self, backbone: Backbone) -> None:
        room = backbone.context_tokens - len(backbone.encoder.encode_prompt(ASK))
        never_stops(backbone)
        assert len(list(answer(backbone, None, max_new_tokens=room))) == room
        with pytest.raises(UserError, match="the conversation with its next answer is 97 tokens long, 96 fit"):
            next(answer(backbone, None, max_new_tokens=room + 1))

    def test_leaving_in_the_middle_computes_nothing_more(self, backbone: Backbone) -> None:
        never_stops(backbone)
        read: list[int] = []
        backbone.base.base_model.register_forward_pre_hook(
            lambda module, args, given: read.append(given["input_ids"].numel()), with_kwargs=True
        )
        stream = answer(backbone, None)
        for _ in range(3):
            next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert read == [len(backbone.encoder.encode_prompt(ASK)), 1, 1], "each token is read once"
        assert list(stream) == []

    def test_no_gradient_is_kept(self, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        add_role(backbone, "policy")
        wanting: list[bool] = []

        def remember(probabilities: Tensor, uniform: Tensor) -> Tensor:
            wanting.append(probabilities.requires_grad)
            return torch.tensor([[9]])

        monkeypatch.setattr(streaming, "draw_tokens", remember)
        list(answer(backbone, max_new_tokens=2))
        assert wanting == [False, False]
