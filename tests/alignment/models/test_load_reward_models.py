"""Reward models beside the shared base: other architectures and tokenizers, read again from text; several as one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import pstdev
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import (
    CHAT_TEMPLATE,
    add_reward_model,
    load_tiny,
    save_tiny_model,
    tiny_prompts,
    tiny_settings,
    tiny_tokenizer,
)
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.errors import UserError
from alignment.models.backbone import Backbone
from alignment.models.pretrained import same_model
from alignment.models.scorers.load_reward_models import Ensemble, Reencoded, load_reward_model, load_reward_models
from alignment.models.scorers.reward_model import RewardModel
from alignment.models.scorers.sequence_classifier import SequenceClassifier
from alignment.settings.ppo_sections import RewardFoldersSection

ANSWERS = ("the sea", "why is it grey", "no")


def dialogues(backbone: Backbone) -> list[EncodedAnswer]:
    """Three dialogues as the policy's tokenizer writes them, with their text; the last one did not stop."""
    found = []
    for prompt, text in zip(tiny_prompts(3), ANSWERS, strict=True):
        encoded = backbone.encoder.encode_answer(prompt.messages, text)
        found.append(EncodedAnswer(encoded.prompt_ids, encoded.answer_ids, prompt.messages))
    found[-1] = EncodedAnswer(found[-1].prompt_ids, found[-1].answer_ids[:-1], found[-1].messages)
    return found


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A sequence classifier with a tokenizer that merges nothing: other ids than the policy's for most words."""
    folder = tmp_path / "classifier"
    tokenizer = tiny_tokenizer()
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["merges"] = []
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        pad_token=tokenizer.pad_token,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        chat_template=tokenizer.chat_template,
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(plain),
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=1,
        pad_token_id=plain.pad_token_id,
        initializer_range=0.3,
    )
    LlamaForSequenceClassification(config).save_pretrained(str(folder))
    plain.save_pretrained(str(folder))
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


