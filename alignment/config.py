"""The recipe: one typed, frozen schema for every setting of every stage.

A recipe is a YAML file, then ``key.sub=value`` overrides (OmegaConf), then validated here, all mistakes at once and
each misspelt key with the nearest valid one. Numbers of the paper (Touvron et al. 2023) are the defaults for real
models, each with its section; ``configs/toy.yaml`` sets what a two-million-parameter model needs instead.
No value is ever changed behind the user's back: what cannot be honoured is an error.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from yaml import YAMLError

from alignment.errors import UserError
from alignment.resources import resolve

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
TOY_MODEL = "toy"
DEFAULT_RECIPE = "configs/toy.yaml"


def _divides(part: int, whole: int, part_name: str, whole_name: str) -> None:
    if whole % part:
        raise ValueError(f"{part_name} ({part}) must divide {whole_name} ({whole})")


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LoraSection(Section):
    """Low-rank adapters, one per role."""

    r: Positive = Field(16, description="rank of each adapter")
    alpha: Rate = Field(32, description="scale; the update is alpha/r * B A")
    dropout: Share = Field(0.0, description="dropout in adapters; 0 keeps the PPO ratio exactly 1 at the first step")
    target_modules: Literal["all-linear"] | list[str] = Field("all-linear", description="layers that get an adapter")


class ModelSection(Section):
    """The base model that every stage starts from."""

    name_or_path: str = Field(description="'toy' (pretrained by stages.base), a folder, or a Hub name")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on GPUs and on processors with AMX or AVX512-BF16, else float32"
    )
    quantization: Literal["none", "nf4"] = Field("none", description="nf4 loads the frozen base in 4 bits")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")
    sampling_copy: bool = Field(
        False, description="keep a second copy of the base with the adapter merged in, to sample faster"
    )
    lora: LoraSection = LoraSection()  # type: ignore[call-arg]


class DataSection(Section):
    """Prompts, and what to do with lines that cannot be used."""

    prompts: str = Field(description="training prompts, JSONL")
    heldout_prompts: str | None = Field(None, description="held-out prompts, JSONL; never trained on")
    on_error: Literal["raise", "skip"] = Field("raise", description="malformed line: stop, or skip and count")
    too_long: Literal["raise", "skip"] = Field(
        "raise", description="longer than max_length_tokens: stop, or skip and count"
    )


class BaseSection(Section):
    """Pretraining of the toy base model."""

    corpus: str = Field("data/toy/pretraining.jsonl", description="documents, JSONL with a 'text' key")
    steps: Positive = Field(1500, description="optimiser steps")
    batch_size_documents: Positive = Field(16, description="documents per step")
    learning_rate: Rate = Field(1e-2, description="peak, of AdamW on embeddings; linear warm-up, cosine to 10 %")
    matrix_learning_rate: Rate = Field(1e-2, description="peak, of Muon on the matrices of the blocks; same schedule")
    warmup_steps: Count = Field(50, description="optimiser steps")
    vocabulary_size: Positive = Field(3072, description="tokens of the byte-level BPE, special ones included")
    hidden_size: Positive = Field(192, description="width H")
    layers: Positive = Field(3, description="transformer blocks")
    heads: Positive = Field(6, description="attention heads; must divide hidden_size")
    context_tokens: Positive = Field(1024, description="longest dialogue")


class SFTSection(Section):
    """Supervised fine-tuning (section 3.1)."""

    data: str = Field(description="curated dialogues: a file or a Hub name")
    format: str = Field("auto", description="auto, tandem, hh, alpaca, trl")
    method: Literal["lora", "full"] = Field("lora", description="what is trained; lora is merged when saved")
    epochs: Rate = Field(2, description="passes over the data; section 3.1")
    batch_size_dialogues: Positive = Field(64, description="dialogues per optimiser step; section 3.1")
    micro_batch_size_dialogues: Positive = Field(8, description="dialogues per forward pass; divides the batch size")
    learning_rate: Rate = Field(2e-5, description="initial, cosine to 10 %; section 3.1")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.1, description="section 3.1")
    max_length_tokens: Positive = Field(4096, description="section 3.1")
    packing: bool = Field(
        True, description="fill sequences with several dialogues, no attention across them; section 3.1"
    )
    trainer: dict[str, Any] = Field({}, description="passed on to TRL's SFTConfig")


class SamplingSection(Section):
    """How answers are drawn. No top-k and no top-p: what is sampled is what is trained."""

    temperature: Rate = Field(1.0, description="divides the logits")
    max_new_tokens: Positive = Field(400, description="longest answer")
    batch_size_prompts: Positive = Field(64, description="prompts decoded together")


class AnnotateSection(Section):
    """Collection of comparisons (section 3.2.1)."""

    source: Literal["simulated", "dataset"] = Field("simulated", description="who compares")
    data: str | None = Field(None, description="comparisons file or Hub name, for source=dataset")
    format: str = Field("auto", description="auto, tandem, hh, alpaca, alpaca_eval, trl")
    dimension: Literal["helpfulness", "safety"] = Field(
        "helpfulness", description="dimension of a dataset's comparisons"
    )
    helpfulness_pairs: Count = Field(3000, description="training comparisons about helpfulness")
    safety_pairs: Count = Field(1500, description="training comparisons about safety")
    heldout_helpfulness_pairs: Count = Field(1000, description="comparisons on held-out prompts, for evaluation only")
    heldout_safety_pairs: Count = Field(1000, description="comparisons on held-out prompts, for evaluation only")
    temperatures: tuple[Rate, Rate] = Field((1.0, 1.2), description="of the two variants that answer")
    max_new_tokens: Positive = Field(400, description="longest answer")
    batch_size_prompts: Positive = Field(64, description="prompts decoded together")


class HeadSection(Section):
    """The module on top of the trunk that turns hidden states into a score."""

    name: str = Field("linear", description="a name from alignment.models.heads.HEADS")
    arguments: dict[str, int | float] = Field({}, description="the head's own settings")


class RewardModelSection(Section):
    """One reward model: its data and its loss."""

    data: str | None = Field(None, description="comparisons file or Hub name; default: this round's comparisons.jsonl")
    format: str = Field("auto", description="auto, tandem, hh, alpaca, alpaca_eval, trl")
    margin: Literal["none", "small", "large"] = Field("small", description="margin by grade; Table 27")
    safety_weight: Annotated[float, Field(ge=0)] = Field(0.0, description="weight of the safety auxiliary loss; A.3.3")
    centering_weight: Annotated[float, Field(ge=0)] = Field(0.0, description="pulls scores towards mean 0")
    other_share: Share = Field(
        0.0, description="share of the other dimension's comparisons in the mixture; section 3.2.2"
    )
    epochs: Rate = Field(1, description="passes over the data; section 3.2.2 (longer over-fits)")
    learning_rate: Rate = Field(1e-5, description="peak, cosine to 10 %; section 3.2.2")
    batch_size_pairs: Positive = Field(512, description="pairs per optimiser step; section 3.2.2")
    micro_batch_size_pairs: Positive = Field(8, description="pairs per forward pass; divides the batch size")
    max_length_tokens: Positive = Field(4096, description="longest dialogue with its answer")


class SafetyRewardModelSection(RewardModelSection):
    """The safety reward model: no margin, an auxiliary loss, a tenth of helpfulness comparisons (section 3.2.2)."""

    margin: Literal["none", "small", "large"] = Field("none", description="margin by grade; Table 27")
    safety_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the safety auxiliary loss; A.3.3")
    other_share: Share = Field(
        0.1, description="share of the other dimension's comparisons in the mixture; section 3.2.2"
    )


class RewardSection(Section):
    """The two reward models (section 3.2.2)."""

    models: list[Literal["helpfulness", "safety"]] = Field(["helpfulness", "safety"], description="which to train")
    head: HeadSection = HeadSection()  # type: ignore[call-arg]
    heldout_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="share of conversations kept for evaluation, where the data has no held-out file"
    )
    helpfulness: RewardModelSection = RewardModelSection()  # type: ignore[call-arg]
    safety: SafetyRewardModelSection = SafetyRewardModelSection()  # type: ignore[call-arg]
    trainer: dict[str, Any] = Field({}, description="passed on to TRL's RewardConfig")


class RejectionSamplingSection(SamplingSection):
    """How candidates are drawn: hotter, as the paper found best for 10 to 100 samples (section 3.2.3)."""

    temperature: Rate = Field(1.2, description="divides the logits; section 3.2.3 (1.2-1.3)")


class RejectionSection(Section):
    """Rejection-sampling fine-tuning (section 3.2.3)."""

    prompts: Positive = Field(10000, description="prompts per round")
    samples_per_prompt: Positive = Field(16, description="K; the best is kept")
    pick: Literal["best", "random"] = Field("best", description="random is the control arm")
    epochs: Rate = Field(2, description="passes over winners and demonstrations")
    batch_size_dialogues: Positive = Field(64, description="dialogues per optimiser step")
    micro_batch_size_dialogues: Positive = Field(8, description="dialogues per forward pass; divides the batch size")
    learning_rate: Rate = Field(2e-5, description="initial, cosine to 10 %")
    sampling: RejectionSamplingSection = RejectionSamplingSection()  # type: ignore[call-arg]


class PPOSection(Section):
    """Proximal policy optimisation (section 3.2.3)."""

    method: Literal["both", "rejection", "ppo"] = Field("both", description="what stages.ppo runs")
    updates: Positive = Field(300, description="iterations; section 3.2.3 (200-400)")
    batch_size_episodes: Positive = Field(512, description="prompts, one answer each, per update; section 3.2.3")
    minibatch_size_episodes: Positive = Field(64, description="episodes per optimiser step; section 3.2.3")
    micro_batch_size_episodes: Positive = Field(8, description="episodes per forward pass; divides the minibatch")
    epochs: Positive = Field(1, description="passes over each batch; section 3.2.3")
    learning_rate: Rate = Field(1e-6, description="constant; section 3.2.3")
    value_learning_rate: Rate | None = Field(None, description="of the value role; default: learning_rate")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.1, description="section 3.2.3")
    max_grad_norm: Rate = Field(1.0, description="section 3.2.3")
    clip_range: Rate = Field(0.2, description="of the probability ratio; section 3.2.3")
    value_clip_range: Rate = Field(0.2, description="of the value; not in the paper, from Huang et al. 2024")
    value_weight: Annotated[float, Field(ge=0)] = Field(0.1, description="of the value loss; Huang et al. 2024")
    kl_beta: Annotated[float, Field(ge=0)] = Field(
        0.01, description="weight of the KL per token in the reward; section 3.2.3"
    )
    gamma: Share = Field(1.0, description="discount")
    gae_lambda: Share = Field(0.95, description="GAE, Schulman et al. 2016")
    value: Literal["adapter", "head"] = Field(
        "adapter",
        description="adapter and head started from the helpfulness model, or a head on the policy's trunk",
    )
    safety_threshold: Annotated[float, Field(gt=0, lt=1)] = Field(0.15, description="gate; section 3.2.3")
    missing_stop_penalty: Annotated[float, Field(ge=0)] = Field(
        1.0, description="taken off the whitened score of an answer that did not stop"
    )
    whiten_scores: bool = Field(True, description="over the global batch; section 3.2.3")
    snapshot_every_updates: Count = Field(
        20, description="write down held-out answers this often, for the reward-against-KL plot; 0: never"
    )
    snapshot_prompts: Count = Field(64, description="held-out prompts answered at each snapshot")
    warmup_value_updates: Count = Field(0, description="first updates that train the value role only")
    sampling: SamplingSection = SamplingSection()  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _batches_divide(self) -> PPOSection:
        _divides(
            self.minibatch_size_episodes,
            self.batch_size_episodes,
            "minibatch_size_episodes",
            "batch_size_episodes",
        )
        _divides(
            self.micro_batch_size_episodes,
            self.minibatch_size_episodes,
            "micro_batch_size_episodes",
            "minibatch_size_episodes",
        )
        return self


class EvaluateSection(Section):
    """Judging every policy of a run on the held-out prompts."""

    judge: Literal["gold", "none"] = Field("none", description="gold: the toy world's judge; none: reward models only")
    samples: Positive = Field(12, description="prompts shown side by side in the report, drawn by seed")
    sampling: SamplingSection = SamplingSection()  # type: ignore[call-arg]


class Recipe(Section):
    """Everything about one experiment."""

    run_dir: str = Field(description="folder of this experiment")
    seed: Count = Field(0, description="of every random choice")
    rounds: Positive = Field(1, description="annotate, reward and ppo, this many times")
    overwrite: bool = Field(False, description="run a finished stage again")
    model: ModelSection
    data: DataSection
    base: BaseSection = BaseSection()  # type: ignore[call-arg]
    sft: SFTSection
    annotate: AnnotateSection = AnnotateSection()  # type: ignore[call-arg]
    reward: RewardSection = RewardSection()  # type: ignore[call-arg]
    rejection: RejectionSection = RejectionSection()  # type: ignore[call-arg]
    ppo: PPOSection = PPOSection()  # type: ignore[call-arg]
    evaluate: EvaluateSection = EvaluateSection()  # type: ignore[call-arg]


def load_recipe(path: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply ``key.sub=value`` overrides and validate.

    Args:
        path: a YAML file; default ``configs/toy.yaml``.
        overrides: dotted settings, later ones win.

    Raises:
        UserError: the file is missing or not YAML, an override has no ``=``, or settings are wrong (all named).
    """
    file = resolve(path or DEFAULT_RECIPE)
    if not file.is_file():
        raise UserError(f"no such recipe: {path}. Recipes that come with Tandem: configs/toy.yaml and its neighbours.")
    wrong = [item for item in overrides if "=" not in item]
    if wrong:
        raise UserError(f"not a setting: {wrong[0]!r}. Write key.sub=value, for example ppo.updates=20.")
    try:
        merged = OmegaConf.merge(OmegaConf.load(file), OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, YAMLError, TypeError, ValueError) as error:
        raise UserError(f"{path or DEFAULT_RECIPE}: {str(error).splitlines()[0]}") from error
    return parse_recipe(values, origin=str(path or DEFAULT_RECIPE))


