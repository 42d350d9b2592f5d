"""A model is what its files say: a weight that is missing, of another shape, cut off or no number is named."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import load_tiny, tiny_settings
from torch import Tensor
from transformers import LlamaForCausalLM

from alignment.errors import UserError
from alignment.models.model_places import find_model
from alignment.models.pretrained import load_causal_lm, load_tokenizer
from alignment.models.scorers.sequence_classifier import SequenceClassifier

LAYER = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A tiny Llama of one's own."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    file = str(folder / "model.safetensors")
    weights = load_file(file)
    edit(weights)
    save_file(weights, file, metadata={"format": "pt"})


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as refused:
        load_causal_lm(str(folder), tiny_settings())
    message = str(refused.value)
    assert message.startswith(f"model.name_or_path={folder}: ") and "\n" not in message
    return message


def test_a_missing_weight_is_named_and_not_drawn_at_random(folder: Path) -> None:
    change(folder, lambda weights: weights.pop(LAYER))
    assert f"lack 1 weights of a LlamaForCausalLM: {LAYER}. Fetch" in refusal(folder)


def test_of_many_missing_weights_the_first_are_named_and_the_rest_counted(folder: Path) -> None:
    def without_layer(weights: dict[str, Tensor]) -> None:
        for name in [name for name in weights if ".layers.1." in name]:
            del weights[name]

    change(folder, without_layer)
    message = refusal(folder)
    assert "lack 9 weights" in message and "model.layers.1.input_layernorm.weight" in message
    assert "and 6 more. " in message


def test_a_weight_of_another_shape_is_named_with_both(folder: Path) -> None:
    change(folder, lambda weights: weights.update({LAYER: weights[LAYER][:-1].clone()}))
    assert f"{LAYER} (31, 16) instead of (32, 16)" in refusal(folder)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_file_that_was_cut_off_is_told_as_such(folder: Path, kept: float) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    assert "cut off or damaged" in refusal(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_no_number_is_named(folder: Path, value: float) -> None:
    def spoil(weights: dict[str, Tensor]) -> None:
        weights[LAYER][3, 4] = value

    change(folder, spoil)
    assert f"not finite numbers: {LAYER}" in refusal(folder)


def test_weights_of_another_architecture_are_told_as_such(folder: Path) -> None:
    def renamed(weights: dict[str, Tensor]) -> None:
        for name in list(weights):
            weights[f"transformer.{name}"] = weights.pop(name)

    change(folder, renamed)
    assert "hold no weight of a LlamaForCausalLM, which config.json says it is, but transformer." in refusal(folder)


def test_weights_without_a_place_are_left_out_and_named(folder: Path) -> None:
    change(folder, lambda weights: weights.update({"vision.tower.weight": torch.ones(2)}))
    assert load_tiny(folder).unexpected_weights == ["vision.tower.weight"]


def test_a_tied_weight_is_not_missing(folder: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(str(folder))
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(str(folder))
    assert "lm_head.weight" not in load_file(str(folder / "model.safetensors"))
    backbone = load_tiny(folder)
    assert backbone.unexpected_weights == []
    assert torch.equal(backbone.base.lm_head.weight, backbone.base.model.embed_tokens.weight)


def test_four_bit_weights_are_looked_at_too(folder: Path) -> None:
    change(folder, lambda weights: weights.pop(LAYER))
    with pytest.raises(UserError, match="lack 1 weights"):
        load_causal_lm(str(folder), tiny_settings(quantization="nf4"))


def test_a_reward_model_with_a_missing_weight_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1, "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))

    def with_score(weights: dict[str, Tensor]) -> None:
        weights["score.weight"] = torch.ones(1, 16)
        weights.pop("lm_head.weight")

    change(folder, with_score)
    SequenceClassifier.load(str(folder), tiny_settings())
    change(folder, lambda weights: weights.pop(LAYER))
    with pytest.raises(UserError, match=rf"not a reward model, {LAYER} is missing"):
        SequenceClassifier.load(str(folder), tiny_settings())


@pytest.mark.parametrize("path", ["/nowhere/model", "./model", "~/model", "runs/own/sft", "C:\\models\\own"])
def test_a_path_that_is_not_there_is_told_as_a_path(path: str) -> None:
    for load in (lambda: load_causal_lm(path, tiny_settings()), lambda: load_tokenizer(path), lambda: find_model(path)):
        with pytest.raises(UserError, match="there is no such folder") as refused:
            load()
        assert "Repo id" not in str(refused.value) and "Hub" not in str(refused.value)


def test_a_name_that_may_be_one_of_the_hub_is_told_as_both() -> None:
    with pytest.raises(UserError, match=r"own/model: no .* \(there is no such folder, and as a name on the Hub: "):
        load_causal_lm("own/model", tiny_settings())


def test_a_file_is_told_as_a_file(folder: Path) -> None:
    with pytest.raises(UserError, match="that is a file; give the folder that it is in"):
        load_causal_lm(str(folder / "model.safetensors"), tiny_settings())
    with pytest.raises(UserError, match="that is a file"):
        find_model(str(folder / "config.json"))
