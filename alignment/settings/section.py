"""What all sections of the recipe are made of: the frozen base class, number ranges, and checks of batch sizes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
