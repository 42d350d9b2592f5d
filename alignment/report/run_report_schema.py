"""What ``report.json`` holds: one frozen pydantic model a block, and a key nobody documented is an error.

``docs/report.md`` says what each key means. A stage or policy that was not run has no entry; a figure that
could not be measured (no judge for this data, no reward model for this dimension) is ``null``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat, ValidationError, model_validator

from alignment.data.records import Dimension, Message, explain
from alignment.report.blocks_and_reward_schema import (
    Block,
    CountValue,
    FigureBlock,
    GradedFigures,
    Histogram,
    Measured,
    RewardFigures,
    ShareValue,
)

PolicyName = Literal["base", "sft", "rejection", "ppo"]
POLICIES: tuple[PolicyName, ...] = ("base", "sft", "rejection", "ppo")
"""The policies of a run in the order in which they are made."""


POLICY_LABELS = {"base": "Base", "sft": "SFT", "rejection": "Rejection", "ppo": "PPO"}


class Timings(Block):
    """Wall-clock seconds of each stage; ``null`` where the stage was not run."""

    base: float | None = None
    sft: float | None = None
    annotate: float | None = None
    reward: float | None = None
    rejection: float | None = None
    ppo: float | None = None
    evaluate: float | None = None
    total: float


class StageMemory(Block):
    """The most memory that each stage took in any round, in GiB; ``null`` where it was not run or not measured."""

    base: float | None = None
    sft: float | None = None
    annotate: float | None = None
    reward: float | None = None
    rejection: float | None = None
    ppo: float | None = None
    evaluate: float | None = None


class Environment(Block):
    """Where the run took place."""

    versions: dict[str, str]
    commit: str | None
    device: str
    dtype: str


class RewardModelBlock(RewardFigures):
    """One reward model of a run: its figures, and what it was made from."""

    ceiling: GradedFigures | None = None
    n_train: CountValue
    calibration: dict[str, Any] | None = None


class PolicyFigures(Block):
    """The figures of one policy on one set of prompts."""

    n_prompts: CountValue
    helpfulness: Measured = None
    helpfulness_all: Measured = None
    violation_rate: Measured = None
    false_refusal_rate: Measured = None
    kl_to_sft_nats: Measured = None
    mean_length_tokens: Measured = None
    stop_rate: Measured = None
    reward_helpfulness: Measured = None
    reward_safety: Measured = None


class SftDifferences(Block):
    """A policy's figures less those of SFT, answer by answer to the same prompts."""

    helpfulness: Measured = None
    violation_rate: Measured = None
    false_refusal_rate: Measured = None
    mean_length_tokens: Measured = None
    reward_helpfulness: Measured = None
    reward_safety: Measured = None


class PolicyBlock(PolicyFigures):
    """The figures of one policy on all held-out prompts, less those of SFT, and broken down."""

    less_sft: SftDifferences = SftDifferences()
    by_group: dict[str, PolicyFigures] = Field({})
    by_kind: dict[str, PolicyFigures] = Field({})


class WinRateBlock(Block):
    """One policy against another on the same prompts, decided by one judge."""

    policy: PolicyName
    against: PolicyName
    judge: str
    prompts: str = "all"
    win: ShareValue
    tie: ShareValue
    loss: ShareValue
    win_rate: ShareValue
    ci95: tuple[ShareValue, ShareValue]
    n: CountValue

    @model_validator(mode="after")
    def _adds_up(self) -> WinRateBlock:
        if abs(self.win + self.tie + self.loss - 1) > 1e-6:
            raise ValueError(f"win + tie + loss is {self.win + self.tie + self.loss}, not 1")
        if abs(self.win + self.tie / 2 - self.win_rate) > 1e-6:
            raise ValueError(f"win_rate is {self.win_rate}, not win + tie / 2 = {self.win + self.tie / 2}")
        return self


Ends = tuple[FiniteFloat, FiniteFloat]
"""Of a 95 % interval."""


