"""The prompts that a recipe names: for training, checked against the held-out ones, and held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from alignment.data.jsonl import ReadReport
from alignment.data.readers import load_prompts
from alignment.data.records import Message, Prompt
from alignment.data.splits import check_no_overlap
from alignment.errors import UserError
from alignment.resources import resolve
from alignment.settings.model_sections import DataSection


def heldout_prompts(data: DataSection) -> tuple[list[Prompt], ReadReport]:
    """The held-out prompts and what was left out of them; empty where the recipe names none."""
    if data.heldout_prompts is None:
        return [], ReadReport(path="")
    return _prompts(data, data.heldout_prompts)


def training_prompts(data: DataSection) -> tuple[list[Prompt], ReadReport]:
    """The training prompts, checked against the held-out ones, and what was left out of them."""
    prompts, report = _prompts(data, data.prompts)
    check_against_heldout(data, (prompt.messages for prompt in prompts), name=data.prompts)
    return prompts, report


def check_against_heldout(data: DataSection, dialogues: Iterable[Sequence[Message]], *, name: str) -> None:
    """Raise ``UserError`` if one of the held-out prompts is among these prompts, which are to be trained on."""
    check_no_overlap(
        dialogues,
        (prompt.messages for prompt in heldout_prompts(data)[0]),
        train_name=name,
        heldout_name=str(data.heldout_prompts),
    )


def _prompts(data: DataSection, path: str) -> tuple[list[Prompt], ReadReport]:
    prompts, report = load_prompts(str(resolve(path)), on_error=data.on_error)
    counts = Counter(prompt.id for prompt in prompts)
    identifier, count = counts.most_common(1)[0]
    if count > 1:
        raise UserError(f"{path}: {count} prompts have the id {identifier!r}. Give each prompt an id of its own.")
    return prompts, report
