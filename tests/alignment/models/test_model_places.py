"""What is fetched of a model on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from alignment.models import model_places
from alignment.models.model_places import find_model

WANTED = (
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "chat_template.jinja",
    "tokenizer.model",  # Llama, Gemma, Mistral
    "merges.txt",  # GPT-2, Qwen
    "qwen.tiktoken",
)
UNWANTED = ("pytorch_model.bin", "model.gguf", "original/tokenizer.model", "onnx/config.json", "README.md", "a.msgpack")


@pytest.mark.parametrize("with_code", [False, True])
def test_weights_settings_and_tokenizer_are_fetched_and_code_where_asked_for(
    with_code: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def download(name: str, *, revision: str, allow_patterns: Any, ignore_patterns: Any) -> str:
        assert (name, revision) == ("someone/model", "1" * 40)
        names = (*WANTED, "modeling_own.py", *UNWANTED)
        fetched.extend(filter_repo_objects(names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(model_places, "why_not_there", lambda kind, name: None)
    assert find_model("someone/model", with_code=with_code, commit="1" * 40) == tmp_path
    assert fetched == [*WANTED, *(["modeling_own.py"] if with_code else [])]