class CurvePoint(Block):
    """One PPO update; training figures from the first one on, held-out ones where the policy was judged at it."""

    update: CountValue
    reward: FiniteFloat | None = None
    kl_nats: FiniteFloat | None = None
    length_tokens: FiniteFloat | None = None
    stop_rate: ShareValue | None = None
    beta: FiniteFloat | None = None
    disagreement: FiniteFloat | None = None
    heldout_reward: FiniteFloat | None = None
    heldout_guard: FiniteFloat | None = None
    heldout_kl_nats: FiniteFloat | None = None
    gold_helpfulness: FiniteFloat | None = None
    heldout_reward_ci95: Ends | None = None
    heldout_guard_ci95: Ends | None = None
    heldout_kl_ci95: Ends | None = None
    gold_helpfulness_ci95: Ends | None = None


class PartingBlock(Block):
    """What reward and judge did from the judge's best snapshot to the last one."""

    judge: str
    best_update: CountValue
    last_update: CountValue
    reward_change: FigureBlock
    judge_change: FigureBlock
    is_overoptimization: bool


class Curves(Block):
    """Training curves of the last round."""

    ppo: list[CurvePoint] = Field([])
    parting: PartingBlock | None = None
    notes: list[str] = Field([])


class AnswerBlock(Block):
    """One answer with its verdicts and raw reward scores."""

    text: str
    helpfulness: FiniteFloat | None = None
    unsafe: bool | None = None
    refusal: bool | None = None
    reward_helpfulness: FiniteFloat | None = None
    reward_safety: FiniteFloat | None = None


class SampleBlock(Block):
    """One held-out prompt with the answers of several policies."""

    prompt_id: str
    messages: list[Message]
    kind: str
    group: str | None = None
    answers: dict[PolicyName, AnswerBlock]


class RecipeBlock(Block):
    """The recipe of the run: the file that it was made from, and what was typed beside it."""

    name: str | None
    sha256: str | None
    typed: dict[str, str]


class DataFileBlock(Block):
    """A file or folder outside the run, and what it held."""

    name: str
    hash: str


class StageDataBlock(Block):
    """What one stage was made from, what of it was used, and what was left out by reason."""

    stage: str
    files: list[DataFileBlock]
    used: dict[str, CountValue]
    left_out: dict[str, CountValue]


class PaidByBlock(Block):
    """The reward models by which a policy was trained; none for a dimension that did not count."""

    helpfulness: list[str]
    safety: list[str]


def _inside(path: str) -> str:
    """A place in the run folder, as it stands; ``ValueError`` for any other address."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", path) or ".." in path.split("/"):
        raise ValueError(f"{path!r} is no place in the run folder")
    return path


class LinkBlock(Block):
    """A file of the run, by its place beside the page."""

    title: str
    path: Annotated[str, AfterValidator(_inside)]


class RunReport(Block):
    """The whole of ``report.json``."""

    schema_version: Literal[1] = 1
    name: str
    seed: int
    rounds: Annotated[int, Field(ge=1)] = 1
    judge: str | None
    command: str
    recipe: RecipeBlock | None = None
    data: list[StageDataBlock] = Field([])
    paid_by: dict[PolicyName, PaidByBlock] | None = None
    links: list[LinkBlock] = Field([])
    timings_s: Timings
    peak_memory_gib: float | None = None
    memory_gib: StageMemory = StageMemory()
    gpu_memory_gib: StageMemory = StageMemory()
    environment: Environment
    reward_models: dict[Dimension, RewardModelBlock] = Field({})
    policies: dict[PolicyName, PolicyBlock]
    win_rates: list[WinRateBlock] = Field([])
    curves: Curves = Curves()  # type: ignore[call-arg]  # its fields have defaults, which mypy does not see
    samples: list[SampleBlock] = Field([])
    score_histograms: dict[Dimension, dict[PolicyName, Histogram]] = Field({})


def validate_report(report: dict[str, Any]) -> RunReport:
    """The report as typed blocks; ``ValueError`` names every key that is missing, unknown or out of range."""
    try:
        return RunReport.model_validate(report)
    except ValidationError as error:
        raise ValueError(f"report.json would not be as documented (docs/report.md): {explain(error)}") from error
