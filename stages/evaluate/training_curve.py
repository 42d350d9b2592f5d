"""How PPO went, as the report draws it: a point for each update, with what its snapshot was worth, and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignment.errors import UserError
from alignment.figures.intervals import Figure, mean_interval
from alignment.rl.heldout_answers import HeldoutScores, Snapshot, parting, read_snapshots
from alignment.run.run_folder import RunFolder
from alignment.run.stage_records import read_metrics, recipe_made_with
from alignment.settings.read_recipe import value_at

CURVE = ("update", "objective/score", "objective/kl", "rollout/length", "rollout/stop_rate", "objective/beta")
"""Metrics of an update of PPO that the report draws."""
SNAPSHOTS = "heldout_samples.jsonl"
GUARD = "guard"

Verdicts = Mapping[int, Sequence[float | None]]
"""Update -> the judge's verdict on each answer of its snapshot; ``None`` on those that it does not count."""


def curves(
    folder: RunFolder, round_number: int, *, verdicts: Verdicts, judge: str | None, seed: int, temperature: float
) -> dict[str, Any]:
    """The report's block of a round's PPO.

    Args:
        folder: the run.
        round_number: the round.
        verdicts: of the judge; empty without one.
        judge: who gave them.
        seed: of the bootstrap.
        temperature: of the evaluation.
    """
    taken = snapshots(folder, round_number)
    return {
        "ppo": _points(ppo_metrics(folder, round_number), taken, verdicts, seed=seed),
        "parting": _parting(taken, verdicts, judge),
        "notes": notes(folder, round_number, temperature=temperature),
    }


def ppo_metrics(folder: RunFolder, round_number: int) -> list[dict[str, float]]:
    """The metrics of a round's PPO, a row for each update; none without it.

    Raises:
        UserError: a line is damaged; names it.
    """
    file = folder.stage("ppo", round_number) / "metrics.jsonl"
    return read_metrics(file, *CURVE) if file.is_file() else []


def snapshots(folder: RunFolder, round_number: int) -> dict[int, list[Snapshot]]:
    """The answers that a round's PPO wrote down, by update; none without it.

    Raises:
        UserError: two updates do not answer the same prompts in one order; names the file.
    """
    file = folder.stage("ppo", round_number) / SNAPSHOTS
    taken = read_snapshots(file)
    if len({tuple(item.prompt.id for item in answers) for answers in taken.values()}) > 1:
        raise UserError(f"{file}: its updates do not answer the same prompts. Put it back, or make that stage again.")
    return taken


def notes(folder: RunFolder, round_number: int, *, temperature: float | None = None) -> list[str]:
    """What was said while PPO trained: findings about its health, over-optimisation, why it stopped.

    Args:
        folder: the run.
        round_number: of the round.
        temperature: of the evaluation, if any; that snapshots were drawn at another one is said, too.
    """
    if not folder.finished("ppo", round_number):
        return []
    stage = folder.stage("ppo", round_number)
    said: list[str] = folder.result("ppo", round_number).get("said", [])
    then = value_at(recipe_made_with(stage), "evaluate.sampling.temperature")
    if (stage / SNAPSHOTS).is_file() and None not in (then, temperature) and then != temperature:
        said = [*said, f"snapshots were drawn at temperature {then:g}, the other answers at {temperature:g}"]
    return said


def _points(
    lines: Sequence[Mapping[str, float]], taken: Mapping[int, Sequence[Snapshot]], verdicts: Verdicts, *, seed: int
) -> list[dict[str, Any]]:
    held_out = {update: _measured(answers, verdicts.get(update, ()), seed) for update, answers in taken.items()}
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


def _measured(answers: Sequence[Snapshot], verdicts: Sequence[float | None], seed: int) -> dict[str, Any]:
    """The held-out figures of one snapshot, each with its interval over prompts."""
    figures = {
        "heldout_reward": _mean([item.score for item in answers], seed),
        "heldout_guard": _mean([item.guard for item in answers], seed),
        "heldout_kl_nats": _mean([item.kl_nats for item in answers], seed),
        "gold_helpfulness": _mean(verdicts, seed),
    }
    values = {name: figure and figure["value"] for name, figure in figures.items()}
    ends = {f"{name.removesuffix('_nats')}_ci95": figure and figure["ci95"] for name, figure in figures.items()}
    return {**values, **ends}


def _mean(values: Sequence[float | None], seed: int) -> Figure | None:
    counted = [value for value in values if value is not None]
    return mean_interval(counted, seed=seed) if counted else None


def _parting(taken: Mapping[int, Sequence[Snapshot]], verdicts: Verdicts, judge: str | None) -> dict[str, Any] | None:
    """Whether reward and judge part, by the gold judge where there is one, else by the guard."""
    scored = []
    for update, answers in taken.items():
        judged = verdicts[update] if judge else [item.guard for item in answers]
        pairs = [(item.score, one) for item, one in zip(answers, judged, strict=True) if one is not None]
        if pairs:
            scored.append(HeldoutScores(update, tuple(a for a, _ in pairs), tuple(b for _, b in pairs)))
    found = parting(scored)
    if found is None:
        return None
    return {
        "judge": judge or GUARD,
        "best_update": found.best,
        "last_update": found.last,
        "reward_change": found.reward,
        "judge_change": found.guard,
        "is_overoptimization": found.is_overoptimization,
    }
