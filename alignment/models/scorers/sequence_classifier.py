"""Sequence classifiers of Transformers with one output as reward models.

A whole model, or a PEFT adapter with its score layer (task type ``SEQ_CLS``) for a base that the adapter names. Pooling
is at the last token that is not padding. A ``calibration.json`` beside the model
(``alignment.models.export.standard_folders``) holds the offset that is taken off its logits. No weight is ever made
up: a model without its head does not load.

Shapes: B dialogues.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from alignment.data.dialogue_encoder import DialogueEncoder
from alignment.data.encoded_dialogues import EncodedAnswer
from alignment.errors import UserError
from alignment.files import read_json
from alignment.machine.device_and_processes import pick_device
from alignment.masks_padding_logprobs import pad_right
from alignment.models.model_places import find_model, first_line
from alignment.models.pretrained import load_tokenizer, resolve_dtype, weights_hash
from alignment.models.scorers.scorer_protocol import OnBatch, RewardJudgment, check_finite
from alignment.models.weights_from_files import load_weights
from alignment.settings.sections import ModelSection


class SequenceClassifier:
    """A Hugging Face sequence classifier with one output, frozen.

    Attributes:
        ends_with_template: it was trained on dialogues that end as its chat template ends them, such as with a line
            break after the stop token; Tandem's own end with the stop token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        encoder: DialogueEncoder,
        folder: Path,
        *,
        offset: float = 0.0,
        ends_with_template: bool = True,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.encoder = encoder
        self.folders = [folder]
        self.offset = offset
        self.ends_with_template = ends_with_template
        self.context_tokens = int(model.config.get_text_config().max_position_embeddings)

    @classmethod
    def load(cls, name: str | Path, settings: ModelSection, *, at_hand: str | None = None) -> SequenceClassifier:
        """Load model and tokenizer from a folder, or by their name on the Hub.

        Args:
            name: folder or name.
            settings: dtype, and whether code of the model's own may run.
            at_hand: a base for an adapter that names none, if its weights are those that the adapter was trained on.

        Raises:
            UserError: nothing loadable is there, a weight is missing, it has more than one output, no chat template, or
                a pad token that answers end with, so that it could not find the last token.
        """
        if settings.quantization != "none":
            raise UserError(f"{name}: a sequence classifier is not loaded in 4 bits; pass model.quantization=none")
        folder = find_model(str(name), with_code=settings.trust_remote_code)
        tokenizer = load_tokenizer(str(folder), trust_remote_code=settings.trust_remote_code)
        adapter = (folder / "adapter_config.json").is_file()
        model = _load_with_adapter(folder, tokenizer, settings, at_hand) if adapter else _load_whole(folder, settings)
        if model.config.num_labels != 1:
            raise UserError(f"{folder}: a reward model has one output, this one has {model.config.num_labels}")
        if tokenizer.chat_template is None:
            raise UserError(f"{folder}: its tokenizer has no chat template, so how it reads a dialogue is not known")
        encoder = DialogueEncoder(tokenizer)
        pad = model.config.get_text_config().pad_token_id
        if pad is None or pad in encoder.stop_ids:
            raise UserError(
                f"{folder}: pad_token_id={pad} is no token of its own, so the model would look for the score at the "
                "wrong token. Set another pad token in its config and tokenizer."
            )
        encoder.pad_id = pad
        nn.Module.to(model, pick_device())
        exported = (folder / CALIBRATION).is_file()
        offset = _offset(folder / CALIBRATION) if exported else 0.0
        return cls(model, encoder, folder, offset=offset, ends_with_template=not exported)

    @torch.no_grad()
    def judge(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> RewardJudgment:
        """Scores on the CPU, the offset taken off, in batches of similar length.

        Raises:
            UserError: a score is not a number.
        """
        order = sorted(range(len(dialogues)), key=lambda row: len(dialogues[row].input_ids))
        scores = torch.empty(len(dialogues))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            device = next(self.model.parameters()).device
            ids, lengths = pad_right([dialogues[row].input_ids for row in rows], self.encoder.pad_id, device)
            mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
            logits = self.model(input_ids=ids, attention_mask=mask.long()).logits
            scores[torch.tensor(rows)] = logits[:, 0].float().cpu() - self.offset
            if on_batch is not None:
                on_batch(len(rows))
        check_finite(scores, f"in {self.folders[0]}")
        return RewardJudgment(scores, None)

    def score(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> Tensor:
        """Raw scores (B,) on the CPU, as ``judge``."""
        return self.judge(dialogues, batch_size=batch_size, on_batch=on_batch).scores


def is_classifier(folder: Path) -> bool:
    """Whether a folder holds a model of Transformers, or an adapter that makes one a sequence classifier."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        return bool(read_json(adapter).get("task_type") == "SEQ_CLS")
    return (folder / "config.json").is_file()


def _load_whole(folder: Path, settings: ModelSection) -> PreTrainedModel:
    model, missing = _from_pretrained(str(folder), settings)
    if missing:
        raise UserError(f"{folder}: not a reward model, {missing[0]} is missing")
    return model


def _load_with_adapter(
    folder: Path, tokenizer: PreTrainedTokenizerBase, settings: ModelSection, at_hand: str | None
) -> PreTrainedModel:
    """The base that an adapter names, or the one at hand, with adapter and score layer merged in."""
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise UserError(f"{folder}: not a reward model, {weights.name} is missing")
    base = _base_of_adapter(folder, at_hand)
    model, missing = _from_pretrained(base, settings, num_labels=1, pad_token_id=tokenizer.pad_token_id)
    score = SCORE_KEY.removeprefix("base_model.model.")
    if wrong := [key for key in missing if key != score]:
        raise UserError(f"{folder}: its base {base} lacks {wrong[0]}")
    given = load_file(str(weights)).keys()
    if SCORE_KEY not in given:
        raise UserError(f"{folder}: not a reward model, {SCORE_KEY} is missing")
    try:
        peft = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: its adapter does not fit {base} ({first_line(error)})") from error
    expected = get_peft_model_state_dict(peft, save_embedding_layers=cast(Any, False)).keys()
    if absent := sorted(expected - given):
        raise UserError(f"{folder}: not a reward model, {absent[0]} is missing")
    return cast(PreTrainedModel, cast(Any, peft).merge_and_unload())


def _base_of_adapter(folder: Path, at_hand: str | None) -> str:
    named = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if named:
        return str(named)
    file = folder / CALIBRATION
    wanted = read_json(file).get(BASE_WEIGHTS) if file.is_file() else None
    if at_hand is None or wanted is None or weights_hash(at_hand) != wanted:
        raise UserError(
            f"{folder}: this adapter names no base, and {at_hand or 'no model at hand'} is not the one that it was "
            'trained on. Write the base\'s folder into its adapter_config.json, as "base_model_name_or_path".'
        )
    return at_hand


def _from_pretrained(path: str, settings: ModelSection, **changes: Any) -> tuple[PreTrainedModel, list[str]]:
    """A sequence classifier, and which of its weights are made up because the files have none."""
    loaded = load_weights(
        AutoModelForSequenceClassification,
        path,
        what="sequence classifier with one output",
        origin=path,
        dtype=resolve_dtype(settings.dtype),
        trust_remote_code=settings.trust_remote_code,
        **changes,
    )
    return loaded.model, loaded.missing


def _offset(file: Path) -> float:
    """What ``calibration.json`` says is to be taken off the logits."""
    found = read_json(file)
    offset = found.get("offset") if isinstance(found, dict) else None
    if not isinstance(offset, int | float) or not math.isfinite(offset):
        raise UserError(f"{file}: 'offset' must be a number, got {offset!r}. Mend it, or remove the file.")
    return float(offset)


CALIBRATION = "calibration.json"
BASE_WEIGHTS = "base_weights"
"""Key in it: by what the base of an adapter is known."""
SCORE_KEY = "base_model.model.score.weight"
