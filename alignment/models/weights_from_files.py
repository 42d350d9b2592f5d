"""A model's weights as its files have them: what is missing, of another shape, cut off or no number is an error.

Transformers puts random numbers where a file has none, and says so in a table that scrolls by.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from alignment.errors import UserError
from alignment.models.model_places import why_not

SHOWN = 3
"""So many names stand in a message."""


class Loaded(NamedTuple):
    """A model, and how its files differ from it."""

    model: PreTrainedModel
    missing: list[str]
    """Weights that the files lack, so that they are random."""
    unexpected: list[str]
    """Weights in the files that the model has no use for."""


def load_weights(auto_class: Any, path: str, *, what: str, origin: str, **options: Any) -> Loaded:
    """Load a model, and look at what was loaded.

    Args:
        auto_class: of Transformers, such as ``AutoModelForCausalLM``.
        path: a folder, or a name on the Hub.
        what: the kind of model, for messages.
        origin: what names the path, for messages, such as ``model.name_or_path=x``.
        **options: passed on to ``from_pretrained``.

    Raises:
        UserError: nothing of the kind is at ``path``; a weight is of another shape, cut off, or not finite.
    """
    try:
        with _without_table():
            model, report = auto_class.from_pretrained(
                path, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except torch.OutOfMemoryError:
        raise
    except SafetensorError as error:
        raise UserError(f"{origin}: its weights are cut off or damaged ({error}). Fetch them again.") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{origin}: no {what} there ({why_not(path, error)})") from error
    shapes = [f"{name} {tuple(file)} instead of {tuple(wanted)}" for name, file, wanted in report["mismatched_keys"]]
    if shapes:
        raise UserError(f"{origin}: weights of another shape than config.json says: {some(sorted(shapes))}")
    check_numbers(model, origin)
    return Loaded(model, sorted(report["missing_keys"]), sorted(report["unexpected_keys"]))


def read_weights(file: Path) -> dict[str, Tensor]:
    """The weights in a file by name; raise ``UserError`` where it is cut off or damaged."""
    try:
        found: dict[str, Tensor] = load_file(str(file))
        return found
    except SafetensorError as error:
        raise UserError(f"{file} is cut off or damaged ({error}). Fetch or make it again.") from error


def check_complete(loaded: Loaded, origin: str) -> None:
    """Raise ``UserError`` where the files lack a weight of the model, tied ones aside."""
    if not loaded.missing:
        return
    if len(loaded.missing) == len(list(loaded.model.parameters())) and loaded.unexpected:
        raise UserError(
            f"{origin}: its files hold no weight of a {type(loaded.model).__name__}, which config.json says it is, but "
            f"{some(loaded.unexpected)}"
        )
    raise UserError(
        f"{origin}: its files lack {len(loaded.missing)} weights of a {type(loaded.model).__name__}: "
        f"{some(loaded.missing)}. Fetch them again, or see that config.json is theirs."
    )


def check_numbers(model: nn.Module, origin: str) -> None:
    """Raise ``UserError`` where a weight is not a finite number."""
    floats = ((name, weight) for name, weight in model.named_parameters() if weight.is_floating_point())
    broken = [name for name, weight in floats if not torch.isfinite(weight).all()]
    if broken:
        raise UserError(f"{origin}: weights that are not finite numbers: {some(broken)}")


def some(names: Collection[str]) -> str:
    """A few names, and how many more there are."""
    shown = ", ".join(list(names)[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


@contextmanager
def _without_table() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
