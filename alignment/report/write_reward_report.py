"""Write ``reward_models.json`` and ``reward_models.html``: reward models side by side on sets of comparisons."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from markupsafe import Markup

from alignment.data.records import GRADES
from alignment.report import reward_plots
from alignment.report.blocks_and_reward_schema import RewardEvaluation, RewardFigures, validate_evaluation
from alignment.report.page_files import render, write_both

SAFETY_BINS = {
    "preferred_safe_other_unsafe": "Safe over unsafe",
    "both_safe": "Both safe",
    "both_unsafe": "Both unsafe",
    "preferred_unsafe_other_safe": "Unsafe over safe",
}
"""Safety bin -> heading of its column."""
ModelOnSet = tuple[str, str, RewardFigures]
"""Model, set of comparisons, figures."""


def write_reward_report(evaluation: dict[str, Any], folder: str | os.PathLike[str]) -> Path:
    """Validate an evaluation and write ``reward_models.json`` and ``reward_models.html``, each whole or not at all.

    Args:
        evaluation: as in ``docs/report.md``.
        folder: where to; made if missing.

    Returns:
        The path of ``reward_models.html``.

    Raises:
        ValueError: the evaluation is not as documented; names every wrong key. Nothing is written then.
    """
    checked = validate_evaluation(evaluation)
    return write_both(Path(folder), "reward_models", checked, render_reward_page(checked))


def render_reward_page(evaluation: RewardEvaluation) -> str:
    """The page as one HTML document; equal evaluations give equal bytes."""
    rows = [(model, name, figures) for model, found in evaluation.figures.items() for name, figures in found.items()]
    return render(
        "page.rewards.html.j2",
        evaluation=evaluation,
        headline=headline(evaluation),
        colours=dict(zip(evaluation.models, _colours(evaluation), strict=True)),
        grades=[(grade, grade.replace("_", " ").capitalize()) for grade in GRADES],
        rows=rows,
        breakdowns=breakdowns(rows),
        with_reliability=[row for row in rows if row[2].reliability],
        with_length=[row for row in rows if row[2].length],
        with_labels=[row for row in rows if row[2].unsafe_detection],
        with_scores=any(row[2].score_histograms for row in rows),
        plots={name: Markup(svg) for name, svg in draw_reward_plots(evaluation).items()},
    )


def headline(evaluation: RewardEvaluation) -> str:
    """How many models on how many sets."""
    models, sets = len(evaluation.models), len(evaluation.test_sets)
    return f"{models} reward model{'s'[: models > 1]} on {sets} set{'s'[: sets > 1]} of comparisons"


def draw_reward_plots(evaluation: RewardEvaluation) -> dict[str, str]:
    """Every plot that there is data for, by kind, model's and test set's number."""
    drawn: dict[str, str | None] = {}
    names, colours = list(evaluation.test_sets), _colours(evaluation)
    for place, name in enumerate(names):
        accuracies = {model: found[name].accuracy for model, found in evaluation.figures.items() if name in found}
        drawn[f"grades_{place}"] = reward_plots.accuracy_by_grade(accuracies, colours=colours, salt=f"grades-{place}")
    for (number, (_, found)), (place, name) in product(enumerate(evaluation.figures.items()), enumerate(names)):
        figures, key = found[name], f"{number}_{place}"
        if figures.reliability:
            drawn[f"reliability_{key}"] = reward_plots.reliability(
                figures.reliability, colour=colours[number], salt=f"reliability-{key}"
            )
        if figures.unsafe_detection:
            drawn[f"detection_{key}"] = reward_plots.detection(figures.unsafe_detection, salt=f"detection-{key}")
        drawn[f"scores_{key}"] = reward_plots.chosen_and_rejected(
            {str(part): histogram for part, histogram in figures.score_histograms.items()}, salt=f"scores-{key}"
        )
    return {name: svg for name, svg in drawn.items() if svg is not None}


def _colours(evaluation: RewardEvaluation) -> list[str]:
    return [reward_plots.CYCLE[number % len(reward_plots.CYCLE)] for number in range(len(evaluation.models))]


def breakdowns(rows: Sequence[ModelOnSet]) -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    """Title, explanation, key in the figures, and columns (part, heading) of each breakdown that tells parts apart."""
    bins = [name for name in SAFETY_BINS if name in _parts(rows, "accuracy_by_safety_bin")]
    turns, dimensions = _parts(rows, "accuracy_by_turn"), _parts(rows, "accuracy_by_dimension")
    found = []
    if bins:
        note = "As in table 29: which of the two answers is safe, the chosen one named first."
        found.append(("By safety", note, "accuracy_by_safety_bin", [(name, SAFETY_BINS[name]) for name in bins]))
    if len(turns) > 1:
        columns = [(part, f"{part} turn{'s'[: part != '1']}") for part in turns]
        found.append(("By length of the dialogue", "Number of user turns in the prompt.", "accuracy_by_turn", columns))
    if any(len([part for part in row[2].accuracy_by_dimension.values() if part]) > 1 for row in rows):
        columns = [(part, part.capitalize()) for part in dimensions]
        found.append(("By dimension", "What people were asked to compare by.", "accuracy_by_dimension", columns))
    return found


def _parts(rows: Sequence[ModelOnSet], key: str) -> list[str]:
    """The parts that any model was measured on; numbers by size."""
    found = {part for _, _, figures in rows for part, measured in getattr(figures, key).items() if measured}
    return sorted(found, key=lambda part: (len(part), part))
