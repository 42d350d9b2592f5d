"""Reward models that a run names, loaded: roles of the shared base, models beside it, or several as one.

A model beside the base reads the text again with its own tokenizer (``Reencoded``); several are an ``Ensemble``.

Shapes: B dialogues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from alignment.data.encoded_dialogues import EncodedAnswer, Encoder, check_length
from alignment.data.records import Message
from alignment.errors import UserError
from alignment.files import read_json
from alignment.models.backbone import Backbone
from alignment.models.heads.many_score_heads import combined
from alignment.models.model_places import find_model
from alignment.models.pretrained import load_base, same_model
from alignment.models.scorers.reward_model import FILE, RewardModel, is_full_model
from alignment.models.scorers.scorer_protocol import OnBatch, RewardJudgment, RewardScorer, ValueStart, no_value_start
from alignment.models.scorers.sequence_classifier import SequenceClassifier, is_classifier
from alignment.settings.ppo_sections import RewardFoldersSection
from alignment.settings.sections import ModelSection


def load_reward_models(
    backbone: Backbone, trained: Path, folders: RewardFoldersSection, settings: ModelSection
) -> dict[str, RewardScorer]:
    """The reward models that pay the policy, by dimension.

    Args:
        backbone: the policy's; reward models trained on the same base become roles of it.
        trained: the round's own reward models.
        folders: others in their place, folders or Hub names.
        settings: dtype and quantisation of a base beside the shared one.

    Raises:
        UserError: a folder holds no reward model.
    """
    models: dict[str, RewardScorer] = {}
    beside: dict[str, Backbone] = {}
    wanted: Mapping[str, list[str] | None] = folders.model_dump(include={"helpfulness", "safety"})
    for dimension, paths in wanted.items():
        if paths is None:
            models[dimension] = RewardModel.load(backbone, dimension, trained / dimension)
            continue
        found = [
            load_reward_model(backbone, f"{dimension}_{number}", path, settings, beside=beside)
            for number, path in enumerate(paths)
        ]
        if found:
            models[dimension] = (
                found[0] if len(found) == 1 else Ensemble(found, rule=folders.combine, caution=folders.caution)
            )
    return models


def load_reward_model(
    backbone: Backbone, role: str, name: str | Path, settings: ModelSection, *, beside: dict[str, Backbone]
) -> RewardScorer:
    """One reward model: a role of the shared base where it was trained on that, else a model beside it.

    Args:
        backbone: the policy's.
        role: name of its adapter.
        name: the folder where it lies, or its name on the Hub.
        settings: dtype and quantisation of a base beside the shared one.
        beside: bases beside the shared one by name, each loaded once; added to.

    Raises:
        UserError: there is no reward model, or the base it was trained on is not where it was.
    """
    folder = find_model(str(name), with_code=settings.trust_remote_code)
    if (folder / FILE).is_file():
        if is_full_model(folder):
            return Reencoded(RewardModel.load(backbone, role, folder), backbone.encoder)
        base = base_of_adapter(folder)
        if same_model(base, backbone.path):
            return RewardModel.load(backbone, role, folder)
        if base not in beside:
            beside[base] = load_base(base, settings.model_copy(update={"sampling_copy": False}))
        return Reencoded(RewardModel.load(beside[base], role, folder), backbone.encoder)
    if is_classifier(folder):
        return Reencoded(SequenceClassifier.load(folder, settings, at_hand=backbone.path), backbone.encoder)
    raise UserError(
        f"{folder}: not a reward model; expected what stages.reward makes (reward_model.json) or a sequence classifier "
        "(config.json, or an adapter of task type SEQ_CLS)"
    )


def base_of_adapter(folder: Path) -> str:
    """The base that a reward model's adapter was trained on: the SFT model of the run that it lies in, or as it says.

    Where a run was moved, another one may lie by now where its base was.
    """
    named = str(read_json(folder / "adapter_config.json").get("base_model_name_or_path"))
    *run, number, stage, _ = folder.resolve().parts  # RUN, round-1, reward, safety
    own = Path(*run) / "sft"
    lies_in_a_run = number.startswith("round-") and stage == "reward" and (own / "config.json").is_file()
    return str(own) if lies_in_a_run and Path(named).name == "sft" else named


class Reencoded:
    """A reward model that reads another tokenizer's ids than the policy writes."""

    def __init__(self, model: RewardModel | SequenceClassifier, policy_encoder: Encoder) -> None:
        self.model = model
        self.policy_encoder = policy_encoder
        own = model if isinstance(model, SequenceClassifier) else model.backbone
        self.encoder, self.context_tokens = own.encoder, own.context_tokens
        self.ends_with_template = isinstance(model, SequenceClassifier) and model.ends_with_template

    @property
    def folders(self) -> list[Path]:
        """The folder that it was loaded from."""
        return self.model.folders

    def judge(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> RewardJudgment:
        """Judge dialogues that carry their text."""
        encoded = [self.encode_again(dialogue) for dialogue in dialogues]
        return self.model.judge(encoded, batch_size=batch_size, on_batch=on_batch)

    def score(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> Tensor:
        """Raw scores (B,) on the CPU, as ``judge``."""
        return self.judge(dialogues, batch_size=batch_size, on_batch=on_batch).scores

    def value_start(self, backbone: Backbone, *, whole: bool) -> ValueStart:
        """Raise ``UserError``: it is no role of the policy's base."""
        raise no_value_start()

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
            text = self._text(dialogue)
            found = self.encoder.encode_answer(dialogue.messages, text)
        except UserError:
            return empty
        if dialogue.answer_ids[-1] not in self.policy_encoder.stop_ids:
            found = EncodedAnswer(found.prompt_ids, found.answer_ids[: len(found.answer_ids) - len(empty.answer_ids)])
        elif self.ends_with_template:
            found = self._with_end(dialogue, text)
        return found if found.answer_ids and len(found.input_ids) <= self.context_tokens else empty

    def _with_end(self, dialogue: EncodedAnswer, text: str) -> EncodedAnswer:
        """Prompt and answer with all that the template writes after it, as the model's own users encode them."""
        finished = [*dialogue.messages, Message(role="assistant", content=text)]
        prompt_ids = self.encoder.encode_prompt(dialogue.messages)
        ids = self.encoder.encode_dialogue(finished, loss_on="last_answer").input_ids
        return EncodedAnswer(prompt_ids, ids[len(prompt_ids) :])

    def _text(self, dialogue: EncodedAnswer) -> str:
        text, before = self.policy_encoder.decode(dialogue.answer_ids), ""
        while text != before:  # what is left when a mark is taken out may be a mark again
            before = text
            for marker in self.encoder.control_markers:
                text = text.replace(marker, "")
        return text


class Ensemble:
    """Several reward models of one dimension, whose raw scores are combined; how far they differ is told."""

    def __init__(self, models: Sequence[RewardScorer], *, rule: str = "mean", caution: float = 1.0) -> None:
        self.models = list(models)
        self.rule, self.caution = rule, caution

    @property
    def folders(self) -> list[Path]:
        """Where they lie."""
        return [folder for model in self.models for folder in model.folders]

    def judge(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> RewardJudgment:
        """Combined raw scores, and their standard deviation over the models."""
        scores = torch.stack([model.score(dialogues, batch_size=batch_size) for model in self.models], dim=1)
        if on_batch is not None:
            on_batch(len(dialogues))
        return RewardJudgment(combined(scores, self.rule, caution=self.caution), scores.std(1, correction=0))

    def score(self, dialogues: Sequence[EncodedAnswer], *, batch_size: int, on_batch: OnBatch = None) -> Tensor:
        """Combined raw scores (B,) on the CPU."""
        return self.judge(dialogues, batch_size=batch_size, on_batch=on_batch).scores

    def value_start(self, backbone: Backbone, *, whole: bool) -> ValueStart:
        """Raise ``UserError``: they are several."""
        raise no_value_start("several helpfulness models")
