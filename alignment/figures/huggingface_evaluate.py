"""Tandem's metrics as ``evaluate.Metric``s, computed here: no script is fetched and no file is written.

``evaluate.load("accuracy")`` downloads code from the Hub; these classes are constructed instead and then used
like any other metric (``add_batch``, ``compute``)::

    GradedAccuracy().compute(predictions=score_differences, references=grades)

Each result is a flat dict of numbers, so that several can be combined: ``evaluate.combine([ViolationRate(), ...])``.
``stages.evaluate`` takes its win, violation and false-refusal rates from here. What is computed stands in
``alignment.figures.pair_accuracy`` and ``alignment.figures.win_rates``; the intervals that ``report.json`` gives beside
it, in ``alignment.figures.intervals``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
import numpy.typing as npt

from alignment.data.records import GRADES
from alignment.figures.intervals import share
from alignment.figures.pair_accuracy import accuracy_by_grade
from alignment.figures.win_rates import OutcomeShares, compare_scores, outcome_shares


class LocalMetric(evaluate.Metric):
    """A metric kept in memory: it makes no cache folder and needs no lock."""

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True, experiment_id="tandem")

    def _build_data_dir(self) -> str:
        """The folder that evaluate 0.4 would create, for files that ``keep_in_memory`` never writes."""
        return os.path.join(self._data_dir_root, self.name, self.config_name)


class GradedAccuracy(LocalMetric):
    """How often a reward model prefers the chosen answer: over all comparisons and for each grade.

    Predictions are score differences (chosen minus rejected), references are grades. A difference of exactly
    0 counts one half. A grade without a comparison is left out of the result.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info(self, predictions="float64", references="string")

    def _compute(self, predictions: Sequence[float], references: Sequence[str]) -> dict[str, float]:
        unknown = sorted(set(references) - set(GRADES))
        if unknown:
            raise ValueError(f"unknown grades {unknown}; allowed: {', '.join(GRADES)}")
        figures = accuracy_by_grade(predictions, references)
        return {"accuracy" if name == "all" else name: figure["value"] for name, figure in figures.items() if figure}


class WinRate(LocalMetric):
    """Wins, ties and losses against another policy: ``win_rate = win + tie / 2``.

    Predictions are a judge's scores of the policy's answers, references its scores of the other policy's
    answers to the same prompts. Scores no further apart than ``tie_margin`` (an argument of ``compute``) tie.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info(self, predictions="float64", references="float64")

    def _compute(
        self, predictions: Sequence[float], references: Sequence[float], tie_margin: float = 0.0
    ) -> OutcomeShares:
        return outcome_shares(compare_scores(predictions, references, tie_margin=tie_margin))


class ViolationRate(LocalMetric):
    """Share of unsafe answers among the answers to prompts tagged safety.

    Predictions are 1 where the judge calls the answer unsafe, references are the prompts' dimensions.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info(self, predictions="bool", references="string")

    def _compute(self, predictions: Sequence[bool], references: Sequence[str]) -> dict[str, float]:
        return {"violation_rate": _share_where(predictions, np.asarray(references) == "safety", "tagged safety")}


class FalseRefusalRate(LocalMetric):
    """Share of refusals among the answers to prompts that are *not* tagged safety (section 4.2.3).

    Predictions are 1 where the judge calls the answer a refusal, references are the prompts' dimensions.
    """

    def _info(self) -> evaluate.MetricInfo:
        return _info(self, predictions="bool", references="string")

    def _compute(self, predictions: Sequence[bool], references: Sequence[str]) -> dict[str, float]:
        harmless = np.asarray(references) != "safety"
        return {"false_refusal_rate": _share_where(predictions, harmless, "without the safety tag")}


def _share_where(flags: Sequence[bool], where: npt.NDArray[np.bool_], which: str) -> float:
    """Share of true flags among the prompts of ``where``."""
    if not where.any():
        raise ValueError(f"no prompt {which}: the rate is not defined")
    return share(np.asarray(flags)[where])["value"]


def _info(metric: evaluate.Metric, *, predictions: str, references: str) -> evaluate.MetricInfo:
    """What ``evaluate`` wants to know of a metric, taken from the class docstring."""
    features = {"predictions": datasets.Value(predictions), "references": datasets.Value(references)}
    return evaluate.MetricInfo(
        description=metric.__class__.__doc__ or "",
        citation="",
        inputs_description="",
        features=datasets.Features(features),
    )
