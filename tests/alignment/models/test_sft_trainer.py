"""Supervised fine-tuning: what the loss looks at, what packing leaves alone, what is trained."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny import LORA, add_role, base_parameters, load_tiny, save_tiny_model, state_of, unchanged
from torch.nn import functional
from trl import SFTConfig

from alignment.data.encoded_dialogues import EncodedDialogue
from alignment.data.records import Demonstration, Message
from alignment.data.splits import answered_prompts
from alignment.errors import UserError
from alignment.models.backbone import Backbone
from alignment.models.optimizer_and_trainer import check_trainer_settings
from alignment.models.sft_trainer import train_sft
from alignment.settings.sections import SFTSection

CHATS = (
    ("what is it", "a cat"),
    ("why", "the sky is blue or grey and so is the sea today", "is it", "yes"),
    ("tell me of the sea and the sun and the sky", "no"),
    ("the cat", "sat and sat and sat"),
)


def dialogues_of(backbone: Backbone) -> list[EncodedDialogue]:
    made = []
    for chat in CHATS:
        messages = [Message(role="assistant" if place % 2 else "user", content=text) for place, text in enumerate(chat)]
        made.append(backbone.encoder.encode_dialogue(messages, loss_on="all_answers"))
    return made


def settings(**changes: Any) -> SFTSection:
    defaults: dict[str, Any] = {
        "data": "unused.jsonl",
        "epochs": 2,
        "batch_size_dialogues": 4,
        "micro_batch_size_dialogues": 4,
        "learning_rate": 1e-2,
        "max_length_tokens": 96,
        "packing": False,
    }
    return SFTSection(**{**defaults, **changes})


def train(
    backbone: Backbone, dialogues: list[EncodedDialogue], role: str = "policy", **changes: Any
) -> list[dict[str, float]]:
    """Fine-tune a role; returns the figures of each step (the first has the loss before training)."""
    figures: list[dict[str, float]] = []
    assert backbone.peft is not None
    with backbone.role(role):
        train_sft(
            backbone.peft,
            backbone.tokenizer,
            dialogues,
            settings(**changes),
            seed=0,
            on_step=lambda step, total, logs: figures.append({"step": step, "total": total, **logs}),
        )
    return figures


@torch.no_grad()
def slow_loss(backbone: Backbone, dialogues: list[EncodedDialogue], *, every_token: bool = False) -> float:
    """Mean loss per learned token, one unpadded dialogue at a time."""
    total, count = 0.0, 0
    for dialogue in dialogues:
        with backbone.role("policy"):
            logits = backbone.base(input_ids=torch.tensor([dialogue.input_ids])).logits[0]
        for place in range(1, len(dialogue.input_ids)):
            if dialogue.loss_mask[place] or every_token:
                target = torch.tensor(dialogue.input_ids[place])
                total += functional.cross_entropy(logits[place - 1], target).item()
                count += 1
    return total / count


class TestLoss:
    def test_is_the_mean_over_answer_and_stop_tokens(self, any_backbone: Backbone) -> None:
        add_role(any_backbone, "policy", seed=1)
        dialogues = dialogues_of(any_backbone)
        expected = slow_loss(any_backbone, dialogues)
        figures = train(any_backbone, dialogues)
        assert figures[0]["loss"] == pytest.approx(expected, abs=1e-4)
        assert abs(slow_loss(any_backbone, dialogues, every_token=True) - expected) > 0.02
        without_stop = [
            EncodedDialogue(
                item.input_ids,
                [
                    counts and token not in any_backbone.encoder.stop_ids
                    for counts, token in zip(item.loss_mask, item.input_ids, strict=True)
                ],
            )
            for item in dialogues
        ]
        assert without_stop != dialogues
        assert abs(slow_loss(any_backbone, without_stop) - expected) > 0.02

    @pytest.mark.parametrize("size", [1, 2])
    def test_micro_batches_change_neither_loss_nor_gradient(self, backbone: Backbone, size: int) -> None:
        add_role(backbone, "policy", seed=1)
        backbone.copy_adapter("policy", "again", trainable=True)
        dialogues = dialogues_of(backbone)
        whole = train(backbone, dialogues, trainer={"max_grad_norm": 1e9})
        parts = train(backbone, dialogues, "again", micro_batch_size_dialogues=size, trainer={"max_grad_norm": 1e9})
        assert len(whole) == len(parts) == 2
        for one, other in zip(whole, parts, strict=True):
            assert other["loss"] == pytest.approx(one["loss"], abs=1e-4)
            assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)

    def test_packing_is_no_leak_between_dialogues(self, any_backbone: Backbone) -> None:
        add_role(any_backbone, "policy", seed=1)
        any_backbone.copy_adapter("policy", "again", trainable=True)
        dialogues = dialogues_of(any_backbone)[2:]
        joined = EncodedDialogue(
            [token for item in dialogues for token in item.input_ids],
            [counts for item in dialogues for counts in item.loss_mask],
        )
        assert len(joined.input_ids) <= settings().max_length_tokens, "they fit into one row"
        leaking, expected = slow_loss(any_backbone, [joined]), slow_loss(any_backbone, dialogues)
        assert abs(leaking - expected) > 0.01
        unpacked = train(any_backbone, dialogues, epochs=1, trainer={"max_grad_norm": 1e9})
        packed = train(any_backbone, dialogues, "again", packing=True, epochs=1, trainer={"max_grad_norm": 1e9})
        assert packed[0]["loss"] == pytest.approx(expected, abs=1e-4)
        assert packed[0]["grad_norm"] == pytest.approx(unpacked[0]["grad_norm"], rel=1e-3)

    def test_packing_makes_fewer_rows(self, backbone: Backbone) -> None:
        backbone.add_adapter("policy", LORA)
        one_by_one = {"batch_size_dialogues": 1, "micro_batch_size_dialogues": 1, "epochs": 1}
        dialogues = dialogues_of(backbone)[2:]
        assert len(train(backbone, dialogues, packing=False, **one_by_one)) == 2
        assert len(train(backbone, dialogues, packing=True, **one_by_one)) == 1


class TestWhatIsTrained:
    def test_the_role_and_nothing_else(self, any_backbone: Backbone) -> None:
        for seed, role in enumerate(("first", "policy", "last")):
            add_role(any_backbone, role, seed=seed, trainable=role == "policy")
        kept = [
            *base_parameters(any_backbone),
            *any_backbone.adapter_parameters("first"),
            *any_backbone.adapter_parameters("last"),
        ]
        trained = any_backbone.adapter_parameters("policy")
        before, before_kept = state_of(trained), state_of(kept)
        figures = train(any_backbone, dialogues_of(any_backbone), epochs=3)
        assert unchanged(kept, before_kept)
        assert not any(torch.equal(parameter, old) for parameter, old in zip(trained, before, strict=True))
        assert figures[-1]["loss"] < figures[0]["loss"]
        assert not any(module.training for module in any_backbone.base.modules())

    def test_full_fine_tuning_trains_every_weight(self, backbone: Backbone) -> None:
        model = backbone.unfreeze()
        before = state_of(list(model.parameters()))
        train_sft(model, backbone.tokenizer, dialogues_of(backbone), settings(), seed=0, on_step=lambda *_: None)
        assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))

    def test_learns_by_heart(self, backbone: Backbone) -> None:
        backbone.add_adapter("policy", LORA.model_copy(update={"r": 8, "alpha": 16.0}))
        figures = train(backbone, dialogues_of(backbone), epochs=40, learning_rate=3e-2)
        assert len(figures) == 40
        assert figures[-1]["loss"] < figures[0]["loss"] / 3

    def test_under_nf4_the_adapter_keeps_its_number_format(self, tmp_path: Any) -> None:
        backbone = load_tiny(save_tiny_model(tmp_path, hidden=32), quantization="nf4")
        add_role(backbone, "policy", seed=1)
        trained = backbone.adapter_parameters("policy")
        before = state_of(trained)
        dialogues = dialogues_of(backbone)
        expected = slow_loss(backbone, dialogues)
        figures = train(backbone, dialogues)
        assert figures[0]["loss"] == pytest.approx(expected, abs=1e-3)
        assert {parameter.dtype for parameter in trained} == {torch.float32}
        assert not any(torch.equal(parameter, old) for parameter, old in zip(trained, before, strict=True))

    def test_progress(self, backbone: Backbone) -> None:
        backbone.add_adapter("policy", LORA)
        figures = train(backbone, dialogues_of(backbone), batch_size_dialogues=2, micro_batch_size_dialogues=1)
        assert [item["step"] for item in figures] == [1, 2, 3, 4]
        assert {item["total"] for item in figures} == {4}


class TestSettings:
    def test_what_the_recipe_decides_is_refused_under_trainer(self) -> None:
        check_trainer_settings({"max_grad_norm": 2.0}, SFTConfig, section="sft.trainer")
        for name in ("learning_rate", "gradient_accumulation_steps", "report_to", "max_length"):
            with pytest.raises(UserError, match=rf"sft\.trainer\.{name}: the stage decides"):
                check_trainer_settings({name: 1}, SFTConfig, section="sft.trainer")

    def test_a_misspelt_setting_is_named_with_the_nearest(self) -> None:
        with pytest.raises(
            UserError, match=r"max_grad_nrom: SFTConfig has no such setting; did you mean max_grad_norm"
        ):
            check_trainer_settings({"max_grad_nrom": 2.0}, SFTConfig, section="sft.trainer")

    def test_settings_reach_the_trainer(self, backbone: Backbone) -> None:
        backbone.add_adapter("policy", LORA)
        before = state_of(backbone.adapter_parameters("policy"))
        train(backbone, dialogues_of(backbone), trainer={"max_grad_norm": 1e-12}, weight_decay=0.0)
        # AdamW divides by the gradient's size, so clipping alone leaves steps of about eps-sized gradients: tiny ones.
        moved = [(p - old).abs().max() for p, old in zip(backbone.adapter_parameters("policy"), before, strict=True)]
        assert max(moved) < 1e-4

    def test_batches_must_divide(self) -> None:
        with pytest.raises(
            ValueError, match=r"micro_batch_size_dialogues \(5\) must divide batch_size_dialogues \(12\)"
        ):
            settings(batch_size_dialogues=12, micro_batch_size_dialogues=5)


class TestDivergence:
    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_a_loss_that_is_not_finite_stops_the_training(self, backbone: Backbone, bad: float) -> None:
        backbone.add_adapter("policy", LORA)
        with torch.no_grad():
            backbone.base.get_output_embeddings().weight[5] = bad
        with pytest.raises(FloatingPointError, match="at step 1"):
            train(backbone, dialogues_of(backbone))


def test_every_answer_that_is_learned_is_compared_with_the_held_out_prompts() -> None:
    texts = ("q1", "a1", "q2", "a2")
    messages = tuple(
        Message(role="assistant" if place % 2 else "user", content=text) for place, text in enumerate(texts)
    )
    before = [
        [message.content for message in part] for part in answered_prompts([Demonstration(id="d", messages=messages)])
    ]
    assert before == [["q1"], ["q1", "a1", "q2"]]