class TestSequenceClassifier:
    def test_scores_what_transformers_scores(self, backbone: Backbone, classifier: Path) -> None:
        model = load_reward_model(backbone, "helpfulness", classifier, tiny_settings(), beside={})
        assert isinstance(model, Reencoded)
        found = model.score(dialogues(backbone), batch_size=2).tolist()
        plain = AutoModelForSequenceClassification.from_pretrained(str(classifier)).eval()
        for score, prompt, text in zip(found[:2], tiny_prompts(3), ANSWERS, strict=False):
            encoded = model.encoder.encode_answer(prompt.messages, text)
            assert encoded.input_ids != backbone.encoder.encode_answer(prompt.messages, text).input_ids
            with torch.no_grad():
                expected = plain(input_ids=torch.tensor([encoded.input_ids])).logits[0, 0].item()
            assert score == pytest.approx(expected, abs=1e-5)
        assert len(set(found)) == 3

    def test_padding_is_not_read_where_attention_goes_both_ways(self, tmp_path: Path) -> None:
        tokenizer = tiny_tokenizer()
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = BertConfig(vocab_size=len(tokenizer), num_labels=1, initializer_range=0.5, **shape)
        BertForSequenceClassification(config).save_pretrained(str(tmp_path))
        tokenizer.save_pretrained(str(tmp_path))
        model = SequenceClassifier.load(tmp_path, tiny_settings())
        rows = [
            model.encoder.encode_answer(prompt.messages, "the sea " * 3**number)
            for number, prompt in enumerate(tiny_prompts(3))
        ]
        together = model.score(rows, batch_size=3).tolist()
        assert together == pytest.approx(model.score(rows, batch_size=1).tolist(), abs=1e-5)
        assert len(set(together)) == 3

    def test_dialogues_end_as_its_template_ends_them(self, backbone: Backbone, classifier: Path) -> None:
        """A line break after the stop token: those who trained it have had it there."""
        tokenizer = AutoTokenizer.from_pretrained(classifier)
        tokenizer.chat_template = CHAT_TEMPLATE.replace("<|end|>", "<|end|>\n")
        tokenizer.save_pretrained(classifier)
        model = load_reward_model(backbone, "helpfulness", classifier, tiny_settings(), beside={})
        found = model.score(dialogues(backbone), batch_size=2).tolist()
        plain = AutoModelForSequenceClassification.from_pretrained(str(classifier)).eval()
        ends = []
        for score, prompt, text in zip(found[:2], tiny_prompts(3), ANSWERS, strict=False):
            turns = [{"role": "user", "content": prompt.messages[0].content}, {"role": "assistant", "content": text}]
            ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)["input_ids"]
            ends.append(tokenizer.decode(ids[0, -2:]))
            with torch.no_grad():
                assert score == pytest.approx(plain(input_ids=ids).logits[0, 0].item(), abs=1e-5)
        assert ends == ["<|end|>\n"] * 2

    def test_an_answer_that_did_not_stop_does_not_stop_there(self, backbone: Backbone, classifier: Path) -> None:
        model = load_reward_model(backbone, "helpfulness", classifier, tiny_settings(), beside={})
        assert isinstance(model, Reencoded)
        stopped, cut = (model.encode_again(dialogues(backbone)[row]) for row in (0, 2))
        assert stopped.answer_ids[-1] in model.encoder.stop_ids
        assert cut.answer_ids[-1] not in model.encoder.stop_ids
        assert model.encoder.decode(cut.answer_ids) == ANSWERS[2]

    def test_an_answer_beyond_its_context_is_read_as_an_empty_one(self, backbone: Backbone, classifier: Path) -> None:
        prompt, *_ = dialogues(backbone)
        model = load_reward_model(backbone, "helpfulness", classifier, tiny_settings(), beside={})
        assert isinstance(model, Reencoded)
        empty = model.encoder.encode_answer(prompt.messages, "")
        model.context_tokens = len(empty.input_ids) + 2
        assert model.encode_again(prompt) == empty
        model.context_tokens = len(empty.input_ids) - 1
        with pytest.raises(UserError, match=r"a prompt for the reward model in .* tokens long"):
            model.score([prompt], batch_size=2)

    def test_marks_of_its_template_are_left_out_of_answers(self, backbone: Backbone, classifier: Path) -> None:
        model = load_reward_model(backbone, "helpfulness", classifier, tiny_settings(), beside={})
        assert isinstance(model, Reencoded)
        model.encoder.control_markers = ("[INST]",)
        prompt = tiny_prompts(1)[0]
        said = backbone.encoder.encode_answer(prompt.messages, "the [IN[INST]ST] sea")
        found = model.encode_again(EncodedAnswer(said.prompt_ids, said.answer_ids, prompt.messages))
        assert model.encoder.decode(found.answer_ids) == "the  sea"

    def test_four_bits_are_refused(self, backbone: Backbone, classifier: Path) -> None:
        with pytest.raises(UserError, match=r"model\.quantization=none"):
            load_reward_model(backbone, "helpfulness", classifier, tiny_settings(quantization="nf4"), beside={})

    def test_a_value_cannot_start_from_it(self, backbone: Backbone, classifier: Path) -> None:
        model = load_reward_model(backbone, "helpfulness", classifier, tiny_settings(), beside={})
        with pytest.raises(UserError, match=r"from a helpfulness model on another base; pass ppo\.value=head$"):
            model.value_start(backbone, whole=True)

    def test_a_score_that_is_no_number_names_the_folder(self, backbone: Backbone, classifier: Path) -> None:
        model = load_reward_model(backbone, "helpfulness", classifier, tiny_settings(), beside={})
        assert isinstance(model, Reencoded) and isinstance(model.model, SequenceClassifier)
        torch.nn.init.constant_(model.model.model.get_parameter("score.weight"), torch.inf)
        with pytest.raises(UserError, match=f"the reward model in {classifier} gives scores that are not finite"):
            model.score(dialogues(backbone), batch_size=2)

    def test_without_a_chat_template_it_is_refused(self, backbone: Backbone, classifier: Path) -> None:
        for file in classifier.glob("chat_template*"):
            file.unlink()
        settings = json.loads((classifier / "tokenizer_config.json").read_text())
        settings.pop("chat_template", None)
        (classifier / "tokenizer_config.json").write_text(json.dumps(settings))
        with pytest.raises(UserError, match="no chat template"):
            load_reward_model(backbone, "helpfulness", classifier, tiny_settings(), beside={})

    def test_a_pad_token_that_ends_answers_is_refused(self, backbone: Backbone, classifier: Path) -> None:
        edit_config(classifier, pad_token_id=2)
        with pytest.raises(UserError, match="pad_token_id=2"):
            load_reward_model(backbone, "helpfulness", classifier, tiny_settings(), beside={})

    def test_several_outputs_are_refused(self, backbone: Backbone, classifier: Path) -> None:
        edit_config(classifier, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})
        with pytest.raises(UserError, match=r"score\.weight \(1, 24\) instead of \(2, 24\)"):
            load_reward_model(backbone, "helpfulness", classifier, tiny_settings(), beside={})
        weights = load_file(str(classifier / "model.safetensors"))
        both = {**weights, "score.weight": weights["score.weight"].repeat(2, 1)}
        save_file(both, str(classifier / "model.safetensors"), metadata={"format": "pt"})
        with pytest.raises(UserError, match="has one output, this one has 2"):
            load_reward_model(backbone, "helpfulness", classifier, tiny_settings(), beside={})

    def test_a_model_without_its_head_is_refused(self, backbone: Backbone, tmp_path: Path) -> None:
        """A causal language model: Transformers would put a fresh random head on it."""
        folder = save_tiny_model(tmp_path / "lm")
        with pytest.raises(UserError, match=r"not a reward model, score\.weight is missing"):
            load_reward_model(backbone, "helpfulness", folder, tiny_settings(), beside={})


