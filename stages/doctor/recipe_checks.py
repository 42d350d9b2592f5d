"""The checks of a recipe before a run: one function each on a ``Subject``, in the table ``CHECKS``.

A check returns a ``CheckResult``, or raises ``UserError``, which is a problem as well; one that fails stops no other.
What has not been made yet, or rests on what has failed, is skipped. Nothing is trained, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from alignment.errors import UserError
from alignment.settings.recipe import Recipe
from stages.doctor.check_subject import CheckResult, NotYet, Subject
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
from stages.doctor.output import STYLES, counted, print_line

CHECKS: dict[str, Callable[[Subject], CheckResult]] = {
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


def run(recipe: Recipe) -> dict[str, CheckResult]:
    """Check a recipe before a run, a line for each check; returns every result."""
    results: dict[str, CheckResult] = {}
    for name, result in check_recipe(Subject(recipe)):
        results[name] = result
        print_line(f"{result.status:<8}", f"{name}: {result.what}", style=STYLES[result.status])
        if result.what_to_do:
            print_line(" " * 8, result.what_to_do)
    counts = {status: sum(v.status == status for v in results.values()) for status in ("problem", "warning")}
    found = " and ".join(counted(count, status) for status, count in counts.items())
    print_line(f"{found} in {len(results)} checks")
    return results


def recipe_is_healthy(recipe: Recipe) -> bool:
    """Check a recipe; returns whether it has no problem."""
    return all(result.status != "problem" for result in run(recipe).values())


def check_recipe(subject: Subject) -> Iterator[tuple[str, CheckResult]]:
    """Name and result of every check, each as soon as it is done."""
    for name, check in CHECKS.items():
        yield name, _result(check, subject)


def _result(check: Callable[[Subject], CheckResult], subject: Subject) -> CheckResult:
    try:
        return check(subject)
    except NotYet as reason:
        return CheckResult("skipped", str(reason))
    except UserError as error:
        return CheckResult("problem", str(error))
    except Exception as error:  # whatever a library raises must not stop the other checks
        return CheckResult("problem", f"{type(error).__name__}: {error}".strip().splitlines()[0])
