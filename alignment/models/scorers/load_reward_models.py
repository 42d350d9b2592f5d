"""Loading the reward models that a run names: on the shared base, beside it, or several as one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from alignment.errors import UserError
from alignment.files import read_json
from alignment.models.backbone import Backbone
from alignment.models.pretrained import find_model, load_base
from alignment.models.scorers.reward_model import FILE, RewardModel, is_full_model
from alignment.models.scorers.reward_scorer import RewardScorer
from alignment.models.scorers.separate_models import Ensemble, Reencoded
from alignment.models.scorers.sequence_classifier import SequenceClassifier, is_classifier, weights_hash
from alignment.settings.model_sections import ModelSection
from alignment.settings.ppo_sections import RewardFoldersSection


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
        base = str(read_json(folder / "adapter_config.json").get("base_model_name_or_path"))
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


def same_model(one: str, other: str) -> bool:
    """Whether two names mean the same weights: one name, one folder, or folders with equal weight files."""
    if one == other or Path(one).resolve() == Path(other).resolve():
        return True
    found = weights_hash(one)
    return found is not None and found == weights_hash(other)
