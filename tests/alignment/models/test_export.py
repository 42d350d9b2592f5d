"""Exported reward models give Tandem's scores to Transformers, PEFT and TRL, and come back with them."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import transformers
from datasets import Dataset
from peft import AutoPeftModelForSequenceClassification, PeftModel
from safetensors.torch import load_file, save_file
from stage_fixtures import outcome, own_data, own_model, reduced_recipe, without_manifests
from tiny import (
    CHAT_TEMPLATE,
    add_reward_model,
    add_role,
    base_parameters,
    load_tiny,
    save_tiny_model,
    state_of,
    tiny_settings,
)
from tiny import unchanged as bit_for_bit
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaForSequenceClassification,
    pipeline,
)
from trl import RewardConfig, RewardTrainer

from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.data.records import Message
from alignment.errors import UserError
from alignment.models.backbone import Backbone
from alignment.models.export import model_card, standard_folders
from alignment.models.export.model_card import OWN_FOLDER
from alignment.models.export.standard_folders import export_policy, export_reward_model, tokenizer_with_pad
from alignment.models.heads.known_heads import HEADS
from alignment.models.scorers.load_reward_models import Reencoded, load_reward_model
from alignment.models.scorers.reward_model import RewardModel
from alignment.settings.recipe import Recipe
from stages.door.progress_and_exit import guarded
from stages.export import write_folder as export
from stages.ppo import train_policy as ppo
from stages.reward import train_reward_models
from stages.sft import finetune

OFFSET = 0.25  # of ``add_reward_model``
SAID = (("why", "the sea"), ("is the sky blue or is it grey today", "no"), ("what is it", "the cat sat and it is grey"))


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def encoded(backbone: Backbone) -> list[EncodedAnswer]:
    """The dialogues of ``SAID`` and one that was cut off, each of another length."""
    found = []
    for question, answer in SAID:
        messages = (Message(role="user", content=question),)
        ids = backbone.encoder.encode_answer(messages, answer)
        found.append(EncodedAnswer(ids.prompt_ids, ids.answer_ids, messages))
    found.append(EncodedAnswer(found[0].prompt_ids, found[0].answer_ids[:-1], found[0].messages))
    assert len({len(dialogue.input_ids) for dialogue in found}) == len(found)
    return found


def logits_by_hand(model: RewardModel, rows: Sequence[EncodedAnswer]) -> list[float]:
    """Raw scores without padding, pooling or ``RewardModel``: each row alone, its last state times the weight."""
    found = []
    with torch.no_grad(), model.backbone.role(model.role):
        for row in rows:
            states = model.backbone.base.base_model(input_ids=torch.tensor([row.input_ids])).last_hidden_state
            found.append((states[0, -1] @ model.head.get_parameter("score.weight")[0]).item())
    assert len(rows) == 1 or max(found) - min(found) > 0.05
    return found


def logits_of(classifier: nn.Module, folder: Path, rows: Sequence[EncodedAnswer]) -> list[float]:
    """What a loaded model says of one batch that the exported tokenizer padded."""
    batch = AutoTokenizer.from_pretrained(folder).pad(
        {"input_ids": [row.input_ids for row in rows]}, return_tensors="pt"
    )
    assert bool((batch["attention_mask"] == 0).any())
    with torch.no_grad():
        return classifier.eval()(**batch).logits[:, 0].tolist()


def without(folder: Path, file: str, key: str) -> None:
    """Take one weight out of a file."""
    state = load_file(str(folder / file))
    del state[key]
    save_file(state, str(folder / file), metadata={"format": "pt"})


class TestMerged:
    def test_transformers_gives_the_same_scores(self, any_backbone: Backbone, tmp_path: Path) -> None:
        model = add_reward_model(any_backbone, "helpfulness", seed=3)
        rows = encoded(any_backbone)
        expected = logits_by_hand(model, rows)
        export_reward_model(model, tmp_path / "out", merged=True)
        loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
        assert not any(report.values()), report
        assert logits_of(loaded, tmp_path / "out", rows) == pytest.approx(expected, abs=1e-5)
        assert model.score(rows, batch_size=4).tolist() == pytest.approx([x - OFFSET for x in expected], abs=1e-5)

    def test_is_one_linear_map_in_safetensors(self, backbone: Backbone, tmp_path: Path) -> None:
        model = add_reward_model(backbone, "helpfulness", seed=3)
        export_reward_model(model, tmp_path / "out", merged=True)
        state = load_file(str(tmp_path / "out" / "model.safetensors"))
        assert torch.equal(state["score.weight"], model.head.state_dict()["score.weight"])
        assert [name for name in state if "lora" in name or "bias" in name or "lm_head" in name] == []
        assert {file.suffix for file in (tmp_path / "out").iterdir()} <= {".safetensors", ".json", ".jinja", ".md"}
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert config["architectures"] == ["LlamaForSequenceClassification"]
        assert config["dtype"] == "float32"

    def test_leaves_the_base_and_its_tokenizer_alone(self, tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
        backbone = load_tiny(tiny_folder("llama, pad is eos"))
        model = add_reward_model(backbone, "helpfulness", seed=3)
        before, config = state_of(base_parameters(backbone)), backbone.base.config.to_dict()
        adapter, vocabulary = backbone.adapter_state("helpfulness"), backbone.tokenizer.get_vocab()
        export_reward_model(model, tmp_path / "out", merged=True)
        assert bit_for_bit(base_parameters(backbone), before)
        assert all(torch.equal(value, adapter[key]) for key, value in backbone.adapter_state("helpfulness").items())
        assert backbone.base.config.to_dict() == config
        assert backbone.tokenizer.get_vocab() == vocabulary
        assert backbone.tokenizer.pad_token == "<|end|>"

    def test_a_pad_token_that_ends_answers_is_replaced(
        self, tiny_folder: Callable[[str], Path], tmp_path: Path
    ) -> None:
        backbone = load_tiny(tiny_folder("llama, pad is eos"))
        model = add_reward_model(backbone, "helpfulness", seed=3)
        rows = encoded(backbone)
        expected = logits_by_hand(model, rows)
        export_reward_model(model, tmp_path / "out", merged=True)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
        assert tokenizer.pad_token_id == loaded.config.pad_token_id == len(tokenizer) - 1
        assert tokenizer.pad_token_id not in backbone.encoder.stop_ids
        assert loaded.get_input_embeddings().weight.shape[0] == len(tokenizer) == len(backbone.tokenizer) + 1
        loaded.config.pad_token_id = backbone.tokenizer.eos_token_id  # as it was: stopped answers lose their last token
        wrong = logits_of(loaded, tmp_path / "out", rows)
        assert wrong[:3] != pytest.approx(expected[:3], abs=1e-2)

    def test_without_a_pad_token_one_is_added(self, backbone: Backbone) -> None:
        backbone.tokenizer.pad_token = None
        found = tokenizer_with_pad(backbone, may_add=True)
        assert (found.pad_token, found.pad_token_id) == ("<pad>", len(backbone.tokenizer))  # <|pad|> is in use

    def test_the_pipeline_reads_the_chat_template(self, any_backbone: Backbone, tmp_path: Path) -> None:
        model = add_reward_model(any_backbone, "helpfulness", seed=3)
        expected = logits_by_hand(model, encoded(any_backbone)[:3])
        export_reward_model(model, tmp_path / "out", merged=True)
        classify = pipeline("text-classification", model=str(tmp_path / "out"), device="cpu", batch_size=3)
        texts = [classify.tokenizer.apply_chat_template(turns(*said), tokenize=False) for said in SAID]
        for options in ({"function_to_apply": "none"}, {}):  # raw by default as well: problem_type is regression
            found = classify(texts, add_special_tokens=False, **options)
            assert [item["score"] for item in found] == pytest.approx(expected, abs=1e-5)
            assert {item["label"] for item in found} == {"reward"}

    def test_trl_goes_on_training_it(self, tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
        backbone = load_tiny(tiny_folder("llama, pad is eos"))
        model = add_reward_model(backbone, "helpfulness", seed=3)
        rows = encoded(backbone)
        expected = logits_by_hand(model, rows)
        export_reward_model(model, tmp_path / "out", merged=True)
        pairs = [
            {"prompt": turns(q, a)[:1], "chosen": turns(q, a)[1:], "rejected": [{"role": "assistant", "content": "no"}]}
            for q, a in (SAID[0], SAID[2])
        ]
        settings = RewardConfig(
            str(tmp_path / "trl"),
            max_steps=2,
            learning_rate=1e-2,
            per_device_train_batch_size=2,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            gradient_checkpointing=False,
        )
        trainer = RewardTrainer(model=str(tmp_path / "out"), args=settings, train_dataset=Dataset.from_list(pairs))
        start = logits_of(trainer.model, tmp_path / "out", rows)
        assert start == pytest.approx(expected, abs=1e-5)
        trainer.train()
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        assert len(losses) == 2
        assert all(0 < loss < 100 for loss in losses)
        assert logits_of(trainer.model, tmp_path / "out", rows) != pytest.approx(expected, abs=1e-2)

    def test_in_bfloat16_it_keeps_the_bases_format(self, tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
        backbone = load_tiny(tiny_folder("llama"), dtype="bfloat16")
        model = add_reward_model(backbone, "helpfulness", seed=3)
        rows = encoded(backbone)
        export_reward_model(model, tmp_path / "out", merged=True)
        state = load_file(str(tmp_path / "out" / "model.safetensors"))
        assert {name: value.dtype for name, value in state.items() if value.dtype != torch.bfloat16} == {
            "score.weight": torch.float32
        }
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
        assert loaded.dtype == torch.bfloat16
        assert loaded.config._attn_implementation == "sdpa"
        ours = (model.score(rows, batch_size=4) + OFFSET).tolist()
        assert logits_of(loaded, tmp_path / "out", rows) == pytest.approx(ours, abs=0.15)


class TestAdapter:
    def test_peft_gives_the_same_scores(self, any_backbone: Backbone, tmp_path: Path) -> None:
        model = add_reward_model(any_backbone, "helpfulness", seed=3)
        rows = encoded(any_backbone)
        expected = logits_by_hand(model, rows)
        export_reward_model(model, tmp_path / "out", merged=False)
        pad = AutoTokenizer.from_pretrained(tmp_path / "out").pad_token_id
        assert pad not in any_backbone.encoder.stop_ids
        base = AutoModelForSequenceClassification.from_pretrained(any_backbone.path, num_labels=1, pad_token_id=pad)
        loaded = PeftModel.from_pretrained(base, tmp_path / "out")
        assert logits_of(loaded, tmp_path / "out", rows) == pytest.approx(expected, abs=1e-5)

    def test_on_a_base_in_four_bits(self, tmp_path: Path) -> None:
        from bitsandbytes.nn import Linear4bit

        backbone = load_tiny(save_tiny_model(tmp_path / "base", hidden=32), quantization="nf4")
        model = add_reward_model(backbone, "helpfulness", seed=3)
        rows = encoded(backbone)
        export_reward_model(model, tmp_path / "out", merged=False)
        pad = AutoTokenizer.from_pretrained(tmp_path / "out").pad_token_id
        base = AutoModelForSequenceClassification.from_pretrained(
            backbone.path,
            num_labels=1,
            pad_token_id=pad,
            dtype=torch.float32,
            quantization_config=backbone.base.config.quantization_config,
        )
        for module in base.modules():
            if isinstance(module, Linear4bit):
                module.support_avx512bf16_for_cpu = False  # its kernel wants wider layers
        loaded = PeftModel.from_pretrained(base, tmp_path / "out")
        assert logits_of(loaded, tmp_path / "out", rows) == pytest.approx(logits_by_hand(model, rows), abs=1e-4)

    def test_the_code_of_the_card_loads_a_base_by_the_name_that_it_has(
        self, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(standard_folders, "_hub_name", lambda backbone: "someone/model")
        export_reward_model(add_reward_model(backbone, "helpfulness"), tmp_path / "out", merged=False)
        assert "from_pretrained(\n    'someone/model'," in (tmp_path / "out" / "README.md").read_text()

    @pytest.mark.parametrize("what", ["bias", "trunk", "prefix"])
    def test_a_classifier_of_another_kind_is_refused(
        self, what: str, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def other(config: Any, **options: Any) -> Any:
            made = AutoModelForSequenceClassification.from_config(config)
            if what == "bias":
                made.score = torch.nn.Linear(config.hidden_size, 1, bias=True)
            if what == "trunk":
                made.model = torch.nn.Identity()
            if what == "prefix":
                made.base_model_prefix = "score"
            return made

        monkeypatch.setattr(standard_folders, "AutoModelForSequenceClassification", SimpleNamespace(from_config=other))
        with pytest.raises(UserError, match="is not a linear map of the states of"):
            export_reward_model(add_reward_model(backbone, "helpfulness"), tmp_path / "out", merged=True)

    def test_by_itself_peft_finds_a_base_that_has_a_name(self, backbone: Backbone, tmp_path: Path) -> None:
        model = add_reward_model(backbone, "helpfulness", seed=3)
        rows = encoded(backbone)
        expected = logits_by_hand(model, rows)
        export_reward_model(model, tmp_path / "out", merged=False)
        file = tmp_path / "out" / "adapter_config.json"
        described = json.loads(file.read_text())
        assert described["base_model_name_or_path"] is None
        file.write_text(json.dumps({**described, "base_model_name_or_path": backbone.path}))
        pad = AutoTokenizer.from_pretrained(tmp_path / "out").pad_token_id
        loaded = AutoPeftModelForSequenceClassification.from_pretrained(
            tmp_path / "out", num_labels=1, pad_token_id=pad
        )
        assert logits_of(loaded, tmp_path / "out", rows) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("merged", [True, False], ids=["merged", "adapter"])
class TestForOthers:
    @pytest.fixture(autouse=True)
    def strict_umask(self) -> Iterator[None]:
        before = os.umask(0o077)
        yield
        os.umask(before)

    def written(self, merged: bool, backbone: Backbone, tmp_path: Path, **more: Any) -> list[Path]:
        export_reward_model(add_reward_model(backbone, "helpfulness"), tmp_path / "r" / "out", merged=merged, **more)
        add_role(backbone, "policy")
        export_policy(backbone, "policy", tmp_path / "p" / "out", merged=merged, **more)
        return [tmp_path / "r" / "out", tmp_path / "p" / "out"]

    def test_everyone_may_read(self, merged: bool, backbone: Backbone, tmp_path: Path) -> None:
        for folder in self.written(merged, backbone, tmp_path):
            for path in (folder, *folder.rglob("*")):
                assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path

    def test_no_file_names_a_folder_of_this_machine(self, merged: bool, backbone: Backbone, tmp_path: Path) -> None:
        for folder in self.written(merged, backbone, tmp_path):
            for path in folder.rglob("*"):
                content = path.read_bytes()
                assert backbone.path.encode() not in content and str(tmp_path).encode() not in content, path

    def test_the_card_says_what_is_needed_and_what_is_not_known(
        self, merged: bool, backbone: Backbone, tmp_path: Path
    ) -> None:
        for folder in self.written(merged, backbone, tmp_path):
            card = (folder / "README.md").read_text()
            assert f"Transformers {transformers.__version__}" in card and "licence is unknown" in card
            assert "base_model:" not in card and "license:" not in card

    def test_base_and_licence_are_those_of_the_bases_card(
        self, merged: bool, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "card.md").write_text("---\nlicense: apache-2.0\ntags: []\n---\n# A model\nlicense: no\n")
        monkeypatch.setattr(model_card, "try_to_load_from_cache", lambda *asked: str(tmp_path / "card.md"))
        for folder in self.written(merged, backbone, tmp_path, made_from="someone/model"):
            header = (folder / "README.md").read_text().split("---")[1].splitlines()
            assert "base_model: someone/model" in header and "license: apache-2.0" in header
            assert header.count("- tandem-rlhf") == 1


@pytest.mark.parametrize("merged", [True, False], ids=["merged", "adapter"])
class TestCard:
    @pytest.mark.parametrize("name", ["llama", "llama, pad is eos"])
    def test_the_reward_models_code_gives_its_score(
        self,
        merged: bool,
        name: str,
        tiny_folder: Callable[[str], Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        backbone = load_tiny(tiny_folder(name))
        model = add_reward_model(backbone, "helpfulness", seed=3)
        row = backbone.encoder.encode_answer((Message(role="user", content="Hello"),), "Hi.")
        export_reward_model(model, tmp_path / "out", merged=merged)
        monkeypatch.chdir(tmp_path / "out")
        assert run_card(backbone.path)["score"].item() == pytest.approx(
            logits_by_hand(model, [row])[0] - OFFSET, abs=1e-5
        )

    def test_the_policys_code_runs(
        self, merged: bool, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
    ) -> None:
        add_role(backbone, "policy")
        export_policy(backbone, "policy", tmp_path / "out", merged=merged)
        monkeypatch.chdir(tmp_path / "out")
        code = Path("README.md").read_text().replace("max_new_tokens=200", "max_new_tokens=4")
        Path("README.md").write_text(code)
        run_card(backbone.path)
        assert capsys.readouterr().out.startswith("<|begin|><|user|>Hello<|assistant|>")


def run_card(base: str) -> dict[str, Any]:
    """Run the code of the card in this folder, with the base filled in; returns its variables."""
    found: dict[str, Any] = {}
    code = Path("README.md").read_text().split("```")[1].removeprefix("python\n")
    exec(code.replace(OWN_FOLDER, base), found)
    return found


FORMS = pytest.mark.parametrize("merged", [True, False], ids=["merged", "adapter"])


class TestBackInTandem:
    @FORMS
    @pytest.mark.parametrize("name", ["llama", "llama, pad is eos", "qwen2"])
    def test_scores_are_ours(self, name: str, merged: bool, tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
        backbone = load_tiny(tiny_folder(name))
        model = add_reward_model(backbone, "helpfulness", seed=3)
        rows = encoded(backbone)
        expected = [logit - OFFSET for logit in logits_by_hand(model, rows)]
        export_reward_model(model, tmp_path / "out", merged=merged)
        again = load_reward_model(backbone, "other", tmp_path / "out", tiny_settings(), beside={})
        assert isinstance(again, Reencoded)
        assert again.score(rows, batch_size=3).tolist() == pytest.approx(expected, abs=1e-5)

    def test_dialogues_end_with_the_stop_token_as_in_training(self, tmp_path: Path) -> None:
        """Also where the template writes a line break after it."""
        tokenizer = AutoTokenizer.from_pretrained(save_tiny_model(tmp_path / "base"))
        tokenizer.chat_template = CHAT_TEMPLATE.replace("<|end|>", "<|end|>\n")
        tokenizer.save_pretrained(tmp_path / "base")
        backbone = load_tiny(tmp_path / "base")
        model = add_reward_model(backbone, "helpfulness", seed=3)
        rows = encoded(backbone)
        export_reward_model(model, tmp_path / "out", merged=True)
        again = load_reward_model(backbone, "other", tmp_path / "out", tiny_settings(), beside={})
        expected = [logit - OFFSET for logit in logits_by_hand(model, rows)]
        assert again.score(rows, batch_size=3).tolist() == pytest.approx(expected, abs=1e-5)
        assert "<|assistant|>Hi.<|end|>'" in (tmp_path / "out" / "README.md").read_text()

    def test_calibration_figures_go_along(self, backbone: Backbone, tmp_path: Path) -> None:
        model = add_reward_model(backbone, "helpfulness")
        model.save(tmp_path / "trained", calibration={"std": 1.5})
        model.folder = tmp_path / "trained"
        export_reward_model(model, tmp_path / "out", merged=True)
        found = json.loads((tmp_path / "out" / "calibration.json").read_text())
        assert found == {"format_version": 1, "offset": OFFSET, "calibration": {"std": 1.5}}

    @pytest.mark.parametrize("content", ["{}", '{"offset": "a"}', '{"offset": NaN}', "[1]", "{"])
    def test_a_spoilt_calibration_file_is_refused(self, content: str, backbone: Backbone, tmp_path: Path) -> None:
        export_reward_model(add_reward_model(backbone, "helpfulness"), tmp_path / "out", merged=True)
        (tmp_path / "out" / "calibration.json").write_text(content)
        with pytest.raises(UserError, match=r"calibration\.json"):
            load_reward_model(backbone, "other", tmp_path / "out", tiny_settings(), beside={})

    @pytest.mark.parametrize(
        ("merged", "file", "key"),
        [
            (True, "model.safetensors", "score.weight"),
            (False, "adapter_model.safetensors", "base_model.model.score.weight"),
            (False, "adapter_model.safetensors", "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:Found missing adapter keys")
    def test_a_missing_weight_is_never_made_up(
        self, merged: bool, file: str, key: str, backbone: Backbone, tmp_path: Path
    ) -> None:
        export_reward_model(add_reward_model(backbone, "helpfulness"), tmp_path / "out", merged=merged)
        without(tmp_path / "out", file, key)
        with pytest.raises(UserError, match=rf"not a reward model, {key} is missing"):
            load_reward_model(backbone, "other", tmp_path / "out", tiny_settings(), beside={})

    def test_an_adapter_whose_base_has_gone(self, backbone: Backbone, tmp_path: Path) -> None:
        export_reward_model(add_reward_model(backbone, "helpfulness"), tmp_path / "out", merged=False)
        file = tmp_path / "out" / "adapter_config.json"
        described = json.loads(file.read_text())
        file.write_text(json.dumps({**described, "base_model_name_or_path": str(tmp_path / "gone")}))
        with pytest.raises(UserError, match="gone: no sequence classifier"):
            load_reward_model(backbone, "other", tmp_path / "out", tiny_settings(), beside={})

    def test_an_adapter_on_another_base_than_the_one_at_hand(self, backbone: Backbone, tmp_path: Path) -> None:
        export_reward_model(add_reward_model(backbone, "helpfulness"), tmp_path / "out", merged=False)
        other = load_tiny(save_tiny_model(tmp_path / "other", hidden=32))
        with pytest.raises(UserError, match="other is not the one that it was trained on"):
            load_reward_model(other, "other", tmp_path / "out", tiny_settings(), beside={})

    def test_an_adapter_of_a_policy_is_no_reward_model(self, backbone: Backbone, tmp_path: Path) -> None:
        add_role(backbone, "policy")
        export_policy(backbone, "policy", tmp_path / "out", merged=False)
        with pytest.raises(UserError, match="not a reward model; expected"):
            load_reward_model(backbone, "other", tmp_path / "out", tiny_settings(), beside={})


class TestHubNames:
    def test_a_name_is_looked_up_on_the_hub(
        self, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a cache as the Hub's client leaves it behind, since tests have no network."""
        model = add_reward_model(backbone, "helpfulness", seed=3)
        repository, commit = tmp_path / "hub" / "models--someone--judge", "0" * 40
        export_reward_model(model, repository / "snapshots" / commit, merged=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.chdir(tmp_path)
        rows = encoded(backbone)
        found = load_reward_model(backbone, "other", "someone/judge", tiny_settings(), beside={})
        expected = [logit - OFFSET for logit in logits_by_hand(model, rows)]
        assert found.score(rows, batch_size=2).tolist() == pytest.approx(expected, abs=1e-5)
        assert found.folders == [repository / "snapshots" / commit]
        other = add_reward_model(backbone, "second", seed=4)
        export_reward_model(other, tmp_path / "someone" / "judge", merged=True)  # a folder of that name comes first
        found = load_reward_model(backbone, "other", "someone/judge", tiny_settings(), beside={})
        assert found.score(rows, batch_size=2).tolist() == pytest.approx(
            other.score(rows, batch_size=2).tolist(), abs=1e-5
        )

    @pytest.mark.parametrize("name", ["nobody/nothing", "a/b/c", "/no/such/folder", "no such name", ""])
    def test_a_name_that_is_neither(self, name: str, backbone: Backbone) -> None:
        with pytest.raises(UserError, match="there is no such folder"):
            load_reward_model(backbone, "other", name, tiny_settings(), beside={})


class TestRefusals:
    @pytest.mark.parametrize("head", sorted(HEADS.keys() - {"linear"}))
    def test_other_heads(self, head: str, backbone: Backbone, tmp_path: Path) -> None:
        model = add_reward_model(backbone, "helpfulness", head_name=head)
        with pytest.raises(UserError, match=rf"^helpfulness: .*head '{head}'.*reward\.head\.name=linear"):
            export_reward_model(model, tmp_path / "out", merged=True)
        assert list(tmp_path.iterdir()) == []

    def test_an_existing_folder(self, backbone: Backbone, tmp_path: Path) -> None:
        model = add_reward_model(backbone, "helpfulness")
        export_reward_model(model, tmp_path / "out", merged=True)
        before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
        with pytest.raises(UserError, match="out exists"):
            export_reward_model(model, tmp_path / "out", merged=False)
        assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
        export_reward_model(model, tmp_path / "out", merged=False, overwrite=True)
        assert not (tmp_path / "out" / "model.safetensors").exists()
        assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
        assert [file.name for file in tmp_path.iterdir()] == ["out"]

    def test_a_folder_that_is_no_export_is_never_replaced(self, backbone: Backbone, tmp_path: Path) -> None:
        model = add_reward_model(backbone, "helpfulness")
        save_tiny_model(tmp_path / "mine")
        for place in (tmp_path, tmp_path / "mine"):
            with pytest.raises(UserError, match="left alone"):
                export_reward_model(model, place, merged=True, overwrite=True)
        assert (tmp_path / "mine" / "model.safetensors").is_file()

    def test_one_that_fails_half_way_leaves_nothing(
        self, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*unused: Any, **unused_by_name: Any) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(LlamaForSequenceClassification, "save_pretrained", full)
        with pytest.raises(OSError, match="disk full"):
            export_reward_model(add_reward_model(backbone, "helpfulness"), tmp_path / "out", merged=True)
        assert list(tmp_path.iterdir()) == []

    def test_a_base_in_four_bits_is_not_merged(self, tmp_path: Path) -> None:
        backbone = load_tiny(save_tiny_model(tmp_path / "base", hidden=32), quantization="nf4")
        model = add_reward_model(backbone, "helpfulness")
        with pytest.raises(UserError, match=r"4-bit.*model\.quantization=none.*export\.form=adapter"):
            export_reward_model(model, tmp_path / "out", merged=True)
        with pytest.raises(UserError, match="4-bit"):
            export_policy(backbone, "helpfulness", tmp_path / "out", merged=True)
        assert [file.name for file in tmp_path.iterdir()] == ["base"]

    def test_a_vocabulary_with_nothing_to_pad_with(
        self, tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backbone = load_tiny(tiny_folder("llama, pad is eos"))
        assert tokenizer_with_pad(backbone, may_add=False).pad_token == "<|begin|>"
        monkeypatch.setattr(backbone.encoder, "stop_ids", backbone.encoder.control_ids)
        with pytest.raises(UserError, match=r"export\.form=merged"):
            tokenizer_with_pad(backbone, may_add=False)


class TestPolicy:
    @FORMS
    def test_transformers_gives_the_same_logits(self, merged: bool, backbone: Backbone, tmp_path: Path) -> None:
        add_role(backbone, "policy", seed=5)
        ids = torch.tensor([encoded(backbone)[1].input_ids])
        with torch.no_grad(), backbone.role("policy"):
            expected: Tensor = backbone.base(input_ids=ids).logits
        export_policy(backbone, "policy", tmp_path / "out", merged=merged)
        base = tmp_path / "out" if merged else Path(backbone.path)
        loaded = AutoModelForCausalLM.from_pretrained(base)
        if not merged:
            assert (loaded(input_ids=ids).logits - expected).abs().max() > 0.1
            loaded = PeftModel.from_pretrained(loaded, tmp_path / "out")
        with torch.no_grad():
            assert torch.allclose(loaded.eval()(input_ids=ids).logits, expected, atol=1e-4)
        assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == backbone.tokenizer.chat_template

    def test_another_export_is_replaced_where_that_is_said(self, backbone: Backbone, tmp_path: Path) -> None:
        add_role(backbone, "policy", seed=5)
        export_policy(backbone, "policy", tmp_path / "out", merged=True)
        with pytest.raises(UserError, match="out exists"):
            export_policy(backbone, "policy", tmp_path / "out", merged=False)
        export_policy(backbone, "policy", tmp_path / "out", merged=False, overwrite=True)
        weights = [file.name for file in (tmp_path / "out").glob("*.safetensors")]
        assert weights == ["adapter_model.safetensors"]

    def test_a_whole_model_is_no_adapter(self, backbone: Backbone, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"export\.form=merged"):
            export_policy(backbone, None, tmp_path / "out", merged=False)


# -- the stage -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with SFT and a helpfulness model with a linear head."""
    folder = tmp_path_factory.mktemp("made")
    own_data(folder / "data")
    own_model(folder / "model")
    assert guarded(lambda: finetune.run(recipe(folder))) == 0
    assert guarded(lambda: train_reward_models.run(recipe(folder))) == 0
    return folder


def recipe(folder: Path, *overrides: str) -> Recipe:
    names = ("prompts", "heldout_prompts", "demonstrations", "pretraining")
    files = {name: str(folder / "data" / f"{name}.jsonl") for name in names}
    settings = [f"model.name_or_path={folder / 'model'}", "evaluate.judge=none", "reward.models=[helpfulness]"]
    settings += [f"reward.helpfulness.data={folder / 'data' / 'pairs.jsonl'}", "reward.heldout_share=0.3"]
    return reduced_recipe(files, folder / "run", *settings, *overrides)


def test_the_stage_exports_a_reward_model_that_another_run_can_use(made: Path, tmp_path: Path) -> None:
    assert guarded(lambda: export.run(recipe(made, f"export.to={tmp_path / 'out'}"))) == 0
    backbone = load_tiny(made / "run" / "sft")
    ours = RewardModel.load(backbone, "helpfulness", made / "run" / "round-1" / "reward" / "helpfulness")
    assert ours.offset != 0
    rows = encoded(backbone)
    found = load_reward_model(backbone, "other", tmp_path / "out", tiny_settings(), beside={})
    assert isinstance(found, Reencoded)
    assert found.score(rows, batch_size=2).tolist() == pytest.approx(ours.score(rows, batch_size=2).tolist(), abs=1e-5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert repr(ours.offset) in card
    assert "<|begin|><|user|>Hello<|assistant|>Hi.<|end|>" in card


def test_the_stage_exports_the_newest_policy(made: Path, tmp_path: Path) -> None:
    assert guarded(lambda: export.run(recipe(made, "export.what=policy", f"export.to={tmp_path}/out"))) == 0
    state = load_file(str(tmp_path / "out" / "model.safetensors"))
    expected = load_file(str(made / "run" / "sft" / "model.safetensors"))
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


def test_an_export_pays_a_policy_whose_adapter_is_exported_in_turn(made: Path, tmp_path: Path) -> None:
    assert guarded(lambda: export.run(recipe(made, f"export.to={tmp_path / 'judge'}"))) == 0
    shutil.copytree(made / "run", tmp_path / "run")
    settings = [f"run_dir={tmp_path / 'run'}", f"ppo.reward_models.helpfulness=[{tmp_path / 'judge'}]"]
    settings += ["ppo.reward_models.safety=[]", "ppo.method=rejection"]
    assert guarded(lambda: ppo.run(recipe(made, *settings))) == 0
    result = json.loads((tmp_path / "run" / "round-1" / "rejection" / "result.json").read_text())
    assert str(tmp_path / "judge") in result["files"]
    for number in ("null", "1"):
        wanted = [
            f"export.round={number}",
            "export.what=policy",
            "export.form=adapter",
            f"export.to={tmp_path / number}",
        ]
        assert guarded(lambda wanted=wanted: export.run(recipe(made, *settings, *wanted))) == 0
        state = load_file(str(tmp_path / number / "adapter_model.safetensors"))
        own = load_file(str(tmp_path / "run" / "round-1" / "rejection" / "adapter_model.safetensors"))
        assert state.keys() == own.keys()
        assert all(torch.equal(value, own[name]) for name, value in state.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["export.what=safety"], "round 1 trained no safety model"),
        (["export.round=2"], "python -m stages.pipeline"),
        (["export.what=policy", "export.round=1"], "python -m stages.ppo"),
        (["export.what=policy", "export.form=adapter"], "export.form=merged"),
        (["run_dir=nowhere"], "python -m stages.sft"),
        (["export.to={made}/run/sft"], "exists. Pass overwrite=true"),
        (["export.to={made}/run/sft", "overwrite=true"], "left alone"),
        (["export.to={made}/data/pairs.jsonl/out"], "cannot be made"),
    ],
)
def test_the_stage_says_what_is_wrong(
    overrides: list[str], message: str, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = recipe(made, *[item.format(made=made) for item in overrides])
    code, shown = outcome(lambda: export.run(settings), capsys)
    assert code == 2, shown
    assert shown.count("error: ") == 1
    assert message in shown
    assert not (made / "run" / "export" / "helpfulness").exists()
    assert (made / "run" / "sft" / "model.safetensors").is_file()


def test_another_head_ends_as_one_message(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = load_tiny(made / "run" / "sft")
    trained = made / "run" / "round-1" / "reward" / "safety"
    add_reward_model(backbone, "safety", head_name="mlp").save(trained, calibration={})
    without_manifests(made / "run")
    code, shown = outcome(lambda: export.run(recipe(made, "export.what=safety", f"export.to={tmp_path}/x")), capsys)
    assert code == 2
    assert "'mlp'" in shown
