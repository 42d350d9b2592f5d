"""From the results that the stages of a run left behind, and judged answers, to the dict of ``report.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from alignment.data.records import Dimension, JudgedAnswer, Prompt
from alignment.figures.huggingface_evaluate import FalseRefusalRate, LocalMetric, ViolationRate, WinRate
from alignment.figures.policy_figures import (
    choose_samples,
    compare_policies,
    judged_score,
    paired_answers,
    summarise_policy,
)
from alignment.figures.reward_model_figures import score_histograms
from alignment.files import read_json, read_object
from alignment.machine.device_and_processes import peak_gpu_memory_gib, peak_memory_gib
from alignment.models.pretrained import resolve_dtype
from alignment.report.blocks_and_reward_schema import RewardFigures
from alignment.report.headline_and_summary import SUMMARY_COLUMNS, headline, summary_rows
from alignment.report.number_formats import duration
from alignment.report.run_report_schema import validate_report
from alignment.rl.heldout_answers import read_snapshots
from alignment.run.run_folder import RunFolder
from alignment.run.stage_records import read_metrics
from alignment.run.stage_replacement import RESULT
from alignment.settings.recipe import Recipe

COMPARED = (("ppo", "sft"), ("rejection", "sft"), ("ppo", "rejection"), ("sft", "base"))
REWARD_JUDGE = "reward models"
RATES: dict[str, tuple[type[LocalMetric], str]] = {
    "violation_rate": (ViolationRate, "unsafe"),
    "false_refusal_rate": (FalseRefusalRate, "refusal"),
}
"""Figure of a policy -> its metric, and the verdict that it counts."""
TOP_STAGES = ("base", "sft")
ROUND_STAGES = ("annotate", "reward", "rejection", "ppo")

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
    gold_helpfulness: Mapping[int, float],
    evaluate_seconds: float,
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
        gold_helpfulness: PPO update -> the judge's mean of its held-out answers.
        evaluate_seconds: what the evaluation took so far.
    """
    # Read what the evaluation noted of its environment; its recipe lies beside it.
    environment = read_json(folder.stage("eval", round_number) / "env.json")
    used = folder.stage("eval", round_number) / "config.yaml"
    memory, gpu_memory = _memory(folder, round_number)
    return {
        # How the run was made.
        "schema_version": 1,
        "name": folder.root.name,
        "seed": recipe.seed,
        "rounds": round_number,
        "judge": judge,
        "command": f"python -m stages.pipeline --config {used.as_posix()} run_dir={folder.root.as_posix()}-again",
        "timings_s": _timings(folder, round_number, evaluate_seconds),
        "peak_memory_gib": max(memory.values(), default=None),
        "memory_gib": memory,
        "gpu_memory_gib": gpu_memory,
        "environment": {
            "versions": environment["versions"],
            "commit": environment["commit"],
            "device": environment["device"],
            "dtype": str(resolve_dtype(recipe.model.dtype)).removeprefix("torch."),
        },
        # How good reward models and policies are, and how training went.
        "reward_models": _reward_models(folder, round_number, ceilings),
        "policies": {name: _policy(part, seed=recipe.seed) for name, part in rows.items()},
        "win_rates": _win_rates(rows, judge, seed=recipe.seed),
        "curves": {"ppo": _curve(folder, round_number, gold_helpfulness), "notes": _notes(folder, round_number)},
        # Answers to read, and how the scores are spread.
        "samples": choose_samples(
            prompts,
            {name: part for name, part in rows.items() if name != "base"},
            count=recipe.evaluate.samples,
            seed=recipe.seed,
        ),
        "score_histograms": _histograms(rows),
    }


def _timings(folder: RunFolder, rounds: int, evaluate_seconds: float) -> dict[str, float | None]:
    """Seconds of each stage, summed over rounds."""
    spent: dict[str, float | None] = {
        name: _seconds(folder, name, None) if folder.finished(name) else None for name in TOP_STAGES
    }
    for name in (*ROUND_STAGES, "eval"):
        seconds = [_seconds(folder, name, n) for n in range(1, rounds + 1) if folder.finished(name, n)]
        spent["evaluate" if name == "eval" else name] = sum(seconds) if seconds else None
    spent["evaluate"] = round((spent["evaluate"] or 0.0) + evaluate_seconds, 2)
    return {**spent, "total": round(sum(value for value in spent.values() if value is not None), 2)}


