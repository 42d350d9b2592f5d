"""The recipe: everything about one experiment, section by section.

Numbers of the paper (Touvron et al. 2023) are the defaults for real models, each with its section;
``configs/toy.yaml`` sets what a two-million-parameter model needs instead. How a recipe is read is in
``alignment.settings.read_recipe``.
"""

from __future__ import annotations

import os
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, PrivateAttr

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


class RecipeOrigin(NamedTuple):
    """Where a recipe's settings are from."""

    recipe: str | None = None
    """The file that it was made from."""
    sha256: str | None = None
    """What that file held."""
    given: tuple[str, ...] = ()
    """Dotted keys that somebody gave on a command line."""
    written: tuple[str, ...] = ()
    """Dotted keys that stand in a recipe of somebody's own; none, if the file comes with Tandem."""


class Recipe(Section):
    """Everything about one experiment."""

    _origin: RecipeOrigin = PrivateAttr(default=RecipeOrigin())

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

    @property
    def origin(self) -> RecipeOrigin:
        """Where the settings are from; nothing is known of a recipe that was made in code."""
        return self._origin

    def is_typed(self, key: str) -> bool:
        """Whether somebody gave a setting, or a section that holds it: on a command line, or in a recipe of their own.

        All of a recipe that was made in code was given there.

        Args:
            key: dotted.
        """
        if self.origin.recipe is None:
            return True
        parts = key.split(".")
        names = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
        return not names.isdisjoint((*self.origin.given, *self.origin.written))

    def with_origin(self, origin: RecipeOrigin) -> Recipe:
        """The same settings, from somewhere else."""
        copy = self.model_copy()
        copy._origin = origin
        return copy
