"""Reward models and policies as folders that Transformers, PEFT, TRL and the Hub read without Tandem.

A reward model with a linear head is a sequence classifier with one output: ``AutoModelForSequenceClassification`` pools
at the last token that is not padding, and applies a linear map without bias. Three things do not fit into one:

1. The offset. Exported scores are raw, as the head gives them; what calibration takes off is in ``calibration.json``,
   which ``SequenceClassifier`` reads.
2. A pad token that ends answers: the classifier would not find an answer's last token. An export pads with another.
3. What is known on this machine alone. A folder names no path; an adapter on a base that is a folder knows it by the
   hash of its weights, so that Tandem finds it (``alignment.models.scorers.sequence_classifier``).

A folder is written beside its place and moved there when it is whole; others may read it.

Shapes: H hidden, V vocabulary.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from alignment.errors import UserError
from alignment.files import check_replaceable, read_json, whole_folder, write_json
from alignment.models.backbone import Backbone, save_model
from alignment.models.export.model_card import CARD, TAG, Origin, policy_card, reward_model_card
from alignment.models.pretrained import weights_hash
from alignment.models.scorers.reward_model import RewardModel
from alignment.models.scorers.sequence_classifier import BASE_WEIGHTS, CALIBRATION, SCORE_KEY

FORMAT_VERSION = 1
PAD_TOKENS = ("<|pad|>", "<pad>", "[PAD]", "<|tandem_pad|>")


def export_reward_model(
    model: RewardModel, folder: Path, *, merged: bool, made_from: str | None = None, overwrite: bool = False
) -> None:
    """Write a reward model as a sequence classifier with one output, or as a PEFT adapter for one.

    Args:
        model: with a linear head; left as it is.
        folder: the folder to make.
        merged: the whole model with the adapter merged in, else adapter and head alone.
        made_from: the model that all training began with, for the card; ``None``: the base at hand.
        overwrite: replace an earlier export.

    Raises:
        UserError: the head is no linear one, a 4-bit base is to be merged, the base has no sequence classifier, the
            vocabulary has no token to pad with (adapter), or something is at ``folder``.
    """
    # Refuse what cannot be exported, before anything is written.
    check_free(folder, overwrite=overwrite)
    if model.head_name != "linear":
        raise UserError(
            f"{_name(model)}: a sequence classifier is one linear map of the last token's state, and this reward model "
            f"has the head {model.head_name!r}. Train one with reward.head.name=linear to export it; other runs of "
            "Tandem take this one as it is (ppo.reward_models)."
        )
    if model.role is None and not merged:
        raise UserError(f"{_name(model)}: all its weights were trained, it is no adapter; pass export.form=merged")
    empty = _empty_classifier(model.backbone)
    if merged:
        _check_mergeable(model.backbone, _name(model))
    tokenizer = tokenizer_with_pad(model.backbone, may_add=merged)
    # Weights and tokenizer.
    with whole_folder(folder) as made:
        if merged:
            _save_classifier(model, empty, tokenizer, made)
        else:
            _save_classifier_adapter(model, made)
        tokenizer.save_pretrained(str(made))
        # Calibration and model card.
        write_json(made / CALIBRATION, _calibration(model, with_base=not merged))
        origin = Origin.of(made_from or model.backbone.path)
        card = reward_model_card(model, tokenizer, base=_hub_name(model.backbone), origin=origin, merged=merged)
        (made / CARD).write_text(card, encoding="utf-8")
        _make_public(made)


def export_policy(
    backbone: Backbone,
    role: str | None,
    folder: Path,
    *,
    merged: bool,
    made_from: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write a policy as a causal language model, or as a PEFT adapter for its base.

    Args:
        backbone: where it is a role, or a model of its own.
        role: name of its adapter; ``None``: the model itself.
        folder: the folder to make.
        merged: the whole model with the adapter merged in, else the adapter alone.
        made_from: the model that all training began with, for the card; ``None``: the base at hand.
        overwrite: replace an earlier export.

    Raises:
        UserError: an adapter is asked of a whole model, a 4-bit base is to be merged, or something is at ``folder``.
    """
    # Refuse what cannot be exported, before anything is written.
    check_free(folder, overwrite=overwrite)
    if merged:
        _check_mergeable(backbone, "policy")
    elif role is None:
        raise UserError("this policy is a whole model and no adapter; pass export.form=merged")
    # Weights and tokenizer.
    with whole_folder(folder) as made:
        if merged:
            whole = backbone if role is None else backbone.trainable_copy(role)
            save_model(whole.base, backbone.encoder, made)
        else:
            assert role is not None
            _save_adapter(backbone, role, made, {})
        backbone.tokenizer.save_pretrained(str(made))
        # Model card.
        origin = Origin.of(made_from or backbone.path)
        card = policy_card(base=_hub_name(backbone), origin=origin, merged=merged)
        (made / CARD).write_text(card, encoding="utf-8")
        _make_public(made)


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Raise ``UserError`` where something is at ``folder`` that is not to be replaced: only exports ever are."""
    check_replaceable(folder, mark=(CARD, TAG), overwrite=overwrite)


def tokenizer_with_pad(backbone: Backbone, *, may_add: bool) -> PreTrainedTokenizerBase:
    """A copy of the tokenizer that pads on the right, with a token that ends no answer.

    Its own pad token where that will do. Else a new one, which needs a row of the embeddings; or, where none may be
    added, BOS or another control token: dialogues never end with it, and padding is masked.

    Raises:
        UserError: none may be added, and there is none.
    """
    tokenizer = copy.deepcopy(backbone.tokenizer)
    tokenizer.padding_side = "right"
    stop_ids, rows = backbone.encoder.stop_ids, len(_embeddings(backbone.base))
    fits = tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in stop_ids
    if may_add:
        if not fits:
            name = next(name for name in PAD_TOKENS if name not in tokenizer.get_vocab())
            tokenizer.add_special_tokens({"pad_token": name})
        return tokenizer
    candidates = [tokenizer.pad_token_id, tokenizer.bos_token_id, *sorted(backbone.encoder.control_ids)]
    usable = [found for found in candidates if found is not None and found not in stop_ids and found < rows]
    if not usable:
        raise UserError("every control token of this vocabulary ends answers, none can pad; pass export.form=merged")
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(usable[0])
    return tokenizer


def _name(model: RewardModel) -> str:
    return str(model.folder) if model.folder != Path() else str(model.role)


def _hub_name(backbone: Backbone) -> str | None:
    """The base's name on the Hub; ``None`` for a folder, whose path means nothing elsewhere."""
    return None if Path(backbone.path).is_dir() else backbone.path