class TestTandemModel:
    def test_on_the_same_base_it_is_a_role(self, backbone: Backbone, tmp_path: Path) -> None:
        add_reward_model(load_tiny(Path(backbone.path)), "helpfulness").save(tmp_path, calibration={})
        model = load_reward_model(backbone, "helpfulness", tmp_path, tiny_settings(), beside={})
        assert isinstance(model, RewardModel)
        assert model.backbone is backbone

    def test_on_another_base_it_stands_beside(
        self, backbone: Backbone, tiny_folder: Callable[[str], Path], tmp_path: Path
    ) -> None:
        alone = add_reward_model(load_tiny(tiny_folder("qwen2")), "helpfulness", seed=4)
        alone.save(tmp_path, calibration={})
        model = load_reward_model(backbone, "helpfulness", tmp_path, tiny_settings(), beside={})
        assert isinstance(model, Reencoded)
        again = [model.encode_again(dialogue) for dialogue in dialogues(backbone)]
        expected = alone.score(again, batch_size=1).tolist()
        assert model.score(dialogues(backbone), batch_size=2).tolist() == pytest.approx(expected, abs=1e-5)
        assert model.folders == [tmp_path]

    def test_of_the_same_shape_with_other_weights_it_stands_beside(
        self, backbone: Backbone, tmp_path: Path, tiny_folder: Callable[[str], Path]
    ) -> None:
        other = save_tiny_model(tmp_path / "other")
        weights = load_file(str(other / "model.safetensors"))
        save_file({name: value * 1.1 for name, value in weights.items()}, str(other / "model.safetensors"))
        add_reward_model(load_tiny(other), "helpfulness").save(tmp_path / "reward", calibration={})
        beside: dict[str, Backbone] = {}
        model = load_reward_model(backbone, "helpfulness", tmp_path / "reward", tiny_settings(), beside=beside)
        assert isinstance(model, Reencoded)
        assert list(beside) == [str(other)]
        copied = tmp_path / "copied"
        shutil.copytree(tiny_folder("llama"), copied)
        assert same_model(str(copied), backbone.path)
        assert not same_model(str(other), backbone.path)
        assert not same_model(str(tmp_path / "nowhere"), backbone.path)

    def test_two_on_one_base_load_it_once(
        self, backbone: Backbone, tiny_folder: Callable[[str], Path], tmp_path: Path
    ) -> None:
        for name in ("helpfulness", "safety"):
            add_reward_model(load_tiny(tiny_folder("qwen2")), name).save(tmp_path / name, calibration={})
        chosen = RewardFoldersSection(helpfulness=[str(tmp_path / "helpfulness")], safety=[str(tmp_path / "safety")])
        models = load_reward_models(backbone, tmp_path, chosen, tiny_settings())
        first, second = (model.model for model in models.values() if isinstance(model, Reencoded))
        assert isinstance(first, RewardModel) and isinstance(second, RewardModel)
        assert first.backbone is second.backbone