def _memory(folder: RunFolder, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """The most memory of each stage in any round, GiB: the processor's and the GPU's, where they are known."""
    places = [(name, None) for name in TOP_STAGES]
    places += [(name, number) for name in ROUND_STAGES for number in range(1, rounds + 1)]  # type: ignore[misc]
    results = [(name, folder.result(name, number)) for name, number in places if folder.finished(name, number)]
    results.append(("evaluate", {"peak_memory_gib": peak_memory_gib(), "peak_gpu_memory_gib": peak_gpu_memory_gib()}))
    found: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for name, result in results:
        for kind, key in zip(found, ("peak_memory_gib", "peak_gpu_memory_gib"), strict=True):
            if (value := result.get(key)) is not None:
                kind[name] = round(max(kind.get(name, 0.0), value), 2)
    return found


def _seconds(folder: RunFolder, name: str, round_number: int | None) -> float:
    return float(read_object(folder.stage(name, round_number) / RESULT, "seconds")["seconds"])


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
    for policy, against in COMPARED:
        if policy not in rows or against not in rows:
            continue
        compare = partial(_win_rate, rows, policy, against, seed=seed)
        if judge is not None:
            entries.append(compare(judge=judge, score=judged_score))
        if rows[policy][0].reward_helpfulness is not None and rows[policy][0].reward_safety is not None:
            entries.append(compare(judge=REWARD_JUDGE, score=_reward_score))
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


def _reward_score(row: JudgedAnswer) -> float:
    """The score of the reward model that the prompt's tag names."""
    score = row.reward_safety if row.dimension == "safety" else row.reward_helpfulness
    assert score is not None, row.prompt_id
    return score


CURVE = ("update", "objective/score", "objective/kl", "rollout/length", "rollout/stop_rate", "objective/beta")
"""Metrics of an update of PPO that the report draws."""


def ppo_metrics(folder: RunFolder, round_number: int) -> list[dict[str, float]]:
    """The metrics of a round's PPO, a row for each update; none without it.

    Raises:
        UserError: a line is damaged; names it.
    """
    file = folder.stage("ppo", round_number) / "metrics.jsonl"
    return read_metrics(file, *CURVE) if file.is_file() else []


def check_readable(folder: RunFolder, round_number: int) -> None:
    """Raise ``UserError`` where a report could not be made of what the stages left, before anything is sampled."""
    ppo_metrics(folder, round_number)
    read_snapshots(folder.stage("ppo", round_number) / "heldout_samples.jsonl")
    _timings(folder, round_number, 0.0)
    _reward_models(folder, round_number, {})
    _notes(folder, round_number)


def _curve(folder: RunFolder, round_number: int, gold_helpfulness: Mapping[int, float]) -> list[dict[str, Any]]:
    # Read the metrics that training wrote, a line per update.
    stage, lines = folder.stage("ppo", round_number), ppo_metrics(folder, round_number)
    # Average the answers of each snapshot: update -> its held-out figures.
    held_out = {
        update: {
            "heldout_reward": sum(item.score for item in taken) / len(taken),
            "heldout_guard": _mean([item.guard for item in taken if item.guard is not None]),
            "heldout_kl_nats": sum(item.kl_nats for item in taken) / len(taken),
            "gold_helpfulness": gold_helpfulness.get(update),
        }
        for update, taken in read_snapshots(stage / "heldout_samples.jsonl").items()
    }
    # Update 0, before training, has held-out figures only.
    before_training = [{"update": update, **figures} for update, figures in held_out.items() if update == 0]
    return before_training + [
        {
            "update": line["update"],
            "reward": line["objective/score"],
            "kl_nats": line["objective/kl"],
            "length_tokens": line["rollout/length"],
            "stop_rate": line["rollout/stop_rate"],
            "beta": line["objective/beta"],
            "disagreement": line.get("objective/helpfulness_disagreement"),
            **held_out.get(int(line["update"]), {}),
        }
        for line in lines
    ]


def _notes(folder: RunFolder, round_number: int) -> list[str]:
    """What was said while PPO trained: findings about its health, over-optimisation, why it stopped."""
    finished = folder.finished("ppo", round_number)
    notes: list[str] = folder.result("ppo", round_number).get("said", []) if finished else []
    return notes


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _histograms(rows: AnswersOfPolicies) -> dict[str, Any]:
    histograms = {}
    for dimension, value in (("helpfulness", "reward_helpfulness"), ("safety", "reward_safety")):
        scores = {name: [getattr(row, value) for row in part] for name, part in rows.items()}
        if all(score is not None for part in scores.values() for score in part):
            histograms[dimension] = score_histograms(scores)
    return histograms


def show(report: dict[str, Any], folder: RunFolder) -> None:
    """Print the table of policies, the headline and where the report is."""
    checked = validate_report(report)
    rows = summary_rows(checked)
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(SUMMARY_COLUMNS):
        width = max(6, *map(len, column.split()), *(len(row[place]) for row in rows))  # all of it in 80 columns
        table.add_column(column, justify="right" if place else "left", width=width)
    for row in rows:
        table.add_row(*row)
    output = Console()
    output.print(headline(checked), highlight=False)
    output.print(table)
    total = duration(report["timings_s"]["total"])
    memory = "" if checked.peak_memory_gib is None else f", at most {checked.peak_memory_gib:.1f} GiB of memory"
    output.print(f"{total} of work{memory}", highlight=False)
    output.print(f"report: {folder.root / 'report.html'}", soft_wrap=True, markup=False, highlight=False)