def parse_recipe(values: object, *, origin: str) -> Recipe:
    """Validate plain values; raise ``UserError`` that lists every mistake."""
    if not isinstance(values, dict):
        raise UserError(f"{origin}: a recipe is a mapping of sections, found {type(values).__name__}")
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = [_explain(item) for item in error.errors()]
        noun = "setting" if len(problems) == 1 else "settings"
        raise UserError(f"{origin}: {len(problems)} wrong {noun}\n  " + "\n  ".join(problems)) from error


def _explain(item: Any) -> str:
    """One line for one pydantic error: dotted key, what is wrong, the nearest valid key of a misspelt one."""
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] != "extra_forbidden":
        return f"{key}: {item['msg'].removeprefix('Value error, ')} (given: {str(item['input'])[:60]})"
    known = list(_section_at(location[:-1]).model_fields)
    nearest = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.4)
    hint = f"did you mean {'.'.join([*location[:-1], nearest[0]])}?" if nearest else f"known: {', '.join(known)}"
    return f"{key}: no such setting; {hint}"


def _section_at(path: Sequence[str]) -> type[Section]:
    section: type[Section] = Recipe
    for name in path:
        section = section.model_fields[name].annotation  # type: ignore[assignment]
    return section


def recipe_keys(section: type[Section] = Recipe, prefix: str = "") -> list[tuple[str, str, str, str]]:
    """Every setting as (dotted key, type, default, description), for ``--help``."""
    rows: list[tuple[str, str, str, str]] = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            rows += recipe_keys(field.annotation, f"{prefix}{name}.")
        else:
            default = "required" if field.is_required() else str(field.default)
            rows.append((f"{prefix}{name}", _type_name(field.annotation), default, field.description or ""))
    return rows


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin is Literal:
        return "|".join(str(value) for value in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return "|".join(_type_name(part) for part in typing.get_args(annotation) if part is not type(None))
    return str(getattr(annotation, "__name__", annotation))


def save_recipe(recipe: Recipe, file: Path) -> None:
    """Write the resolved recipe as YAML."""
    file.write_text(OmegaConf.to_yaml(OmegaConf.create(recipe.model_dump(mode="json"))), encoding="utf-8")
