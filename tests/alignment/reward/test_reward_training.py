"""Training of a reward model: the loss on a fixed batch by hand, and that every term of it arrives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pairs_example import LABELS, pairs_of, settings
from tiny import (
    LORA,
    add_role,
    as_answers,
    base_parameters,
    load_tiny,
    randomize,
    save_tiny_model,
    state_of,
    token_rows,
    unchanged,
)

from alignment.data.records import Comparison, Message, SafetyLabel
from alignment.errors import UserError
from alignment.models.backbone import Backbone
from alignment.models.scorers.reward_model import RewardModel
from alignment.reward.encoded_pairs import EncodedPair, PairCollator, encode_pairs
from alignment.reward.reward_training import train_reward_model


def made_model(backbone: Backbone, role: str = "safety", **head: Any) -> RewardModel:
    add_role(backbone, role, seed=3)
    torch.manual_seed(3)
    return RewardModel(backbone, role, **{"head_name": "linear", "head_arguments": {}, **head})


def train(
    model: RewardModel, pairs: list[EncodedPair], trainer: dict[str, Any] | None = None, **changes: Any
) -> list[dict[str, float]]:
    """Train; returns the figures of each step (the first has the loss before training)."""
    figures: list[dict[str, float]] = []
    train_reward_model(
        model,
        model.backbone.tokenizer,
        pairs,
        settings(**changes),
        seed=0,
        trainer=trainer or {},
        on_step=lambda step, total, logs: figures.append({"step": step, "total": total, **logs}),
    )
    return figures


def loss_by_hand(
    model: RewardModel, pairs: list[EncodedPair], *, safety_weight: float = 0.0, centering_weight: float = 0.0
) -> float:
    """The loss from scores of single dialogues, by its definition."""

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    model.eval()
    ranking = safety = centring = 0.0
    for pair in pairs:
        chosen, rejected = (model.score([ids], batch_size=1).item() for ids in (pair.chosen, pair.rejected))
        ranking -= math.log(sigmoid(chosen - rejected - pair.margin))
        centring += (chosen + rejected) ** 2
        if pair.labelled:
            for score, safe in ((chosen, pair.chosen_safe), (rejected, pair.rejected_safe)):
                safety -= math.log(sigmoid(score) if safe else 1 - sigmoid(score))
    return (ranking + safety_weight * safety + centering_weight * centring) / len(pairs)


class TestLoss:
    @pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, 0.0), (0.0, 0.2), (0.7, 0.1)])
    def test_first_step_by_hand(self, backbone: Backbone, weights: tuple[float, float]) -> None:
        terms = {"safety_weight": weights[0], "centering_weight": weights[1]}
        model = made_model(backbone)
        expected = loss_by_hand(model, pairs_of(), **terms)
        assert train(model, pairs_of(), **terms)[0]["loss"] == pytest.approx(expected, abs=1e-4)

    def test_the_loss_of_an_ensemble_is_the_mean_of_its_members(self, backbone: Backbone) -> None:
        terms = {"safety_weight": 0.7, "centering_weight": 0.1}
        ensemble = made_model(backbone, head_name="ensemble", head_arguments={"members": 3, "combine": "min"})
        alone = []
        for number, weight in enumerate(ensemble.head.state_dict()["score.weight"].clone()):
            member = made_model(backbone, f"member{number}")
            member.head.load_state_dict({"score.weight": weight[None]})
            alone.append(loss_by_hand(member, pairs_of(), **terms))
        assert max(alone) - min(alone) > 1e-2
        assert train(ensemble, pairs_of(), **terms)[0]["loss"] == pytest.approx(sum(alone) / 3, abs=1e-4)

    @pytest.mark.integration
    def test_margins_labels_and_masks_all_make_a_difference(self, backbone: Backbone) -> None:
        model = made_model(backbone)
        terms = {"safety_weight": 0.7, "centering_weight": 0.1}
        flipped = tuple(None if label is None else (not label[0], label[1]) for label in LABELS)
        variants = [
            pairs_of(),
            pairs_of(margins=(0.0,) * 8),
            pairs_of(labels=flipped),
            pairs_of(labels=((True, True),) * 8),
            pairs_of(labels=(None,) * 8),
        ]
        losses = []
        for number, pairs in enumerate(variants):
            expected = loss_by_hand(model, pairs, **terms)
            copy = made_model(backbone, f"copy{number}")
            losses.append(train(copy, pairs, **terms)[0]["loss"])
            assert losses[-1] == pytest.approx(expected, abs=1e-4)
        gaps = [abs(one - other) for i, one in enumerate(losses) for other in losses[:i]]
        assert min(gaps) > 1e-2

    @pytest.mark.parametrize("size", [4, 2, 1])
    def test_accumulation_equals_the_whole_batch(self, backbone: Backbone, size: int) -> None:
        terms: dict[str, Any] = {"safety_weight": 0.7, "centering_weight": 0.1, "trainer": {"max_grad_norm": 1e9}}
        whole = train(made_model(backbone, "whole"), pairs_of(), **terms)
        parts = train(made_model(backbone, "parts"), pairs_of(), micro_batch_size_pairs=size, **terms)
        assert len(whole) == len(parts) == 2
        for one, other in zip(whole, parts, strict=True):
            assert other["loss"] == pytest.approx(one["loss"], abs=1e-4)
            assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        for one, other in zip(backbone.adapter_parameters("whole"), backbone.adapter_parameters("parts"), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize("size", [1, 3])
    def test_a_last_step_that_does_not_fill_its_micro_batches(self, backbone: Backbone, size: int) -> None:
        # 8 pairs in steps of 6: the second step has 2, in micro-batches of 3 of which one is short and one missing.
        terms: dict[str, Any] = {"safety_weight": 0.7, "batch_size_pairs": 6, "epochs": 1}
        whole = train(made_model(backbone, "whole"), pairs_of(), micro_batch_size_pairs=6, **terms)
        parts = train(made_model(backbone, "parts"), pairs_of(), micro_batch_size_pairs=size, **terms)
        assert [line["loss"] for line in parts] == pytest.approx([line["loss"] for line in whole], abs=1e-4)
        assert [line["grad_norm"] for line in parts] == pytest.approx([line["grad_norm"] for line in whole], rel=1e-3)

    def test_short_micro_batches_count_by_their_pairs(self, backbone: Backbone) -> None:
        # 5 pairs in micro-batches of 4: the fifth counts as much as each of the others.
        pairs = pairs_of()[:5]
        model = made_model(backbone)
        expected = loss_by_hand(model, pairs)
        assert train(model, pairs, micro_batch_size_pairs=4)[0]["loss"] == pytest.approx(expected, abs=1e-4)

    def test_adapters_are_dropped_out_as_the_recipe_says(self, backbone: Backbone) -> None:
        losses = []
        for number, dropout in enumerate((0.0, 0.9)):
            lora = LORA.model_copy(update={"dropout": dropout})
            backbone.add_adapter(f"dropped{number}", lora)
            randomize(backbone, f"dropped{number}", seed=3)
            torch.manual_seed(3)
            model = RewardModel(backbone, f"dropped{number}", head_name="linear", head_arguments={})
            losses.append(train(model, pairs_of(), epochs=1)[0]["loss"])
        assert abs(losses[0] - losses[1]) > 1e-2


class TestWhatIsTrained:
    @pytest.mark.parametrize(
        "head",
        [
            {},
            {"head_name": "mlp", "head_arguments": {"width": 6}},
            {"head_name": "likelihood"},
            {"head_name": "attention"},
            {"head_name": "ensemble", "head_arguments": {"members": 2}},
        ],
    )
    def test_adapter_and_head_and_nothing_else(self, backbone: Backbone, head: dict[str, Any]) -> None:
        add_role(backbone, "helpfulness", seed=1, trainable=False)
        model = made_model(backbone, **head)
        kept = [*base_parameters(backbone), *backbone.adapter_parameters("helpfulness")]
        trained = model.trainable_parameters()
        before, before_kept = state_of(trained), state_of(kept)
        train(model, pairs_of(), safety_weight=1.0)
        assert unchanged(kept, before_kept)
        assert not any(torch.equal(parameter, old) for parameter, old in zip(trained, before, strict=True))
        assert not model.training

    def test_learns_the_order(self, backbone: Backbone) -> None:
        model = made_model(backbone)
        figures = train(model, pairs_of(), epochs=30, learning_rate=2e-2)
        assert figures[-1]["loss"] < figures[0]["loss"] / 3
        chosen = model.score([pair.chosen for pair in pairs_of()], batch_size=8)
        rejected = model.score([pair.rejected for pair in pairs_of()], batch_size=8)
        assert bool((chosen > rejected).all())

    def test_on_four_bit_weights(self, tmp_path: Any) -> None:
        backbone = load_tiny(save_tiny_model(tmp_path, hidden=32), quantization="nf4")
        model = made_model(backbone)
        expected = loss_by_hand(model, pairs_of())
        before = state_of(model.trainable_parameters())
        figures = train(model, pairs_of())
        assert figures[0]["loss"] == pytest.approx(expected, abs=1e-3)
        assert {parameter.dtype for parameter in model.trainable_parameters()} == {torch.float32}
        assert not any(
            torch.equal(parameter, old) for parameter, old in zip(model.trainable_parameters(), before, strict=True)
        )


def comparison(number: int, *, chosen: str = "yes it is", **changes: Any) -> Comparison:
    return Comparison(
        **{
            "id": f"c{number}",
            "prompt": (Message(role="user", content=f"is it {number}"),),
            "chosen": (Message(role="assistant", content=chosen),),
            "rejected": (Message(role="assistant", content="no"),),
            "conversation_id": f"d{number}",
            **changes,
        }
    )


class TestEncodePairs:
    ITEMS = (
        comparison(0, grade="significantly_better", safety=SafetyLabel(bin="preferred_safe_other_unsafe")),
        comparison(1, grade="slightly_better", safety=SafetyLabel(bin="preferred_unsafe_other_safe")),
        comparison(2),
    )

    def test_margins_labels_and_stop_tokens(self, any_backbone: Backbone) -> None:
        encoder = any_backbone.encoder
        pairs, kept, too_long = encode_pairs(
            self.ITEMS, encoder, margin="small", max_length_tokens=96, skip_too_long=False
        )
        assert [pair.margin for pair in pairs] == pytest.approx([1.0, 1 / 3, 0.0])
        assert [(p.chosen_safe, p.rejected_safe) for p in pairs[:2]] == [(True, False), (False, True)]
        assert [pair.labelled for pair in pairs] == [True, True, False]
        assert (kept, too_long) == (list(self.ITEMS), 0)
        for pair, item in zip(pairs, self.ITEMS, strict=True):
            assert pair.prompt_ids == encoder.encode_prompt(item.prompt)
            assert pair.chosen_ids[-1] == pair.rejected_ids[-1] == encoder.stop_id
            assert (encoder.decode(pair.chosen_ids), encoder.decode(pair.rejected_ids)) == ("yes it is", "no")

    def test_long_pairs_are_an_error_or_counted(self, backbone: Backbone) -> None:
        items = [*self.ITEMS, comparison(3, chosen="the sea " * 30)]
        arguments: dict[str, Any] = {"margin": "none", "max_length_tokens": 40}
        with pytest.raises(UserError, match=r"c3 has \d+ tokens, more than max_length_tokens=40"):
            encode_pairs(items, backbone.encoder, skip_too_long=False, **arguments)
        pairs, kept, too_long = encode_pairs(items, backbone.encoder, skip_too_long=True, **arguments)
        assert (len(pairs), kept, too_long) == (3, list(self.ITEMS), 1)

    def test_nothing_left_is_an_error(self, backbone: Backbone) -> None:
        with pytest.raises(UserError, match="3 of 3 are too long"):
            encode_pairs(self.ITEMS, backbone.encoder, margin="none", max_length_tokens=2, skip_too_long=True)


def test_collator_puts_both_answers_behind_their_prompt() -> None:
    batch = PairCollator(0)([vars(pair) for pair in pairs_of()[:3]])
    rows = [pair.prompt_ids + pair.chosen_ids + pair.rejected_ids for pair in pairs_of()[:3]]
    assert [ids[: len(row)].tolist() for ids, row in zip(batch["token_ids"], rows, strict=True)] == rows
    assert batch["prompt_lengths"].tolist() == [3, 8, 2]
    assert batch["answer_lengths"].tolist() == [[7, 2], [4, 5], [2, 9]]
    assert batch["margin"].tolist() == pytest.approx([1.0, 0.0, 1 / 3])
    assert batch["safe"].tolist() == [True, True, True, False, True, True]
    assert batch["labelled"].tolist() == [True, True, False] * 2


def test_a_head_of_a_frozen_role_takes_no_gradient(backbone: Backbone) -> None:
    """Training one reward model with another one loaded leaves that one's scores alone."""
    backbone.add_adapter("other", LORA, trainable=False)
    other = RewardModel(backbone, "other", head_name="linear", head_arguments={}).eval()
    scores = other.score(as_answers(token_rows(5, 9)), batch_size=2)
    train(made_model(backbone), pairs_of())
    assert torch.equal(other.score(as_answers(token_rows(5, 9)), batch_size=2), scores)
