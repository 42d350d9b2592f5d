"""The blocks that all reports are made of: figures with intervals, by grade, histograms; unknown keys refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Block(BaseModel):
    """Base of all blocks: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FigureBlock(Block):
    """One number with its 95 % interval and the number of values behind it."""

    value: FiniteFloat
    ci95: tuple[FiniteFloat, FiniteFloat]
    n: Count


Measured = FigureBlock | None


class GradedFigures(Block):
    """A figure over all comparisons and for each grade."""

    all: Measured
    significantly_better: Measured = None
    better: Measured = None
    slightly_better: Measured = None
    negligibly_better: Measured = None


class Histogram(Block):
    """Counts of raw reward scores between consecutive edges."""

    edges: list[FiniteFloat]
    counts: list[Count]

    @model_validator(mode="after")
    def _fits(self) -> Histogram:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"{len(self.counts)} counts need {len(self.counts) + 1} edges, got {len(self.edges)}")
        return self
