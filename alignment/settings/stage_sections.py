"""Settings of the stages SFT (section 3.1), annotate (section 3.2.1), evaluate and export."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from alignment.data.records import Dimension, Part
from alignment.settings.model_sections import SamplingSection
from alignment.settings.section import Count, Positive, Rate, Section, Weight, check_dialogues_divide


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
