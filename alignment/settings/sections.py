"""The sections of a recipe but those of reward models and PPO, and what all sections are made of.

``Section`` is the frozen base class; number ranges and checks of batch sizes stand beside it. Then what several stages
read (model, sampling, data), and the stages base, SFT (section 3.1), annotate (section 3.2.1), evaluate and export.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from alignment.data.records import Dimension, Part

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: frozen; unknown keys are refused, and so are infinity and true or false for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and _is_number(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("a number is wanted here, not true or false")
        return value


def _is_number(annotation: Any) -> bool:
    """Whether a setting's values are numbers, none of them true or false."""
    kinds = {kind for part in (get_args(annotation) or (annotation,)) for kind in (get_args(part)[:1] or (part,))}
    return bool(kinds & {int, float}) and bool not in kinds


def check_divides(part: int, whole: int, part_name: str, whole_name: str) -> None:
    """Raise ``ValueError`` unless the larger batch is made of whole smaller ones.

    Args:
        part: size of the smaller batch.
        whole: size of the larger batch, in the same unit.
        part_name: key of the smaller batch size, for the error.
        whole_name: key of the larger batch size, for the error.
    """
    if whole % part:
        raise ValueError(f"{part_name} ({part}) must divide {whole_name} ({whole})")


def check_dialogues_divide(micro_batch: int, batch: int) -> None:
    """Raise ``ValueError`` unless micro-batches of dialogues divide the batches."""
    check_divides(micro_batch, batch, "micro_batch_size_dialogues", "batch_size_dialogues")


TOY_MODEL = "toy"


class LoraSection(Section):
    """Low-rank adapters, one per role."""

    r: Positive = Field(16, description="rank of each adapter")
    alpha: Rate = Field(32, description="scale; the update is alpha/r * B A")
    dropout: Share = Field(0.0, description="dropout in adapters while SFT and reward models train; PPO has none")
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


class SamplingSection(Section):
    """How answers are drawn. No top-k and no top-p: what is sampled is what is trained."""

    temperature: Rate = Field(1.0, description="divides the logits")
    max_new_tokens: Positive = Field(400, description="longest answer")
    batch_size_prompts: Positive = Field(64, description="prompts decoded together")


HELDOUT = "heldout"
"""Of ``data.selection_prompts``: the held-out prompts select, as in runs of an earlier version."""


class DataSection(Section):
    """Prompts, and what to do with lines that cannot be used."""

    prompts: str = Field(description="training prompts, JSONL")
    selection_prompts: str | None = Field(
        None,
        description="prompts, JSONL, that select a checkpoint (snapshots, ppo.keep, the guard); default: a share of "
        "data.prompts; heldout: the held-out ones, as in runs of an earlier version",
    )
    selection_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.05,
        description="share of the conversations in data.prompts that selects, and is not trained on",
    )
    heldout_prompts: str | None = Field(
        None, description="held-out prompts, JSONL, which the report is made on; never trained on, and select nothing"
    )
    on_error: Literal["raise", "skip"] = Field("raise", description="malformed line: stop, or skip and count")
    unused: list[str] = Field(
        [],
        description="keys of your files that carry a label (grade, tag, score_...) and are to go unread all the same",
    )
    too_long: Literal["raise", "skip"] = Field(
        "raise", description="longer than max_length_tokens: stop, or skip and count"
    )


class BaseSection(Section):
    """Pretraining of the toy base model."""

    corpus: str = Field("data/toy/pretraining.jsonl", description="documents, JSONL with a 'text' key")
    steps: Positive = Field(900, description="optimiser steps")
    batch_size_documents: Positive = Field(32, description="documents per step")
    learning_rate: Rate = Field(3e-2, description="peak, of AdamW on embeddings; linear warm-up, then linear to 0")
    matrix_learning_rate: Rate = Field(8e-3, description="peak, of Muon on the matrices of the blocks; same schedule")
    question_noise: Share = Field(
        0.3, description="share of the questions' words that are random ones instead, in every second document"
    )
    question_extra_words: Count = Field(
        8, description="random words at most that stand before or after a question, in every second document"
    )
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
    weight_decay: Weight = Field(0.1, description="section 3.1")
    max_length_tokens: Positive = Field(4096, description="section 3.1")
    packing: bool = Field(
        True, description="fill sequences with several dialogues, no attention across them; section 3.1"
    )
    trainer: dict[str, Any] = Field({}, description="passed on to TRL's SFTConfig")

    @model_validator(mode="after")
    def _batch_divides(self) -> SFTSection:
        check_dialogues_divide(self.micro_batch_size_dialogues, self.batch_size_dialogues)
        return self


class PairCount(NamedTuple):
    """How many pairs about a dimension are collected for training, or to measure with."""

    part: Part
    dimension: Dimension
    pairs: int


class AnnotateSection(Section):
    """Collection of comparisons (section 3.2.1)."""

    source: Literal["simulated", "dataset", "ui"] = Field(
        "simulated", description="who compares; ui: people, in the browser app"
    )
    data: str | None = Field(None, description="comparisons file or Hub name, for source=dataset")
    format: str = Field("auto", description="auto, tandem, hh, alpaca, alpaca_eval, trl")
    dimension: Literal["helpfulness", "safety"] = Field(
        "helpfulness", description="dimension of a dataset's comparisons"
    )
    helpfulness_pairs: Count = Field(3000, description="training comparisons about helpfulness")
    safety_pairs: Count = Field(1500, description="training comparisons about safety")
    heldout_helpfulness_pairs: Count = Field(1000, description="pairs on held-out prompts, for evaluation only")
    heldout_safety_pairs: Count = Field(1000, description="pairs on held-out prompts, for evaluation only")
    heldout_overlap: Positive = Field(1, description="simulated annotators who compare each held-out pair, 1 to 6")
    ui_settings: str = Field("configs/annotation.yaml", description="settings of the app, for source=ui")
    ui_port: Count = Field(7860, description="where the app listens, for source=ui; 0: any free port")
    temperatures: tuple[Rate, Rate] = Field((1.0, 1.2), description="of the two variants that answer")
    max_new_tokens: Positive = Field(400, description="longest answer")
    batch_size_prompts: Positive = Field(64, description="prompts decoded together")

    @property
    def pair_counts(self) -> list[PairCount]:
        """How many pairs of each sort a round collects, those of which there are any."""
        counts = (
            PairCount("train", "helpfulness", self.helpfulness_pairs),
            PairCount("train", "safety", self.safety_pairs),
            PairCount("heldout", "helpfulness", self.heldout_helpfulness_pairs),
            PairCount("heldout", "safety", self.heldout_safety_pairs),
        )
        return [each for each in counts if each.pairs]


class EvaluateSection(Section):
    """Judging every policy of a run on the held-out prompts."""

    judge: Literal["gold", "none"] = Field("none", description="gold: the toy world's judge; none: reward models only")
    answers_per_prompt: Positive = Field(1, description="answers of each policy to each held-out prompt")
    samples: Positive = Field(12, description="prompts shown side by side in the report, drawn by seed")
    sampling: SamplingSection = SamplingSection()  # type: ignore[call-arg]


class ExportSection(Section):
    """A reward model or a policy as a folder for other programs."""

    what: Literal["helpfulness", "safety", "policy"] = Field(
        "helpfulness", description="a reward model with a linear head, or the newest policy"
    )
    round: Positive | None = Field(None, description="of which round; default: the latest")
    form: Literal["merged", "adapter"] = Field(
        "merged", description="a whole model with the adapter merged in, or an adapter in PEFT's format"
    )
    to: str | None = Field(None, description="folder to make; default: export/WHAT in the run folder")
