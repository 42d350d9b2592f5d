"""The checks of a recipe before a run: one function each on a ``Subject``, in the table ``CHECKS``.

A check returns a ``Verdict``, or raises ``UserError``, which is a problem as well; one that fails stops no other. What
has not been made yet, or rests on what has failed, is skipped. Nothing is trained, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from alignment.errors import UserError
from stages.doctor.check_subject import NotYet, Subject, Verdict
from stages.doctor.data_checks import (
    batches_fit,
    comparisons_parse,
    demonstrations_have_room,
    demonstrations_parse,
    heldout_parse,
    nothing_overlaps,
    prompts_have_room,
    prompts_parse,
)
from stages.doctor.model_checks import (
    adapters_fit,
    model_runs,
    reward_model_scores,
    special_tokens_fit,
    template_fits,
    vocabulary_fits,
)

CHECKS: dict[str, Callable[[Subject], Verdict]] = {
    "model": model_runs,
    "vocabulary": vocabulary_fits,
    "chat template": template_fits,
    "special tokens": special_tokens_fit,
    "adapters": adapters_fit,
    "prompts": prompts_parse,
    "held-out prompts": heldout_parse,
    "demonstrations": demonstrations_parse,
    "comparisons": comparisons_parse,
    "overlap": nothing_overlaps,
    "batches": batches_fit,
    "room for answers": prompts_have_room,
    "room for demonstrations": demonstrations_have_room,
    "helpfulness model": partial(reward_model_scores, dimension="helpfulness"),
    "safety model": partial(reward_model_scores, dimension="safety"),
}
"""Name of a check, as it is printed, and its function; in this order, since later ones rest on earlier ones."""


def check_recipe(subject: Subject) -> Iterator[tuple[str, Verdict]]:
    """Name and verdict of every check, each as soon as it is done."""
    for name, check in CHECKS.items():
        yield name, _verdict(check, subject)


def _verdict(check: Callable[[Subject], Verdict], subject: Subject) -> Verdict:
    try:
        return check(subject)
    except NotYet as reason:
        return Verdict("skipped", str(reason))
    except UserError as error:
        return Verdict("problem", str(error))
    except Exception as error:  # whatever a library raises must not stop the other checks
        return Verdict("problem", f"{type(error).__name__}: {error}".strip().splitlines()[0])
