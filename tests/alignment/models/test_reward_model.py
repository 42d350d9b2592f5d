"""A reward model scores whole dialogues, and loads as it was saved or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import LORA, add_reward_model, add_role, as_answers, load_tiny, separate_model, token_rows
from torch import Tensor

from alignment import masks_padding_logprobs
from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.errors import UserError
from alignment.masks_padding_logprobs import WIDTH_MULTIPLE, pad_right
from alignment.models.backbone import Backbone
from alignment.models.heads.known_heads import HEADS, LIKELIHOOD_SCALE
from alignment.models.scorers import reward_model
from alignment.models.scorers.reward_model import RewardModel
from alignment.models.shared_prompts import pack_answers

DIALOGUES = as_answers(token_rows(7, 15, 3, 10, 4))


def forward(model: RewardModel) -> Tensor:
    """Scores of all dialogues in one batch, with gradient."""
    return model(*pack_answers([[dialogue] for dialogue in DIALOGUES], 0, model.backbone.device)).squeeze(1)


class TestPadRight:
    def test_lengths_and_filler(self) -> None:
        ids, lengths = pad_right([[5, 6, 7], [8]], 99, torch.device("cpu"))
        assert ids.shape == (2, WIDTH_MULTIPLE)
        assert ids[:, :3].tolist() == [[5, 6, 7], [8, 99, 99]]
        assert bool((ids[:, 3:] == 99).all())
        assert lengths.tolist() == [3, 1]

    def test_an_exact_multiple_is_not_widened(self) -> None:
        assert pad_right([[1] * (2 * WIDTH_MULTIPLE)], 0, torch.device("cpu"))[0].shape[1] == 2 * WIDTH_MULTIPLE


class TestScores:
    def test_are_the_heads_map_of_the_last_hidden_state(self, any_backbone: Backbone, tmp_path: Path) -> None:
        model = add_reward_model(any_backbone, "helpfulness", seed=3)
        add_role(any_backbone, "policy", seed=4)
        separate = separate_model(any_backbone, "helpfulness", tmp_path)
        weight = model.head.score.weight[0]
        expected = []
        with torch.no_grad():
            for dialogue in DIALOGUES:
                hidden = separate.get_base_model().model(input_ids=torch.tensor([dialogue.input_ids])).last_hidden_state
                expected.append((hidden[0, -1] @ weight).item() - 0.25)  # the offset of ``add_reward_model``
        scores = model.score(DIALOGUES, batch_size=2)
        assert scores.tolist() == pytest.approx(expected, abs=1e-4)
        assert scores.std() > 0.1

    def test_equal_dialogues_pass_once_and_each_gets_the_score(self, backbone: Backbone) -> None:
        model = add_reward_model(backbone, "helpfulness", seed=3)
        alone = model.score(DIALOGUES, batch_size=5)
        counts: list[int] = []
        order = [3, 0, 3, 4, 0, 3]
        scores = model.score([DIALOGUES[index] for index in order], batch_size=5, on_batch=counts.append)
        assert sum(counts) == 3
        torch.testing.assert_close(scores, alone[order])
        assert model.score([], batch_size=5).tolist() == []

    @pytest.mark.parametrize("batch_size", [1, 3, 5])
    def test_order_and_values_do_not_depend_on_the_batch(self, any_backbone: Backbone, batch_size: int) -> None:
        model = add_reward_model(any_backbone, "helpfulness", seed=3)
        alone = [model.score([dialogue], batch_size=1).item() for dialogue in DIALOGUES]
        counts: list[int] = []
        scores = model.score(DIALOGUES, batch_size=batch_size, on_batch=counts.append)
        assert scores.tolist() == pytest.approx(alone, abs=1e-5)
        assert sum(counts) == len(DIALOGUES)

    def test_grouping_by_length_changes_neither_scores_nor_gradients(
        self, any_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = add_reward_model(any_backbone, "helpfulness", seed=3)
        model.requires_grad_(False)
        model.head.requires_grad_(True)
        scores, gradients = [], []
        for rows, pass_tokens in ((1, 0), (2, 0), (100, 10_000)):
            monkeypatch.setattr(reward_model, "GROUP_ROWS", rows)
            monkeypatch.setattr(masks_padding_logprobs, "CPU_PASS_TOKENS", pass_tokens)
            model.zero_grad()
            scores.append(forward(model))
            (scores[-1] * torch.arange(1.0, 1.0 + len(DIALOGUES))).sum().backward()
            gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.head.parameters()]))
        for one, other in ((scores[0], scores[2]), (scores[1], scores[2]), (gradients[0], gradients[2])):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)

    def test_the_last_token_counts(self, any_backbone: Backbone) -> None:
        model = add_reward_model(any_backbone, "helpfulness", seed=3)
        stop = any_backbone.encoder.stop_id
        longer = EncodedAnswer(DIALOGUES[0].prompt_ids, [*DIALOGUES[0].answer_ids, stop])
        stopped, cut = (model.score([dialogue], batch_size=1) for dialogue in (longer, DIALOGUES[0]))
        assert abs(stopped - cut).item() > 1e-2

    def test_are_float32_on_a_bfloat16_base(self, backbone: Backbone) -> None:
        half = load_tiny(Path(backbone.path), dtype="bfloat16")
        model = add_reward_model(half, "helpfulness", seed=3)
        scores = forward(model)
        assert scores.dtype == torch.float32
        assert model.score(DIALOGUES, batch_size=5).tolist() == pytest.approx(scores.tolist(), abs=0.1)

    def test_likelihood_is_that_of_the_answer_under_the_role(self, any_backbone: Backbone, tmp_path: Path) -> None:
        model = add_reward_model(any_backbone, "helpfulness", seed=3, head_name="likelihood")
        separate = separate_model(any_backbone, "helpfulness", tmp_path)
        add_role(any_backbone, "policy", seed=4)
        from_mean, from_least = (model.head.likelihood.weight[0] * torch.tensor(LIKELIHOOD_SCALE)).tolist()
        assert abs(from_mean) > 0.1 and abs(from_least) > 0.01
        expected = []
        with torch.no_grad():
            for dialogue in DIALOGUES:
                ids = torch.tensor([dialogue.input_ids])
                output = separate(input_ids=ids, output_hidden_states=True)
                start = len(dialogue.prompt_ids)
                logprobs = [
                    torch.log_softmax(output.logits[0, start + place - 1], -1)[token].item()
                    for place, token in enumerate(dialogue.answer_ids)
                ]
                score = (output.hidden_states[-1][0, -1] @ model.head.score.weight[0]).item()
                score += from_mean * sum(logprobs) / len(logprobs) + from_least * min(logprobs)
                expected.append(score - 0.25)
        assert model.score(DIALOGUES, batch_size=3).tolist() == pytest.approx(expected, abs=1e-3)

    def test_training_parameters_are_adapter_and_head(self, backbone: Backbone) -> None:
        add_role(backbone, "policy")
        backbone.add_adapter("helpfulness", LORA)
        model = RewardModel(backbone, "helpfulness", head_name="mlp", head_arguments={"width": 5})
        forward(model).sum().backward()
        reached = {id(p) for p in model.parameters() if p.grad is not None}
        assert reached == {id(p) for p in model.trainable_parameters()}
        assert len(reached) == 28 + 3


class TestFiles:
    @pytest.mark.parametrize("head_name", sorted(HEADS))
    def test_round_trip_gives_identical_scores(self, any_backbone: Backbone, tmp_path: Path, head_name: str) -> None:
        model = add_reward_model(any_backbone, "helpfulness", seed=3, head_name=head_name)
        scores = model.score(DIALOGUES, batch_size=2)
        model.save(tmp_path, calibration={"n_answers": 5})
        fresh = load_tiny(Path(any_backbone.path))
        add_role(fresh, "policy", seed=9)
        torch.manual_seed(123)
        loaded = RewardModel.load(fresh, "judge of help", tmp_path)
        assert torch.equal(loaded.score(DIALOGUES, batch_size=2), scores)
        assert loaded.head_name == head_name
        assert loaded.offset == 0.25
        assert not any(parameter.requires_grad for parameter in loaded.trainable_parameters())
        assert not loaded.training

    @pytest.mark.parametrize(
        ("name", "arguments"), [("mlp", {"width": 5}), ("ensemble", {"members": 3, "combine": "min"})]
    )
    def test_the_heads_arguments_come_back(
        self, backbone: Backbone, tmp_path: Path, name: str, arguments: dict[str, int | float | str]
    ) -> None:
        add_role(backbone, "helpfulness", seed=3)
        model = RewardModel(backbone, "helpfulness", head_name=name, head_arguments=arguments).eval()
        model.save(tmp_path, calibration={})
        loaded = RewardModel.load(backbone, "again", tmp_path)
        assert torch.equal(loaded.score(DIALOGUES, batch_size=5), model.score(DIALOGUES, batch_size=5))

    def test_nothing_is_a_pickle(self, backbone: Backbone, tmp_path: Path) -> None:
        add_reward_model(backbone, "helpfulness").save(tmp_path, calibration={})
        assert {file.suffix for file in tmp_path.iterdir()} <= {".json", ".safetensors", ".md"}
        with safe_open(str(tmp_path / "head.safetensors"), framework="pt") as file:
            assert file.metadata() == {"format": "pt"}, "without it some readers refuse the file"

    @pytest.mark.parametrize(
        "file", ["reward_model.json", "head.safetensors", "adapter_model.safetensors", "adapter_config.json"]
    )
    def test_a_missing_file_is_named(self, backbone: Backbone, tmp_path: Path, file: str) -> None:
        add_reward_model(backbone, "helpfulness").save(tmp_path, calibration={})
        (tmp_path / file).unlink()
        with pytest.raises(UserError, match=file):
            RewardModel.load(backbone, "again", tmp_path)

    @pytest.mark.parametrize("change", ["removed", "renamed", "shape"])
    def test_weights_that_are_not_the_heads_are_refused(self, backbone: Backbone, tmp_path: Path, change: str) -> None:
        add_reward_model(backbone, "helpfulness").save(tmp_path, calibration={})
        file = str(tmp_path / "head.safetensors")
        state = load_file(file)
        weight = state.pop("score.weight")
        if change == "renamed":
            state["scores.weight"] = weight
        if change == "shape":
            state["score.weight"] = weight[:, :-1].contiguous()
        save_file(state, file, metadata={"format": "pt"})
        with pytest.raises(UserError, match=r"does not hold a linear head"):
            RewardModel.load(backbone, "again", tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"head": {"name": "mlp", "arguments": {}}}, "does not hold a mlp head"),
            ({"head": {"name": "liner", "arguments": {}}}, "unknown reward head 'liner'"),
            ({"head": {"name": "linear", "arguments": {"width": 3}}}, "no argument 'width'"),
            ({"format_version": 99}, "format version 99"),
        ],
    )
    def test_a_description_that_does_not_fit_is_refused(
        self, backbone: Backbone, tmp_path: Path, change: dict[str, object], message: str
    ) -> None:
        add_reward_model(backbone, "helpfulness").save(tmp_path, calibration={})
        file = tmp_path / "reward_model.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        with pytest.raises(UserError, match=message):
            RewardModel.load(backbone, "again", tmp_path)

    def test_a_missing_adapter_weight_is_refused(self, backbone: Backbone, tmp_path: Path) -> None:
        add_reward_model(backbone, "helpfulness").save(tmp_path, calibration={})
        file = str(tmp_path / "adapter_model.safetensors")
        state = load_file(file)
        state.pop(sorted(state)[0])
        save_file(state, file, metadata={"format": "pt"})
        with pytest.raises(UserError, match="does not fit"):
            RewardModel.load(backbone, "again", tmp_path)
