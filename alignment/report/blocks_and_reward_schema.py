"""What is reported of reward models, ``reward_models.json``, and the blocks that all reports are made of.

``docs/report.md`` says what each key means. Every block is immutable and refuses unknown keys. What a set of
comparisons cannot tell (no grades, no safety labels) is ``null`` or empty.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from alignment.data.records import Dimension, SafetyBin, explain

ShareValue = Annotated[float, Field(ge=0, le=1)]
CountValue = Annotated[int, Field(ge=0)]


class Block(BaseModel):
    """Base of all blocks: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FigureBlock(Block):
    """One number with its 95 % interval and the number of values behind it."""

    value: FiniteFloat
    ci95: tuple[FiniteFloat, FiniteFloat]
    n: CountValue


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
    counts: list[CountValue]

    @model_validator(mode="after")
    def _fits(self) -> Histogram:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"{len(self.counts)} counts need {len(self.counts) + 1} edges, got {len(self.edges)}")
        return self


class LengthBlock(Block):
    """Accuracy where the chosen answer is the longer one, and where it is not."""

    share_chosen_longer: Measured
    chosen_longer: Measured
    chosen_shorter: Measured
    same_length: Measured
    balanced: Measured


class ReliabilityBin(Block):
    """The judgments of which the model is about equally sure."""

    low: ShareValue
    high: ShareValue
    confidence: ShareValue | None
    accuracy: Measured


class ReliabilityBlock(Block):
    """Calibration of the preference probability."""

    mean_confidence: Measured
    ece: Measured
    ece_if_calibrated: Measured
    brier: Measured
    log_loss: Measured
    by_confidence: list[ReliabilityBin]


class ThresholdBlock(Block):
    """Flagging unsafe answers by one threshold."""

    probability: ShareValue
    logit: FiniteFloat
    precision: Measured
    recall: Measured


class ThresholdCurve(Block):
    """Precision and recall over thresholds; ``null`` precision where nothing is flagged."""

    logit: list[FiniteFloat]
    precision: list[ShareValue | None]
    recall: list[ShareValue]

    @model_validator(mode="after")
    def _fits(self) -> ThresholdCurve:
        if not len(self.logit) == len(self.precision) == len(self.recall):
            raise ValueError("a curve needs as many precisions and recalls as thresholds")
        return self


class DetectionBlock(Block):
    """Flagging unsafe answers by their score."""

    base_rate: Measured
    at_half: ThresholdBlock
    at_gate: ThresholdBlock
    at_paper_precision: ThresholdBlock | None
    curve: ThresholdCurve | None


class RewardFigures(Block):
    """One reward model against the annotators' choices in held-out comparisons."""

    accuracy: GradedFigures
    trend_p_value: ShareValue | None = None
    length_correlation: Measured = None
    n_conversations: CountValue | None = None
    accuracy_by_turn: dict[str, Measured] = Field({})
    accuracy_by_dimension: dict[Dimension, Measured] = Field({})
    accuracy_by_safety_bin: dict[SafetyBin, Measured] = Field({})
    length: LengthBlock | None = None
    reliability: ReliabilityBlock | None = None
    unsafe_detection: DetectionBlock | None = None
    score_histograms: dict[Literal["chosen", "rejected"], Histogram] = Field({})


class ComparisonSetBlock(Block):
    """Comparisons that models were evaluated on, and what was left out of them, by reason."""

    source: str
    n: CountValue
    left_out: dict[str, CountValue]


class OverallRow(Block):
    """A row of table 7: one model on every test set."""

    model: str
    accuracy: dict[str, Measured]


class GradesRow(GradedFigures):
    """A row of table 8: one model on one test set, by grade."""

    model: str
    test_set: str


class CrossTables(Block):
    """Tables 7 and 8 of Llama 2."""

    overall: list[OverallRow]
    by_grade: list[GradesRow]


class AgreementBlock(Block):
    """How alike two models judge the same pairs."""

    test_set: str
    first: str
    second: str
    same_preference: Measured
    rank_correlation: Measured


class RewardEvaluation(Block):
    """The whole of ``reward_models.json``."""

    schema_version: Literal[1] = 1
    seed: int
    threshold_probability: ShareValue
    models: dict[str, str]
    test_sets: dict[str, ComparisonSetBlock]
    figures: dict[str, dict[str, RewardFigures]]
    tables: CrossTables
    agreement: list[AgreementBlock] = Field([])


def validate_evaluation(evaluation: dict[str, Any]) -> RewardEvaluation:
    """The evaluation as typed blocks; ``ValueError`` names every key that is missing, unknown or out of range."""
    try:
        return RewardEvaluation.model_validate(evaluation)
    except ValidationError as error:
        raise ValueError(f"reward_models.json would not be as documented (docs/report.md): {explain(error)}") from error
