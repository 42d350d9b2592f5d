"""The recipe's section on reward models: what they learn from, their heads and their losses (section 3.2.2)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from alignment.data.records import GRADES, Dimension
from alignment.settings.sections import Positive, Rate, Section, Weight, check_divides

GradeTable = dict[str, Weight]
"""A number for each of the four grades."""


COLLECTED = "collected"
"""Name of the comparisons that the run's own rounds have made."""


def source_names(data: str | list[str] | None) -> list[str]:
    """The sources that a ``data`` setting names."""
    return [COLLECTED] if data is None else [data] if isinstance(data, str) else data


class HeadSection(Section):
    """The module on top of the trunk that turns hidden states into a score."""

    name: str = Field("linear", description="a name from alignment.models.heads.HEADS")
    arguments: dict[str, int | float | str | list[int | float | str]] = Field({}, description="the head's own settings")


class SourceSection(Section):
    """Comparisons that are mixed into a reward model's own."""

    data: str | list[str] | None = Field(
        None,
        description="comparisons: a file, a Hub name, 'collected', or several; default: what the reward model of that "
        "dimension learns from",
    )
    format: str = Field("auto", description="auto, tandem, hh, alpaca, alpaca_eval, trl")
    dimension: Dimension = Field(description="which of them, and the tag of those that name no dimension")
    share: Annotated[float, Field(gt=0, lt=1)] = Field(description="of the mixture, drawn at random")


class StrengthsSection(Section):
    """Weight of a pair by its grade, for ``loss=scaled``; ungraded pairs weigh 1, ties nothing, as in its source."""

    significantly_better: Weight = Field(3.0, description="weight for loss=scaled; Wang et al. 2024, section 4")
    better: Weight = Field(2.0, description="weight for loss=scaled")
    slightly_better: Weight = Field(1.0, description="weight for loss=scaled")
    negligibly_better: Weight = Field(0.0, description="weight for loss=scaled; 0 leaves these pairs out of the loss")


class RewardModelSection(Section):
    """One reward model: its data and its loss."""

    data: str | list[str] | None = Field(
        None, description="its own comparisons: a file, a Hub name, 'collected' (the default: this run's), or several"
    )
    format: str = Field("auto", description="auto, tandem, hh, alpaca, alpaca_eval, trl")
    mix: list[SourceSection] = Field(
        [SourceSection(dimension="safety", share=0.5)],  # type: ignore[call-arg]
        description="what its own comparisons, which are all taken, are mixed with; section 3.2.2: as many of the rest",
    )
    margin: Literal["none", "small", "large"] | GradeTable = Field(
        "small", description="margin by grade, Table 27, or a number for each grade"
    )
    loss: str = Field(
        "ranking",
        description="ranking (section 3.2.2, eq. 2), scaled by strength (Wang et al. 2024), or a loss of your own",
    )
    strengths: StrengthsSection = StrengthsSection()  # type: ignore[call-arg]
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="chance that a preference is taken to be wrong"
    )
    safety_weight: Weight = Field(0.0, description="weight of the safety auxiliary loss; A.3.3")
    centering_weight: Weight = Field(0.0, description="pulls scores towards mean 0")
    epochs: Rate = Field(1, description="passes over the data; section 3.2.2 (longer over-fits)")
    learning_rate: Rate = Field(1e-5, description="peak, cosine to 10 %; section 3.2.2")
    batch_size_pairs: Positive = Field(512, description="pairs per optimiser step; section 3.2.2")
    micro_batch_size_pairs: Positive = Field(8, description="pairs per forward pass; divides the batch size")
    max_length_tokens: Positive = Field(4096, description="longest dialogue with its answer")
    save_steps: Positive = Field(50, description="optimiser steps between checkpoints")

    @field_validator("margin")
    @classmethod
    def _knows_all_grades(cls, value: str | GradeTable) -> str | GradeTable:
        if not isinstance(value, str) and set(value) != set(GRADES):
            raise ValueError(f"give one number for each of {', '.join(GRADES)}")
        return value

    @field_validator("mix")
    @classmethod
    def _leaves_room(cls, value: list[SourceSection]) -> list[SourceSection]:
        total = sum(source.share for source in value)
        if total > 1 - 1e-6:
            raise ValueError(f"the shares in mix must add up to less than 1, which is all there is, not {total:g}")
        return value

    @model_validator(mode="after")
    def _batch_divides(self) -> RewardModelSection:
        check_divides(self.micro_batch_size_pairs, self.batch_size_pairs, "micro_batch_size_pairs", "batch_size_pairs")
        return self


