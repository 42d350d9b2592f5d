"""Reward models beside the shared base: of another architecture or tokenizer, or several for one dimension.

What they read is encoded again from text with their own tokenizer and template. Two kinds of folder are understood: a
Tandem reward model, whose adapter names the base it was trained on, and a Hugging Face sequence classifier with one
output (``AutoModelForSequenceClassification``), which pools at the last token that is not padding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from alignment.data.dialogue import DialogueEncoder, EncodedAnswer
from alignment.errors import UserError
from alignment.files import read_json
from alignment.models.backbone import Backbone
from alignment.models.padding import pad_right
from alignment.models.pretrained import load_tokenizer, pick_device, resolve_dtype
from alignment.models.reward_model import RewardModel, RewardScorer
from alignment.recipe import ModelSection, RewardFoldersSection

OnBatch = Callable[[int], None] | None


class SequenceClassifier:
    """A Hugging Face sequence classifier with one output, frozen."""

    def __init__(self, model: PreTrainedModel, encoder: DialogueEncoder, folder: Path) -> None:
        self.model = model.eval().requires_grad_(False)
        self.encoder = encoder
        self.folders = [folder]

    @classmethod
    def load(cls, folder: Path, settings: ModelSection) -> SequenceClassifier:
        """Load model and tokenizer.

        Raises:
            UserError: it has more than one output, or its pad token is one that answers end with, so that the
                model could not find the last token.
        """
        dtype = resolve_dtype(settings.dtype)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            str(folder), dtype=dtype, trust_remote_code=settings.trust_remote_code, output_loading_info=True
        )
        if report["missing_keys"]:
            raise UserError(f"{folder}: not a reward model, {sorted(report['missing_keys'])[0]} is missing")
        if model.config.num_labels != 1:
            raise UserError(f"{folder}: a reward model has one output, this one has {model.config.num_labels}")
        encoder = DialogueEncoder(load_tokenizer(str(folder), trust_remote_code=settings.trust_remote_code))
        pad = model.config.get_text_config().pad_token_id
        if pad is None or pad in encoder.stop_ids:
            raise UserError(
                f"{folder}: pad_token_id={pad} is no token of its own, so the model would look for the score at the "
                "wrong token. Set another pad token in its config and tokenizer."
            )
        encoder.pad_id = pad
        return cls(model.to(pick_device()), encoder, folder)

    @torch.no_grad()
    def score(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> Tensor:
        """Raw scores (B,) on the CPU, in batches of similar length."""
        order = sorted(range(len(dialogues)), key=lambda row: len(dialogues[row].input_ids))
        scores = torch.empty(len(dialogues))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            device = next(self.model.parameters()).device
            ids, lengths = pad_right([dialogues[row].input_ids for row in rows], self.encoder.pad_id, device)
            mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
            logits = self.model(input_ids=ids, attention_mask=mask.long()).logits
            scores[torch.tensor(rows)] = logits[:, 0].float().cpu()
            if on_batch is not None:
                on_batch(len(rows))
        return scores


class Reencoded:
    """A reward model that reads another tokenizer's ids than the policy writes."""

    def __init__(self, model: RewardModel | SequenceClassifier, policy_encoder: DialogueEncoder) -> None:
        self.model = model
        self.policy_encoder = policy_encoder
        self.encoder = model.encoder if isinstance(model, SequenceClassifier) else model.backbone.encoder

    @property
    def folders(self) -> list[Path]:
        """The folder that it was loaded from."""
        return self.model.folders

    def score(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> Tensor:
        """Raw scores (B,) on the CPU, of dialogues that carry their text."""
        encoded = [self.encode_again(dialogue) for dialogue in dialogues]
        return self.model.score(encoded, batch_size=batch_size, on_batch=on_batch)

    def encode_again(self, dialogue: EncodedAnswer) -> EncodedAnswer:
        """The same dialogue for the reward model; an answer that did not stop does not stop here either.

        Text that the model's template uses as a mark of its own is left out of the answer.

        Raises:
            UserError: the reward model's tokenizer does not give the answer's text back.
        """
        if not dialogue.messages:
            raise ValueError("a dialogue without text cannot be read by another tokenizer")
        text = self.policy_encoder.decode(dialogue.answer_ids)
        for marker in self.encoder.control_markers:
            text = text.replace(marker, "")
        found = self.encoder.encode_answer(dialogue.messages, text)
        if self.encoder.decode(found.answer_ids).strip() != text.strip():
            raise UserError(f"{self.folders[0]}: its tokenizer does not give back the answer {text[:80]!r}")
        if dialogue.answer_ids[-1] not in self.policy_encoder.stop_ids:
            closing = len(self.encoder.encode_answer(dialogue.messages, "").answer_ids)
            found = EncodedAnswer(found.prompt_ids, found.answer_ids[: len(found.answer_ids) - closing])
        return found


class MeanScore:
    """Several reward models of one dimension; their raw scores are averaged."""

    def __init__(self, models: Sequence[RewardScorer]) -> None:
        self.models = list(models)

    @property
    def folders(self) -> list[Path]:
        """Where they lie."""
        return [folder for model in self.models for folder in model.folders]

    def score(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> Tensor:
        """Mean raw scores (B,) on the CPU."""
        return torch.stack([model.score(dialogues, batch_size=batch_size) for model in self.models]).mean(0)


def load_reward_models(
    backbone: Backbone, trained: Path, folders: RewardFoldersSection, settings: ModelSection
) -> dict[str, RewardScorer]:
    """The reward models that pay the policy, by dimension.

    Args:
        backbone: the policy's; reward models trained on the same base become roles of it.
        trained: the round's own reward models.
        folders: others in their place.
        settings: dtype and quantisation of a base beside the shared one.

    Raises:
        UserError: a folder holds no reward model.
    """
    models: dict[str, RewardScorer] = {}
    wanted: Mapping[str, list[str] | None] = folders.model_dump()
    for dimension, paths in wanted.items():
        chosen = [trained / dimension] if paths is None else [Path(path) for path in paths]
        found = [
            load_reward_model(backbone, dimension if number == 0 else f"{dimension}_{number}", path, settings)
            for number, path in enumerate(chosen)
        ]
        if found:
            models[dimension] = found[0] if len(found) == 1 else MeanScore(found)
    return models


def load_reward_model(backbone: Backbone, role: str, folder: Path, settings: ModelSection) -> RewardScorer:
    """One reward model: a role of the shared base where it was trained on that, else a model beside it."""
    if (folder / "reward_model.json").is_file():
        base = str(read_json(folder / "adapter_config.json").get("base_model_name_or_path"))
        if _same_model(base, backbone.path):
            return RewardModel.load(backbone, role, folder)
        beside = Backbone.load(base, settings.model_copy(update={"sampling_copy": False}))
        return Reencoded(RewardModel.load(beside, role, folder), backbone.encoder)
    if (folder / "config.json").is_file():
        return Reencoded(SequenceClassifier.load(folder, settings), backbone.encoder)
    raise UserError(
        f"{folder}: not a reward model; expected what stages.reward makes (reward_model.json) or a sequence classifier "
        "(config.json)"
    )


def _same_model(one: str, other: str) -> bool:
    """Whether two names mean the same model: one name, or folders that hold the same configuration and weights."""
    if one == other or Path(one).resolve() == Path(other).resolve():
        return True
    configs = [Path(path) / "config.json" for path in (one, other)]
    if not configs[0].is_file():
        return True  # a run folder that has moved: the adapter's own loader refuses what does not fit
    return configs[1].is_file() and _architecture(configs[0]) == _architecture(configs[1])


def _architecture(config: Path) -> dict[str, object]:
    values = json.loads(config.read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if key not in ("_name_or_path", "transformers_version")}
