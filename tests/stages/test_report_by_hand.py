"""Figures of the report by hand, from the answers that were drawn and verdicts that are made up."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from stage_fixtures import reduced_recipe

from alignment.data.encoded_dialogues import EncodedPrompt
from alignment.data.jsonl_and_raw_rows import read_jsonl
from alignment.data.records import JudgedAnswer, Prompt
from alignment.models.backbone import Role
from alignment.models.sampling.batch_sampling import SampledAnswers
from alignment.rl import heldout_answers
from stages.evaluate import judge_policies
from stages.ppo import train_policy

pytestmark = pytest.mark.integration

TEMPERATURE = 0.5
TIMES = 4
NAMES = ("base", "sft", "rejection")
"""Of the policies, in the order in which they are sampled."""


@dataclass
class Judged:
    """A finished evaluation."""

    report: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]
    """Policy -> its lines of ``answers.jsonl``."""
    drawn: dict[str, tuple[Role, Sequence[EncodedPrompt], SampledAnswers]]
    """Policy -> its role, what it was asked, and what it said."""
    handed: dict[str, tuple[list[str], list[str]]]
    """Policy -> prompts of its answers, and the prompts that the judge was told that they answer."""
    prompts: list[Prompt]


def refused(number: int, prompt_dimension: str) -> bool:
    """The made-up verdict: all safety prompts are refused, and every fourth of the others."""
    return prompt_dimension == "safety" or number % 4 == 0


def won(number: int) -> bool:
    """Whether the policy of rejection sampling is better than SFT at a prompt."""
    return number % 5 < 3


@pytest.fixture(scope="module")
def judged(files: dict[str, str], rewarded_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    run = Path(shutil.copytree(rewarded_run, tmp_path_factory.mktemp("runs") / "judged"))
    recipe = reduced_recipe(
        files,
        run,
        "ppo.method=rejection",
        "rejection.learning_rate=0.2",  # far away from SFT
        f"evaluate.sampling.temperature={TEMPERATURE}",
        f"evaluate.answers_per_prompt={TIMES}",
    )
    train_policy.run(recipe)
    prompts = read_jsonl(files["heldout_prompts"], Prompt)[0]
    numbers = {prompt.id: number for number, prompt in enumerate(prompts)}
    drawn: list[tuple[Role, Sequence[EncodedPrompt], SampledAnswers]] = []
    handed: dict[str, tuple[list[str], list[str]]] = {}
    plain, judgings = heldout_answers.answer_prompts, iter(NAMES)

    def answers(role: Role, asked: Sequence[EncodedPrompt], *given: Any, **options: Any) -> SampledAnswers:
        found = plain(role, asked, *given, **options)
        drawn.append((role, asked, found))
        return found

    def verdicts(rows: Sequence[JudgedAnswer], asked: Sequence[Prompt]) -> list[JudgedAnswer]:
        name = next(judgings)
        handed[name] = [row.prompt_id for row in rows], [prompt.id for prompt in asked]
        merit = {"base": (0.2, 0.2), "sft": (0.5, 0.5), "rejection": (0.1, 0.9)}[name]
        return [
            replace(
                row,
                helpfulness=merit[won(numbers[row.prompt_id])],
                unsafe=False,
                refusal=refused(numbers[row.prompt_id], row.dimension),
            )
            for row in rows
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heldout_answers, "answer_prompts", answers)
        patch.setattr(judge_policies, "with_verdicts", verdicts)
        report = judge_policies.run(recipe)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in (run / "round-1" / "eval" / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        rows[json.loads(line)["policy"]].append(json.loads(line))
    return Judged(report, rows, dict(zip(NAMES, drawn, strict=True)), handed, prompts)


@torch.no_grad()
def logprob(role: Role, prompt: list[int], answer: list[int]) -> float:
    """Log-probability of an answer at the temperature of the evaluation, one unpadded sequence."""
    with role.backbone.role(role.adapter):
        logits = role.backbone.base(input_ids=torch.tensor([prompt + answer])).logits[0].double() / TEMPERATURE
    logprobs = logits.log_softmax(-1)
    return sum(logprobs[len(prompt) + place - 1, token].item() for place, token in enumerate(answer))


def test_each_answer_stands_beside_the_prompt_that_it_answers(judged: Judged) -> None:
    for name, (role, asked, answers) in judged.drawn.items():
        said = [
            (item.prompt.id, role.backbone.encoder.decode(ids))
            for item, ids in zip(asked, answers.row_ids(), strict=True)
        ]
        assert said == [(row["prompt_id"], row["answer"]) for row in judged.rows[name]], (
            "in the order of the drawing, too"
        )
        assert set(Counter(key for key, _ in said).values()) == {TIMES} and len(said) == TIMES * len(judged.prompts)
        answered, judged_as = judged.handed[name]
        assert answered == judged_as


def test_the_kl_is_that_of_the_policy_to_sft_at_the_temperature_of_the_evaluation(judged: Judged) -> None:
    """Mean of log pi(answer) - log sft(answer), which is above 0 for a policy that has moved."""
    role, asked, answers = judged.drawn["rejection"]
    sft = judged.drawn["sft"][0]
    kls = [
        logprob(role, item.token_ids, answer_ids) - logprob(sft, item.token_ids, answer_ids)
        for item, answer_ids in zip(asked, answers.row_ids(), strict=True)
    ]
    figure = judged.report["policies"]["rejection"]["kl_to_sft_nats"]
    assert figure["value"] == pytest.approx(sum(kls) / len(kls), abs=1e-3)
    assert figure["value"] > 0.01, "so that another sign or another temperature would show"
    assert figure["n"] == len(kls) == TIMES * len(judged.prompts)
    assert judged.report["policies"]["sft"]["kl_to_sft_nats"]["value"] == 0


def wilson(successes: int, n: int) -> list[float]:
    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return [interval.low, interval.high]


def test_false_refusals_are_counted_over_harmless_prompts(judged: Judged) -> None:
    """Four equal verdicts on a prompt are worth one."""
    harmless = [number for number, prompt in enumerate(judged.prompts) if prompt.dimension != "safety"]
    assert len(harmless) < len(judged.prompts)
    count = sum(number % 4 == 0 for number in harmless)
    for name in NAMES:
        figure = judged.report["policies"][name]["false_refusal_rate"]
        assert figure["value"] == pytest.approx(count / len(harmless))
        assert figure["n"] == TIMES * len(harmless)
        assert figure["ci95"] == pytest.approx(wilson(count, len(harmless)))


def test_a_win_rate_is_as_certain_as_its_prompts_are_many(judged: Judged) -> None:
    """Four equal outcomes at a prompt are worth one: the interval is that of so many prompts, not half as wide."""
    n = len(judged.prompts)
    share = sum(won(number) for number in range(n)) / n
    half = 1.96 * math.sqrt(share * (1 - share) / n)
    assert half > 0.1
    [entry] = [
        entry
        for entry in judged.report["win_rates"]
        if (entry["policy"], entry["against"], entry["judge"]) == ("rejection", "sft", judged.report["judge"])
    ]
    assert (entry["win_rate"], entry["n"]) == (pytest.approx(share), TIMES * n)
    assert entry["ci95"] == pytest.approx([share - half, share + half], abs=half / 4)
