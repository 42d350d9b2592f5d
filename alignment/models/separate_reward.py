"""Reward models beside the shared base: of another architecture or tokenizer, or several for one dimension.

What they read is encoded again from text with their own tokenizer and template. Two kinds of folder are understood: a
Tandem reward model, whose adapter names the base it was trained on, and a Hugging Face sequence classifier with one
output (``AutoModelForSequenceClassification``), which pools at the last token that is not padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from alignment.data.dialogue import DialogueEncoder, EncodedAnswer, check_length
from alignment.errors import UserError
from alignment.files import content_hash, read_json
from alignment.models.backbone import Backbone
from alignment.models.padding import pad_right
from alignment.models.pretrained import load_tokenizer, pick_device, resolve_dtype
from alignment.models.reward_model import RewardModel
from alignment.models.scorer import RewardScorer
from alignment.recipe import ModelSection, RewardFoldersSection

OnBatch = Callable[[int], None] | None


class SequenceClassifier:
    """A Hugging Face sequence classifier with one output, frozen."""

    def __init__(self, model: PreTrainedModel, encoder: DialogueEncoder, folder: Path) -> None:
        self.model = model.eval().requires_grad_(False)
        self.encoder = encoder
        self.folders = [folder]
        self.context_tokens = int(model.config.get_text_config().max_position_embeddings)

    @classmethod
    def load(cls, folder: Path, settings: ModelSection) -> SequenceClassifier:
        """Load model and tokenizer.

        Raises:
            UserError: it has more than one output, no chat template, or a pad token that answers end with, so that it
                could not find the last token.
        """
        if settings.quantization != "none":
            raise UserError(f"{folder}: a sequence classifier is not loaded in 4 bits; pass model.quantization=none")
        dtype = resolve_dtype(settings.dtype)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            str(folder), dtype=dtype, trust_remote_code=settings.trust_remote_code, output_loading_info=True
        )
        if report["missing_keys"]:
            raise UserError(f"{folder}: not a reward model, {sorted(report['missing_keys'])[0]} is missing")
        if model.config.num_labels != 1:
            raise UserError(f"{folder}: a reward model has one output, this one has {model.config.num_labels}")
        tokenizer = load_tokenizer(str(folder), trust_remote_code=settings.trust_remote_code)
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
        own = model if isinstance(model, SequenceClassifier) else model.backbone
        self.encoder, self.context_tokens = own.encoder, own.context_tokens

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

        Text that the model's template uses as a mark of its own is left out of the answer. An answer that the tokenizer
        still cannot write, or that is too long for the model's context, is read as an empty one: the policy chose it,
        and a run is not to end for it.

        Raises:
            UserError: the prompt alone cannot be read.
        """
        if not dialogue.messages:
            raise ValueError("a dialogue without text cannot be read by another tokenizer")
        empty = self.encoder.encode_answer(dialogue.messages, "")
        where = f"a prompt for the reward model in {self.folders[0]}"
        check_length(len(empty.input_ids), self.context_tokens, where)
        try:
            found = self.encoder.encode_answer(dialogue.messages, self._text(dialogue))
        except UserError:
            return empty
        if dialogue.answer_ids[-1] not in self.policy_encoder.stop_ids:
            found = EncodedAnswer(found.prompt_ids, found.answer_ids[: len(found.answer_ids) - len(empty.answer_ids)])
        return found if found.answer_ids and len(found.input_ids) <= self.context_tokens else empty

    def _text(self, dialogue: EncodedAnswer) -> str:
        text, before = self.policy_encoder.decode(dialogue.answer_ids), ""
        while text != before:  # what is left when a mark is taken out may be a mark again
            before = text
            for marker in self.encoder.control_markers:
                text = text.replace(marker, "")
        return text


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
    beside: dict[str, Backbone] = {}
    wanted: Mapping[str, list[str] | None] = folders.model_dump()
    for dimension, paths in wanted.items():
        if paths is None:
            models[dimension] = RewardModel.load(backbone, dimension, trained / dimension)
            continue
        found = [
            load_reward_model(backbone, f"{dimension}_{number}", Path(path), settings, beside=beside)
            for number, path in enumerate(paths)
        ]
        if found:
            models[dimension] = found[0] if len(found) == 1 else MeanScore(found)
    return models


def load_reward_model(
    backbone: Backbone, role: str, folder: Path, settings: ModelSection, *, beside: dict[str, Backbone]
) -> RewardScorer:
    """One reward model: a role of the shared base where it was trained on that, else a model beside it.

    Args:
        backbone: the policy's.
        role: name of its adapter.
        folder: where it lies.
        settings: dtype and quantisation of a base beside the shared one.
        beside: bases beside the shared one by name, each loaded once; added to.

    Raises:
        UserError: there is no reward model, or the base it was trained on is not where it was.
    """
    if (folder / "reward_model.json").is_file():
        base = str(read_json(folder / "adapter_config.json").get("base_model_name_or_path"))
        if same_model(base, backbone.path):
            return RewardModel.load(backbone, role, folder)
        if base not in beside:
            beside[base] = Backbone.load(base, settings.model_copy(update={"sampling_copy": False}))
        return Reencoded(RewardModel.load(beside[base], role, folder), backbone.encoder)
    if (folder / "config.json").is_file():
        return Reencoded(SequenceClassifier.load(folder, settings), backbone.encoder)
    raise UserError(
        f"{folder}: not a reward model; expected what stages.reward makes (reward_model.json) or a sequence classifier "
        "(config.json)"
    )


def same_model(one: str, other: str) -> bool:
    """Whether two names mean the same weights: one name, one folder, or folders with equal weight files."""
    if one == other or Path(one).resolve() == Path(other).resolve():
        return True
    weights = [
        [(file.name, content_hash(file)) for file in sorted(Path(path).glob("*.safetensors"))] for path in (one, other)
    ]
    return bool(weights[0]) and weights[0] == weights[1]


def helpfulness_on_base(models: Mapping[str, RewardScorer], backbone: Backbone) -> RewardModel:
    """The helpfulness model that a value role can start from.

    Raises:
        UserError: it is another model than the policy's base, or there are several.
    """
    model = models["helpfulness"]
    if not isinstance(model, RewardModel) or model.backbone is not backbone:
        raise UserError("the value role cannot start from a helpfulness model on another base; pass ppo.value=head")
    return model
