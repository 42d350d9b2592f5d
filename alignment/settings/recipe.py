"""The recipe: everything about one experiment, section by section.

Numbers of the paper (Touvron et al. 2023) are the defaults for real models, each with its section;
``configs/toy.yaml`` sets what a two-million-parameter model needs instead. How a recipe is read is in
``alignment.settings.read_recipe``.
"""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import AfterValidator, Field

from alignment.settings.ppo_sections import PPOSection, RejectionSection
from alignment.settings.reward_sections import RewardSection
from alignment.settings.sections import (
    AnnotateSection,
    BaseSection,
    Count,
    DataSection,
    EvaluateSection,
    ExportSection,
    ModelSection,
    Positive,
    Section,
    SFTSection,
)


class Recipe(Section):
    """Everything about one experiment."""

    run_dir: Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)] = Field(
        description="folder of this experiment"
    )
    seed: Count = Field(0, description="of every random choice")
    rounds: Positive = Field(1, description="annotate, reward and ppo, this many times")
    overwrite: bool = Field(False, description="run a finished stage again")
    plugins: list[str] = Field([], description="Python files of yours that register reward heads, losses or gates")
    model: ModelSection
    data: DataSection
    base: BaseSection = BaseSection()  # type: ignore[call-arg]
    sft: SFTSection
    annotate: AnnotateSection = AnnotateSection()  # type: ignore[call-arg]
    reward: RewardSection = RewardSection()  # type: ignore[call-arg]
    rejection: RejectionSection = RejectionSection()  # type: ignore[call-arg]
    ppo: PPOSection = PPOSection()  # type: ignore[call-arg]
    evaluate: EvaluateSection = EvaluateSection()  # type: ignore[call-arg]
    export: ExportSection = ExportSection()  # type: ignore[call-arg]
