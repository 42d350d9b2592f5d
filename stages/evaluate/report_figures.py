"""From the results that the stages of a run left behind, and judged answers, to the dict of ``report.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from alignment.data.records import Dimension, JudgedAnswer, Prompt
from alignment.figures.huggingface_evaluate import FalseRefusalRate, LocalMetric, ViolationRate, WinRate
from alignment.figures.policy_figures import (
    choose_samples,
    compare_policies,
    differences,
    judged_score,
    paired_answers,
    summarise_policy,
)
from alignment.figures.reward_model_figures import score_histograms
from alignment.files import content_hash, read_object
from alignment.models.pretrained import resolve_dtype
from alignment.report.blocks_and_reward_schema import RewardFigures
from alignment.run.manifest import RESULT
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from stages.evaluate.made_from import data_blocks, files_block, links, memory, paid_by, recipe_block, timings
from stages.evaluate.training_curve import Verdicts, curves, notes, ppo_metrics, snapshots

COMPARED = (("ppo", "sft"), ("rejection", "sft"), ("ppo", "rejection"), ("sft", "base"))
RATES: dict[str, tuple[type[LocalMetric], str]] = {
    "violation_rate": (ViolationRate, "unsafe"),
    "false_refusal_rate": (FalseRefusalRate, "refusal"),
}
"""Figure of a policy -> its metric, and the verdict that it counts."""

AnswersOfPolicies = Mapping[str, Sequence[JudgedAnswer]]


def assemble_report(
    recipe: Recipe,
    folder: RunFolder,
    round_number: int,
    *,
    prompts: Sequence[Prompt],
    rows: AnswersOfPolicies,
    judge: str | None,
    ceilings: Mapping[str, Any],
    gold_helpfulness: Verdicts,
    left_out: Mapping[str, int],
    prompt_files: Sequence[Path],
    evaluate_seconds: float,
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """The report of a run up to one round.

    Args:
        recipe: the recipe it ran with.
        folder: the run.
        round_number: the round that was evaluated.
        prompts: the held-out prompts.
        rows: policy name -> its answers, with verdicts where there is a judge.
        judge: who gave the verdicts, ``None`` if nobody.
        ceilings: dimension -> accuracy that annotator noise allows.
        gold_helpfulness: PPO update -> the judge's verdicts on its snapshot; empty without a judge.
        left_out: reason -> how many held-out prompts were left out for it.
        prompt_files: what the held-out prompts were read from.
        evaluate_seconds: what the evaluation took so far.
        environment: what the evaluation noted of versions, commit and device.
    """
    used = folder.stage("eval", round_number) / "config.yaml"
    own_memory, gpu_memory = memory(folder, round_number)
    evaluation = {
        "files": files_block({str(file): content_hash(file) for file in prompt_files}),
        "used": {"held-out prompts": len(prompts), "answers": sum(map(len, rows.values()))},
        "left_out": left_out,
    }
    return {
        # How the run was made.
        "schema_version": 1,
        "name": folder.root.name,
        "seed": recipe.seed,
        "rounds": round_number,
        "judge": judge,
        "command": f"python -m stages.pipeline --config {used.as_posix()} run_dir={folder.root.as_posix()}-again",
        "recipe": recipe_block(recipe),
        "data": data_blocks(folder, round_number, evaluation),
        "paid_by": paid_by(folder, round_number),
        "links": links(folder, round_number),
        "timings_s": timings(folder, round_number, evaluate_seconds),
        "peak_memory_gib": max(own_memory.values(), default=None),
        "memory_gib": own_memory,
        "gpu_memory_gib": gpu_memory,
        "environment": {
            "versions": environment["versions"],
            "commit": environment["commit"],
            "device": environment["device"],
            "dtype": str(resolve_dtype(recipe.model.dtype)).removeprefix("torch."),
        },
        # How good reward models and policies are, and how training went.
        "reward_models": _reward_models(folder, round_number, ceilings),
        "policies": _policies(rows, seed=recipe.seed),
        "win_rates": _win_rates(rows, judge, seed=recipe.seed),
        "curves": curves(
            folder,
            round_number,
            verdicts=gold_helpfulness,
            judge=judge,
            seed=recipe.seed,
            temperature=recipe.evaluate.sampling.temperature,
        ),
        # Answers to read, and how the scores are spread.
        "samples": choose_samples(
            prompts,
            {name: part for name, part in rows.items() if name != "base"},
            count=recipe.evaluate.samples,
            seed=recipe.seed,
        ),
        "score_histograms": _histograms(rows),
    }


def _reward_models(folder: RunFolder, round_number: int, ceilings: Mapping[str, Any]) -> dict[str, Any]:
    if not folder.finished("reward", round_number):
        return {}
    blocks = {}
    file = folder.stage("reward", round_number) / RESULT
    for dimension, result in read_object(file, "models")["models"].items():
        if dimension not in get_args(Dimension):
            continue  # the guard pays no policy; its figures are in the stage's result.json
        figures = {key: result[key] for key in RewardFigures.model_fields if key in result}
        others = {key: result[key] for key in ("n_train", "calibration")}
        blocks[dimension] = {**figures, **others, "ceiling": ceilings.get(dimension)}
    return blocks


def _policies(rows: AnswersOfPolicies, *, seed: int) -> dict[str, Any]:
    """The block of each policy, with what it has more or less than SFT."""
    blocks = {name: _policy(part, seed=seed) for name, part in rows.items()}
    for name in blocks.keys() - {"sft"} if "sft" in rows else ():
        pairs = paired_answers(rows[name], rows["sft"], policy=name, against="sft")
        blocks[name]["less_sft"] = differences(pairs, seed=seed)
    return blocks


def _policy(rows: Sequence[JudgedAnswer], *, seed: int) -> dict[str, Any]:
    """The block of one policy: rates as the metrics of ``evaluate`` give them, with intervals beside them."""
    block = summarise_policy(rows, seed=seed)
    for name, (metric, verdict) in RATES.items():
        if block[name] is not None:
            judged = [row for row in rows if getattr(row, verdict) is not None]
            rate = metric().compute(
                predictions=[getattr(row, verdict) for row in judged], references=[row.dimension for row in judged]
            )
            block[name] = {**block[name], "value": rate[name]}
    return block


def _win_rates(rows: AnswersOfPolicies, judge: str | None, *, seed: int) -> list[dict[str, Any]]:
    """Every comparison by the judge, and by the reward models (whose word is weaker: they were optimised)."""
    entries = []
    scored_by = _reward_judge(rows)
    for policy, against in COMPARED:
        if policy not in rows or against not in rows:
            continue
        compare = partial(_win_rate, rows, policy, against, seed=seed)
        if judge is not None:
            entries.append(compare(judge=judge, score=judged_score))
        if scored_by is not None:
            entries.append(compare(judge=scored_by, score=_reward_score))
    return entries


def _win_rate(
    rows: AnswersOfPolicies,
    policy: str,
    against: str,
    *,
    judge: str,
    score: Callable[[JudgedAnswer], float],
    seed: int,
) -> dict[str, Any]:
    """One policy against another: shares as the metric gives them, with the interval beside them."""
    own, other = rows[policy], rows[against]
    entry = compare_policies(own, other, policy=policy, against=against, judge=judge, score=score, seed=seed)
    pairs = paired_answers(own, other, policy=policy, against=against)
    shares = WinRate().compute(
        predictions=[score(one) for one, _ in pairs], references=[score(two) for _, two in pairs]
    )
    return {**entry, **shares}


def _reward_judge(rows: AnswersOfPolicies) -> str | None:
    """Which reward models there are to compare answers by."""
    first = next(iter(rows.values()))[0]
    scores = {"helpfulness": first.reward_helpfulness, "safety": first.reward_safety}
    there = [name for name, score in scores.items() if score is not None]
    return "reward models" if len(there) > 1 else f"{there[0]} reward model" if there else None


def _reward_score(row: JudgedAnswer) -> float:
    """The score of the reward model that the prompt's tag names, or of the only one."""
    scores = (row.reward_safety, row.reward_helpfulness)
    own, other = scores if row.dimension == "safety" else reversed(scores)
    score = other if own is None else own
    assert score is not None, row.prompt_id
    return score


def check_readable(folder: RunFolder, round_number: int) -> None:
    """Raise ``UserError`` where a report could not be made of what the stages left, before anything is sampled."""
    ppo_metrics(folder, round_number)
    snapshots(folder, round_number)
    timings(folder, round_number, 0.0)
    data_blocks(folder, round_number, {})
    _reward_models(folder, round_number, {})
    paid_by(folder, round_number)
    notes(folder, round_number)


def _histograms(rows: AnswersOfPolicies) -> dict[str, Any]:
    histograms = {}
    for dimension, value in (("helpfulness", "reward_helpfulness"), ("safety", "reward_safety")):
        scores = {name: [getattr(row, value) for row in part] for name, part in rows.items()}
        if all(score is not None for part in scores.values() for score in part):
            histograms[dimension] = score_histograms(scores)
    return histograms