class TestSeveral:
    def test_are_averaged(self, backbone: Backbone) -> None:
        models = [add_reward_model(backbone, f"h{seed}", seed=seed) for seed in range(3)]
        each = [model.score(dialogues(backbone), batch_size=3) for model in models]
        found = Ensemble(models).score(dialogues(backbone), batch_size=3).tolist()
        expected = [(a + b + c) / 3 for a, b, c in zip(*(scores.tolist() for scores in each), strict=True)]
        assert found == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("rule", ["min", "cautious"])
    def test_or_judged_with_caution(self, rule: str, backbone: Backbone) -> None:
        models = [add_reward_model(backbone, f"h{seed}", seed=seed) for seed in range(3)]
        each = [model.score(dialogues(backbone), batch_size=3).tolist() for model in models]
        found = Ensemble(models, rule=rule, caution=0.5).judge(dialogues(backbone), batch_size=3)
        deviations = [pstdev(scores) for scores in zip(*each, strict=True)]
        means = [sum(scores) / 3 for scores in zip(*each, strict=True)]
        least = [min(scores) for scores in zip(*each, strict=True)]
        cautious = [mean - 0.5 * deviation for mean, deviation in zip(means, deviations, strict=True)]
        assert found.scores.tolist() == pytest.approx(least if rule == "min" else cautious, abs=1e-5)
        assert found.disagreement is not None
        assert found.disagreement.tolist() == pytest.approx(deviations, abs=1e-5)

    def test_a_value_cannot_start_from_them(self, backbone: Backbone) -> None:
        models = [add_reward_model(backbone, "helpfulness"), add_reward_model(backbone, "safety", seed=1)]
        with pytest.raises(UserError, match=r"from several helpfulness models; pass ppo\.value=head$"):
            Ensemble(models).value_start(backbone, whole=False)

    def test_by_dimension(self, backbone: Backbone, tmp_path: Path, classifier: Path) -> None:
        for name in ("helpfulness", "safety"):
            add_reward_model(load_tiny(Path(backbone.path)), name).save(tmp_path / name, calibration={})
        own = load_reward_models(backbone, tmp_path, RewardFoldersSection(), tiny_settings())
        assert {name: type(model) for name, model in own.items()} == {"helpfulness": RewardModel, "safety": RewardModel}

    def test_other_folders_and_no_safety_model(self, backbone: Backbone, tmp_path: Path, classifier: Path) -> None:
        add_reward_model(load_tiny(Path(backbone.path)), "helpfulness").save(tmp_path / "helpfulness", calibration={})
        chosen = RewardFoldersSection(helpfulness=[str(tmp_path / "helpfulness"), str(classifier)], safety=[])
        models = load_reward_models(backbone, tmp_path, chosen, tiny_settings())
        assert list(models) == ["helpfulness"]
        assert isinstance(models["helpfulness"], Ensemble)
        assert len(models["helpfulness"].folders) == 2

    def test_a_folder_without_a_model(self, backbone: Backbone, tmp_path: Path) -> None:
        chosen = RewardFoldersSection(helpfulness=[str(tmp_path)], safety=[])
        with pytest.raises(UserError, match="not a reward model; expected"):
            load_reward_models(backbone, tmp_path, chosen, tiny_settings())
