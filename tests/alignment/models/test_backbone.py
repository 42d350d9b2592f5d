"""One base, many roles: each role is what a separately loaded model would be, and none reaches into another."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import (
    LORA,
    add_reward_model,
    add_role,
    as_answers,
    base_parameters,
    load_tiny,
    randomize,
    save_tiny_model,
    separate_model,
    state_of,
    tiny_settings,
    tiny_tokenizer,
    token_rows,
    unchanged,
)
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from alignment.data.chat_template import date_of, with_date
from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.data.records import Message, Prompt
from alignment.errors import UserError
from alignment.masks_padding_logprobs import pad_right
from alignment.models.backbone import Backbone, Role, save_model
from alignment.models.pretrained import end_tokens_of, load_base, load_causal_lm, load_tokenizer, merge_and_save
from alignment.models.sampling.batch_sampling import answer_prompts
from alignment.models.shared_prompts import pack_answers
from alignment.settings.sections import SamplingSection

ROWS = token_rows(11, 4, 7)


def role_logits(backbone: Backbone, role: str | None) -> list[Tensor]:
    """Logits of each row without its padding, under a role."""
    ids, lengths = pad_right(ROWS, backbone.encoder.pad_id, backbone.device)
    with backbone.role(role):
        hidden = backbone.hidden_states(ids, lengths)
    return [backbone.logits(hidden[row, :length]) for row, length in enumerate(lengths.tolist())]


def model_logits(model: nn.Module) -> list[Tensor]:
    """The same from a Hugging Face model, one unpadded row at a time."""
    return [model(input_ids=torch.tensor([row])).logits[0] for row in ROWS]


def assert_close(actual: list[Tensor], expected: list[Tensor], *, atol: float = 2e-5) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, atol=atol, rtol=1e-4)


def differ(some: list[Tensor], others: list[Tensor]) -> bool:
    return all((one - other).abs().max().item() > 0.05 for one, other in zip(some, others, strict=True))


class TestRoles:
    def test_each_role_equals_a_separately_loaded_model(self, any_backbone: Backbone, tmp_path: Path) -> None:
        add_role(any_backbone, "policy", seed=1)
        add_role(any_backbone, "safety", seed=2, trainable=False)
        with torch.no_grad():
            merged = {
                role: model_logits(separate_model(any_backbone, role, tmp_path / role).merge_and_unload())
                for role in ("policy", "safety")
            }
            bare = model_logits(AutoModelForCausalLM.from_pretrained(any_backbone.path, dtype=torch.float32))
            assert_close(role_logits(any_backbone, "policy"), merged["policy"])
            assert_close(role_logits(any_backbone, None), bare)
            assert_close(role_logits(any_backbone, "safety"), merged["safety"])
        assert differ(merged["policy"], merged["safety"])
        assert differ(merged["policy"], bare)

    def test_roles_nest_and_are_given_back_after_an_error(self, backbone: Backbone) -> None:
        add_role(backbone, "policy", seed=1)
        add_role(backbone, "safety", seed=2)
        alone = {role: role_logits(backbone, role) for role in ("policy", "safety", None)}
        ids, lengths = pad_right(ROWS[:1], 0, backbone.device)

        def first_row() -> list[Tensor]:
            return [backbone.logits(backbone.hidden_states(ids, lengths)[0, : lengths[0]])]

        with backbone.role("policy"):
            with backbone.role(None):
                assert torch.equal(first_row()[0], alone[None][0])
            with pytest.raises(RuntimeError, match="on purpose"), backbone.role("safety"):
                raise RuntimeError("on purpose")
            assert torch.equal(first_row()[0], alone["policy"][0])

    def test_an_unknown_role_is_refused(self, backbone: Backbone) -> None:
        add_role(backbone, "policy")
        with pytest.raises(ValueError, match=r"'polciy'.*policy"), backbone.role("polciy"):
            pass

    def test_nothing_ever_changes_requires_grad(self, backbone: Backbone) -> None:
        add_role(backbone, "policy", trainable=True)
        add_role(backbone, "safety", trainable=False)

        def flags() -> dict[str, bool]:
            assert backbone.peft is not None
            return {name: parameter.requires_grad for name, parameter in backbone.peft.named_parameters()}

        before = flags()
        assert {name for name, flag in before.items() if flag} == {name for name in before if ".policy." in name}
        for role in ("safety", None, "policy"):
            with backbone.role(role):
                assert flags() == before
        add_reward_model(backbone, "helpfulness")
        backbone.copy_adapter("policy", "reference", trainable=False)
        backbone.copy_adapter("safety", "value", trainable=True)
        after = flags()
        assert {name: after[name] for name in before} == before
        trained = {name for name, flag in after.items() if flag}
        assert trained == {name for name in after if ".policy." in name or ".value." in name}

    def test_adapter_parameters_are_those_of_one_role_only(self, backbone: Backbone) -> None:
        add_role(backbone, "q_proj")  # also the name of a layer: every adapter's parameters carry it in their path
        add_role(backbone, "policy")
        layers = 2 * 7
        assert len(backbone.adapter_parameters("policy")) == len(backbone.adapter_parameters("q_proj")) == 2 * layers
        assert not {id(p) for p in backbone.adapter_parameters("policy")} & {
            id(p) for p in backbone.adapter_parameters("q_proj")
        }

    def test_output_layer_and_embeddings_take_no_adapter(self, backbone: Backbone) -> None:
        with pytest.raises(UserError, match="lm_head"):
            backbone.add_adapter("policy", LORA.model_copy(update={"target_modules": ["q_proj", "lm_head"]}))


class TestGradients:
    def policy_loss(self, logits: list[Tensor]) -> Tensor:
        """Of the last position: one that attends only to itself has no gradient in its queries and keys."""
        logprobs = [torch.log_softmax(row, -1)[-1, 20] for row in logits]
        return -torch.stack(logprobs).sum()

    def test_scoring_between_forward_and_backward_leaves_the_policy_gradient_right(
        self, any_backbone: Backbone, tmp_path: Path
    ) -> None:
        reward = add_reward_model(any_backbone, "helpfulness", seed=3)
        add_role(any_backbone, "policy", seed=1)
        loss = self.policy_loss(role_logits(any_backbone, "policy"))
        reward.score(as_answers(ROWS), batch_size=2)
        rows = [[answer] for answer in as_answers(ROWS)]
        loss = loss + reward(*pack_answers(rows, 0, any_backbone.device)).sum()  # nothing to learn: a frozen role
        loss.backward()

        separate = separate_model(any_backbone, "policy", tmp_path, trainable=True)
        self.policy_loss(model_logits(separate)).backward()
        expected = [p.grad for name, p in separate.named_parameters() if "lora_" in name]
        actual = [p.grad for p in any_backbone.adapter_parameters("policy")]
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert one is not None and other is not None and other.abs().max() > 1e-3
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
        frozen = [*any_backbone.adapter_parameters("helpfulness"), *base_parameters(any_backbone)]
        assert all(p.grad is None for p in [*frozen, *reward.head.parameters()])

    def test_reference_and_base_do_not_move_with_the_policy(self, backbone: Backbone) -> None:
        add_role(backbone, "policy", seed=1)
        backbone.copy_adapter("policy", "reference", trainable=False)
        base, reference = role_logits(backbone, None), role_logits(backbone, "reference")
        assert all(torch.equal(*rows) for rows in zip(role_logits(backbone, "policy"), reference, strict=True))
        weights = state_of(base_parameters(backbone))
        optimizer = torch.optim.SGD(backbone.adapter_parameters("policy"), lr=0.3)
        self.policy_loss(role_logits(backbone, "policy")).backward()
        optimizer.step()
        assert differ(role_logits(backbone, "policy"), reference)
        for before, role in ((base, None), (reference, "reference")):
            assert all(torch.equal(*rows) for rows in zip(role_logits(backbone, role), before, strict=True))
        assert unchanged(base_parameters(backbone), weights)


class TestPadding:
    def test_its_content_never_matters(self, backbone: Backbone) -> None:
        add_role(backbone, "policy")
        ids, lengths = pad_right(ROWS, 0, backbone.device)
        noise = torch.randint(200, ids.shape)
        other = torch.where(torch.arange(ids.shape[1]) < lengths[:, None], ids, noise)
        assert not torch.equal(ids, other)
        with backbone.role("policy"):
            clean, noisy = backbone.hidden_states(ids, lengths), backbone.hidden_states(other, lengths)
        for row, length in enumerate(lengths.tolist()):
            assert torch.equal(clean[row, :length], noisy[row, :length])


class TestFiles:
    def test_an_adapter_comes_back_bit_for_bit_under_another_name(self, any_backbone: Backbone, tmp_path: Path) -> None:
        add_role(any_backbone, "other", seed=5)
        add_role(any_backbone, "policy", seed=1)
        any_backbone.save_adapter("policy", tmp_path)
        fresh = load_tiny(Path(any_backbone.path))
        fresh.load_adapter("start", tmp_path)
        assert all(
            torch.equal(*pair)
            for pair in zip(any_backbone.adapter_parameters("policy"), fresh.adapter_parameters("start"), strict=True)
        )
        for one, other in zip(role_logits(any_backbone, "policy"), role_logits(fresh, "start"), strict=True):
            assert torch.equal(one, other)
        assert not any(parameter.requires_grad for parameter in fresh.adapter_parameters("start"))

    def test_its_weights_say_that_they_are_pytorchs(self, backbone: Backbone, tmp_path: Path) -> None:
        add_role(backbone, "policy", seed=1)
        backbone.save_adapter("policy", tmp_path)
        with safe_open(str(tmp_path / "adapter_model.safetensors"), framework="pt") as file:
            assert file.metadata() == {"format": "pt"}, "without it some readers refuse the file"

    def test_peft_itself_reads_the_folder(self, backbone: Backbone, tmp_path: Path) -> None:
        add_role(backbone, "policy", seed=1)
        separate = separate_model(backbone, "policy", tmp_path)
        with torch.no_grad():
            assert_close(role_logits(backbone, "policy"), model_logits(separate))
        assert isinstance(separate, PeftModel)

    @pytest.mark.parametrize("damage", ["missing", "unknown", "shape"])
    def test_an_adapter_that_does_not_fit_is_refused(self, backbone: Backbone, tmp_path: Path, damage: str) -> None:
        add_role(backbone, "policy", seed=1)
        backbone.save_adapter("policy", tmp_path)
        file = str(tmp_path / "adapter_model.safetensors")
        state = load_file(file)
        name = sorted(state)[3]
        if damage == "missing":
            state.pop(name)
        elif damage == "unknown":
            state[name.replace("layers.0", "layers.9")] = state[name].clone()
        else:
            state[name] = torch.zeros(state[name].shape[0] + 1, state[name].shape[1])
        save_file(state, file, metadata={"format": "pt"})
        with pytest.raises(UserError, match="does not fit"):
            backbone.load_adapter("again", tmp_path)

    def test_merge_and_save_equals_the_adapter(self, any_backbone: Backbone, tmp_path: Path) -> None:
        add_role(any_backbone, "policy", seed=1)
        any_backbone.save_adapter("policy", tmp_path / "adapter")
        merge_and_save(
            any_backbone.path, tmp_path / "adapter", tiny_settings(), any_backbone.encoder, tmp_path / "merged"
        )
        merged = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"), dtype=torch.float32).eval()
        with torch.no_grad():
            assert_close(role_logits(any_backbone, "policy"), model_logits(merged))
        stops = merged.generation_config.eos_token_id
        assert set(stops) == any_backbone.encoder.stop_ids, "``generate`` stops by itself"
        assert merged.config.use_cache

    def test_every_token_that_ends_an_answer_for_generate_does_so_here_and_is_saved(self, tmp_path: Path) -> None:
        """As in Llama 3, whose turns end with another token than its documents."""
        save_tiny_model(tmp_path / "model")
        assert end_tokens_of(str(tmp_path / "model")) == [2]
        GenerationConfig(eos_token_id=[2, 17]).save_pretrained(str(tmp_path / "model"))
        base = load_tiny(tmp_path / "model")
        assert {2, 17} <= base.encoder.stop_ids
        asked = (Message(role="user", content="Hi?"),)
        torch.manual_seed(0)
        answers = answer_prompts(
            Role(base, None),
            [EncodedPrompt(Prompt(id=str(n), messages=asked), [1, 5, n]) for n in range(20, 80)],
            SamplingSection(temperature=50.0, max_new_tokens=90, batch_size_prompts=60),
        )
        last = {row[-1] for row, stopped in zip(answers.row_ids(), answers.stopped.tolist(), strict=True) if stopped}
        assert last == base.encoder.stop_ids
        save_model(base.base, base.encoder, tmp_path / "saved")
        assert {2, 17} <= set(end_tokens_of(str(tmp_path / "saved")))

    def test_a_template_that_writes_the_date_writes_one_from_then_on(self, tmp_path: Path) -> None:
        """As in Llama 3.2, whose prompts would differ from one day to the next."""
        save_tiny_model(tmp_path / "model")
        tokenizer = load_tokenizer(str(tmp_path / "model"))
        dated = "{%- if strftime_now is defined -%}On {{ strftime_now('%d %b %Y') }}: {% endif -%}"
        tokenizer.chat_template = dated + str(tokenizer.chat_template)
        tokenizer.save_pretrained(str(tmp_path / "model"))
        base = load_base(tmp_path / "model", tiny_settings(), today=date(2024, 7, 26))
        asked = base.encoder.encode_prompt([Message(role="user", content="Hi?")])
        assert "On 26 Jul 2024:" in base.tokenizer.decode(asked)
        base.tokenizer.save_pretrained(str(tmp_path / "model"))
        later = load_base(tmp_path / "model", tiny_settings(), today=date(2031, 1, 1))
        assert later.encoder.encode_prompt([Message(role="user", content="Hi?")]) == asked
        assert date_of(later.encoder.template_source) == date(2024, 7, 26)
        text = later.tokenizer.apply_chat_template([{"role": "user", "content": "Hi?"}], tokenize=False)
        assert text.startswith("On 26 Jul 2024: "), "Transformers itself writes the same"

    @pytest.mark.parametrize("form", ["form", "'%d' + ' %b'"])
    def test_a_date_in_a_form_that_is_made_up_is_refused(self, form: str) -> None:
        with pytest.raises(UserError, match="Give one without a date"):
            with_date("{{ strftime_now(" + form + ") }}", date(2024, 7, 26))
        assert with_date("{{ messages }}", date(2024, 7, 26)) == "{{ messages }}"
        assert date_of("{{ messages }}") is None

    def test_the_same_adapter_is_saved_to_the_same_bytes(self, backbone: Backbone, tmp_path: Path) -> None:
        add_role(backbone, "policy", seed=1)
        backbone.save_adapter("policy", tmp_path / "one")
        config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
        assert config["target_modules"] == sorted(config["target_modules"])

    def test_a_folder_without_model_or_tokenizer(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no causal language model there"):
            load_causal_lm(str(tmp_path / "nothing"), tiny_settings())
        with pytest.raises(UserError, match="no tokenizer there"):
            load_tokenizer(str(tmp_path / "nothing"))

    def test_a_tokenizer_with_code_of_its_own_needs_leave(self, tmp_path: Path) -> None:
        tiny_tokenizer().save_pretrained(str(tmp_path))
        file = tmp_path / "tokenizer_config.json"
        own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own_tokens.Own"]}}
        file.write_text(json.dumps({**json.loads(file.read_text()), **own}))
        code = "from transformers import PreTrainedTokenizerFast\n\n\nclass Own(PreTrainedTokenizerFast):\n    pass\n"
        (tmp_path / "own_tokens.py").write_text(code)
        with pytest.raises(UserError, match=r"model\.trust_remote_code=true"):
            load_tokenizer(str(tmp_path))
        assert type(load_tokenizer(str(tmp_path), trust_remote_code=True)).__name__ == "Own"

    @pytest.mark.parametrize(
        "setting",
        [
            "final_logit_softcapping",  # Gemma 2
            "logits_soft_cap",  # RecurrentGemma
            "logit_scale",  # Cohere
            "logits_scaling",  # Granite
            "lm_head_multiplier",  # Falcon H1
            "output_multiplier",
        ],
    )
    def test_a_model_that_transforms_its_logits_is_refused(
        self, setting: str, backbone: Backbone, tmp_path: Path
    ) -> None:
        setattr(backbone.base.config, setting, 1.0)
        backbone.base.save_pretrained(str(tmp_path))
        load_causal_lm(str(tmp_path), tiny_settings())
        setattr(backbone.base.config, setting, 30.0)
        backbone.base.save_pretrained(str(tmp_path))
        with pytest.raises(UserError, match=f"models with {setting} are not supported"):
            load_causal_lm(str(tmp_path), tiny_settings())


class TestSamplingCopy:
    @pytest.fixture
    def copying(self, tiny_folder: Callable[[str], Path]) -> Backbone:
        backbone = load_tiny(tiny_folder("qwen2"), sampling_copy=True)
        add_role(backbone, "policy", seed=1)
        add_role(backbone, "other", seed=2)
        return backbone

    @staticmethod
    def copy_logits(backbone: Backbone, role: str | None) -> list[Tensor]:
        with torch.no_grad(), backbone.sampling_model(role) as model:
            assert model is not backbone.base
            return model_logits(model)

    def test_equals_the_adapter_path_for_every_role_in_turn(self, copying: Backbone) -> None:
        weights = state_of([*base_parameters(copying), *copying.adapter_parameters("policy")])
        first = self.copy_logits(copying, "policy")
        with torch.no_grad():
            for role in ("policy", "other", None) * 8:
                assert_close(self.copy_logits(copying, role), role_logits(copying, role))
        again = self.copy_logits(copying, "policy")
        assert all(torch.equal(*pair) for pair in zip(again, first, strict=True)), "the copy drifts"
        assert unchanged([*base_parameters(copying), *copying.adapter_parameters("policy")], weights)

    def test_follows_the_policy_as_it_trains(self, copying: Backbone) -> None:
        before = self.copy_logits(copying, "policy")
        randomize(copying, "policy", seed=9)
        after = self.copy_logits(copying, "policy")
        assert differ(before, after)
        with torch.no_grad():
            assert_close(after, role_logits(copying, "policy"))

    def test_four_bit_weights_cannot_be_merged_into(self, tiny_folder: Callable[[str], Path]) -> None:
        with pytest.raises(UserError, match="sampling_copy"):
            load_tiny(tiny_folder("llama"), sampling_copy=True, quantization="nf4")


class TestNF4:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return save_tiny_model(tmp_path / "model", hidden=32)

    @pytest.fixture
    def quantized(self, folder: Path) -> Backbone:
        return load_tiny(folder, quantization="nf4")

    def test_the_scales_are_quantized_too(self, quantized: Backbone) -> None:
        from bitsandbytes.nn import Linear4bit

        layers = [module for module in quantized.base.modules() if isinstance(module, Linear4bit)]
        assert layers and all(layer.weight.quant_state.nested for layer in layers)

    @staticmethod
    def dequantized(backbone: Backbone) -> PreTrainedModel:
        """A plain float32 model whose weights are those that the 4-bit ones stand for."""
        from bitsandbytes.functional import dequantize_4bit
        from bitsandbytes.nn import Linear4bit

        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(backbone.path, dtype=torch.float32)
        targets = dict(model.named_modules())
        count = 0
        for name, module in backbone.base.named_modules():
            if isinstance(module, Linear4bit):
                weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
                path = name.removesuffix(".base_layer")
                with torch.no_grad():
                    assert not torch.equal(targets[path].weight, weight)
                    targets[path].weight.copy_(weight)
                count += 1
        assert count == 2 * 7
        return model.eval()

    def test_gradient_equals_the_dequantized_model_after_an_eval_forward(
        self, quantized: Backbone, tmp_path: Path
    ) -> None:
        from bitsandbytes.nn import Linear4bit

        plain = self.dequantized(quantized)
        add_role(quantized, "policy", seed=1)
        layers = [module for module in quantized.base.modules() if isinstance(module, Linear4bit)]
        assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers)
        with torch.no_grad():
            role_logits(quantized, "policy")  # what makes bitsandbytes repack the weights, if it is let
        logits = role_logits(quantized, "policy")
        TestGradients().policy_loss(logits).backward()

        quantized.save_adapter("policy", tmp_path)
        separate = PeftModel.from_pretrained(plain, str(tmp_path), is_trainable=True).eval()
        expected_logits = model_logits(separate)
        assert_close(logits, expected_logits, atol=1e-4)
        TestGradients().policy_loss(expected_logits).backward()
        expected = [p.grad for name, p in separate.named_parameters() if "lora_" in name]
        for one, other in zip((p.grad for p in quantized.adapter_parameters("policy")), expected, strict=True):
            assert one is not None and other is not None and other.abs().max() > 1e-3
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)

    def test_adapter_and_head_survive_saving(self, quantized: Backbone, folder: Path, tmp_path: Path) -> None:
        from alignment.models.scorers.reward_model import RewardModel

        model = add_reward_model(quantized, "helpfulness", seed=3)
        scores = model.score(as_answers(ROWS), batch_size=2)
        assert scores.std() > 0.1
        model.save(tmp_path, calibration={})
        again = RewardModel.load(load_tiny(folder, quantization="nf4"), "other", tmp_path)
        assert torch.equal(again.score(as_answers(ROWS), batch_size=2), scores)

    def test_full_fine_tuning_is_refused(self, quantized: Backbone) -> None:
        with pytest.raises(UserError, match=r"sft\.method=lora"):
            quantized.unfreeze()


def test_adapter_layers_are_named_by_the_end_of_their_path(backbone: Backbone) -> None:
    backbone.check_layers(LORA.model_copy(update={"target_modules": ["q_proj", "mlp.down_proj"]}))
    for unknown in ("nowhere_proj", "proj", "own_proj"):
        with pytest.raises(UserError, match=f"the model has no {unknown}; it has down_proj, "):
            backbone.check_layers(LORA.model_copy(update={"target_modules": ["q_proj", unknown]}))