def _make_public(folder: Path) -> None:
    """Take local paths out of the settings, and let others read, whatever the umask or a temporary file's mode."""
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        file = folder / name
        if file.is_file():
            local = ("_name_or_path", "name_or_path")
            write_json(file, {key: value for key, value in read_json(file).items() if key not in local})
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _check_mergeable(backbone: Backbone, name: str) -> None:
    if backbone.base.config.to_dict().get("quantization_config"):
        raise UserError(
            f"{name}: an adapter does not merge into 4-bit weights. Pass model.quantization=none to merge it into the "
            "weights in full precision, with slightly other results than in training, or export.form=adapter."
        )


def _empty_classifier(backbone: Backbone) -> PreTrainedModel:
    """A sequence classifier of the base's architecture without weights.

    Raises:
        UserError: Transformers has none, or one that is not a linear map without bias of the same trunk's states.
    """
    config: PreTrainedConfig = copy.deepcopy(backbone.base.config)
    config.num_labels = 1
    config.id2label, config.label2id = {0: "reward"}, {"reward": 0}
    config.problem_type = "regression"  # so that the text-classification pipeline takes no sigmoid
    try:
        with torch.device("meta"):
            classifier: PreTrainedModel = AutoModelForSequenceClassification.from_config(
                config, trust_remote_code=backbone.trust_remote_code
            )
    except ValueError as error:
        raise UserError(f"Transformers has no sequence classifier for {type(backbone.base).__name__}") from error
    score = dict(classifier.named_children()).get("score")
    same_trunk = type(classifier.base_model) is type(backbone.base.base_model)
    same_prefix = classifier.base_model_prefix == backbone.base.base_model_prefix
    if not (isinstance(score, nn.Linear) and score.bias is None and same_trunk and same_prefix):
        raise UserError(
            f"{type(classifier).__name__} is not a linear map of the states of {type(backbone.base).__name__}"
        )
    return classifier


def _save_classifier(
    model: RewardModel, classifier: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Fill an empty classifier with a merged copy of the trunk and with the head, and write it."""
    trunk = model.backbone.trainable_copy(model.role).base.base_model
    setattr(classifier, classifier.base_model_prefix, trunk)
    classifier.score = nn.Linear(model.backbone.hidden_size, 1, bias=False)
    classifier.score.weight = nn.Parameter(_score_weight(model), requires_grad=False)
    _grow_embeddings(classifier, len(tokenizer))
    classifier.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    classifier.save_pretrained(str(folder))


@torch.no_grad()
def _grow_embeddings(classifier: PreTrainedModel, rows: int) -> None:
    """Add rows of zeros to the embeddings up to ``rows``; nothing ever looks at padding."""
    before = len(_embeddings(classifier))
    if rows > before:
        classifier.resize_token_embeddings(rows, mean_resizing=False)
        _embeddings(classifier)[before:] = 0.0


def _embeddings(model: PreTrainedModel) -> Tensor:
    """The input embeddings (V, H)."""
    return cast(nn.Embedding, model.get_input_embeddings()).weight


def _save_classifier_adapter(model: RewardModel, folder: Path) -> None:
    assert model.role is not None
    _save_adapter(model.backbone, model.role, folder, {"task_type": "SEQ_CLS", "modules_to_save": ["score"]})
    file = str(folder / "adapter_model.safetensors")
    save_file({**load_file(file), SCORE_KEY: _score_weight(model)}, file, metadata={"format": "pt"})


def _save_adapter(backbone: Backbone, role: str, folder: Path, changes: dict[str, Any]) -> None:
    """Write a role's adapter in PEFT's format, with changes of its configuration."""
    backbone.save_adapter(role, folder)
    file = folder / "adapter_config.json"
    write_json(file, {**read_json(file), "base_model_name_or_path": _hub_name(backbone), **changes})


def _score_weight(model: RewardModel) -> Tensor:
    """The head's weight (1, H), float32."""
    return model.head.state_dict()["score.weight"].detach().float().cpu().clone()


def _calibration(model: RewardModel, *, with_base: bool) -> dict[str, Any]:
    """Offset and calibration figures: score of Tandem = logit - offset; and by what an adapter's base is known."""
    description = model.folder / "reward_model.json"
    figures = read_json(description)["calibration"] if model.folder != Path() else {}
    described = {"format_version": FORMAT_VERSION, "offset": model.offset, "calibration": figures}
    is_folder = with_base and _hub_name(model.backbone) is None
    return {**described, **({BASE_WEIGHTS: weights_hash(model.backbone.path)} if is_folder else {})}