class SafetyRewardModelSection(RewardModelSection):
    """The safety reward model: no margin, an auxiliary loss, a tenth of helpfulness comparisons (section 3.2.2)."""

    mix: list[SourceSection] = Field(
        [SourceSection(dimension="helpfulness", share=0.1)],  # type: ignore[call-arg]
        description="what its own comparisons, which are all taken, are mixed with; section 3.2.2: a tenth of the rest",
    )
    margin: Literal["none", "small", "large"] | GradeTable = Field(
        "none", description="margin by grade, Table 27, or a number for each grade"
    )
    safety_weight: Weight = Field(1.0, description="weight of the safety auxiliary loss; A.3.3")


class ComparisonsSection(Section):
    """Comparisons to evaluate reward models on."""

    data: str = Field(description="comparisons file or Hub name")
    format: str = Field("auto", description="auto, tandem, hh, alpaca, alpaca_eval, trl")
    dimension: Dimension = Field("helpfulness", description="what they are about")


class RewardEvaluationSection(Section):
    """Evaluation of reward models without training any."""

    models: Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="folders or Hub names of reward models, of any base and tokenizer; default: those of the run's "
        "last round",
    )
    data: Annotated[list[ComparisonsSection], Field(min_length=1)] | None = Field(
        None, description="a list of {data, format, dimension}; default: the run's held-out comparisons"
    )
    to: str | None = Field(None, description="folder of tables and page; default: reward-evaluation in run_dir")


class RewardSection(Section):
    """The two reward models (section 3.2.2)."""

    models: Annotated[list[Literal["helpfulness", "safety"]], Field(min_length=1)] = Field(
        ["helpfulness", "safety"], description="which to train"
    )
    head: HeadSection = HeadSection()  # type: ignore[call-arg]
    train: Literal["lora", "full"] = Field(
        "lora", description="an adapter on the SFT model, or all weights of a copy of its own, for each reward model"
    )
    overlap: Literal["all", "majority"] = Field(
        "all", description="several judgments of one pair: each is a comparison, or they are merged by majority"
    )
    labels: Literal["annotated", "shuffled"] = Field(
        "annotated", description="shuffled is a control arm: preferences tossed, grades and safety bins dealt out anew"
    )
    guard_share: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0,
        description="share of conversations kept from both models for a guard, which watches PPO for over-optimisation "
        "and never pays it; 0: no guard",
    )
    heldout_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="share of conversations kept for evaluation, where the data has no held-out file"
    )
    helpfulness: RewardModelSection = RewardModelSection()  # type: ignore[call-arg]
    safety: SafetyRewardModelSection = SafetyRewardModelSection()  # type: ignore[call-arg]
    evaluation: RewardEvaluationSection = RewardEvaluationSection()  # type: ignore[call-arg]
    trainer: dict[str, Any] = Field({}, description="passed on to TRL's RewardConfig")

    def of(self, name: str) -> RewardModelSection:
        """A reward model's settings; the guard, a ranking model, has those of helpfulness."""
        return self.safety if name == "safety" else self.helpfulness

    @property
    def reads_collected(self) -> bool:
        """Whether any of the reward models learns from comparisons that the run itself collects."""
        return COLLECTED in self.sources

    @property
    def sources(self) -> list[str]:
        """Every source of comparisons that a reward model is to learn from, each once."""
        sections = [self.of(name) for name in self.models]
        given = [section.data for section in sections]
        for section in sections:
            for source in section.mix:
                if source.data is not None:
                    given.append(source.data)
                elif section.data is None or source.dimension in self.models:
                    given.append(self.of(source.dimension).data)
                else:  # a dimension that has no reward model gives what the recipe names for it, if anything
                    given.append(self.of(source.dimension).data or [])
        return list(dict.fromkeys(name for data in given for name in source_names(data)))
