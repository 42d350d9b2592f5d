"""Does the gain come from the preferences? Without their information, more training must gain nothing.

Each arm starts from the same base, SFT model and comparisons as the full recipe, and is judged by the gold judge on the
same held-out prompts against the same SFT answers. Slow: several times ``make demo``.

    make test-slow ARGS="tests/stages/test_control_arms.py -s"
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from alignment.data.records import JudgedAnswer
from alignment.figures.intervals import Figure, mean_interval
from alignment.figures.policy_figures import compare_policies
from alignment.run.run_folder import RunFolder
from alignment.settings.read_recipe import load_recipe
from alignment.settings.recipe import Recipe
from stages.evaluate import judge_policies as evaluate
from stages.pipeline import run_stages
from stages.ppo import train_policy as ppo
from stages.reward import train_reward_models
from stages.sft import finetune

pytestmark = pytest.mark.slow


def recipe_of(run: Path, *overrides: str) -> Recipe:
    return load_recipe(None, [f"run_dir={run}", *overrides])


def started_from(full: Path, run: Path, *stages: str) -> Path:
    """A run folder with finished stages of the full recipe."""
    for stage in stages:
        shutil.copytree(full / stage, run / stage)
    return run


def answers(run: Path, policy: str) -> list[JudgedAnswer]:
    """What a policy said to the held-out prompts, with the gold judge's verdicts."""
    lines = (run / "round-1" / "eval" / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [JudgedAnswer(**row) for row in rows if row.pop("policy") == policy]


def optimiser_steps(full: Path) -> int:
    """Of rejection sampling and PPO together."""
    folder = RunFolder(full)
    settings = recipe_of(full).ppo
    per_update = settings.epochs * settings.batch_size_episodes // settings.minibatch_size_episodes
    return int(folder.result("rejection", 1)["steps"]) + settings.updates * per_update


def gain(ours: list[JudgedAnswer], theirs: list[JudgedAnswer], what: str) -> Figure:
    """Mean difference in gold helpfulness (other prompts) or in safe answers (safety prompts), clustered by prompt."""
    means: dict[str, list[float]] = defaultdict(list)
    for rows, sign in ((ours, 1.0), (theirs, -1.0)):
        by_prompt: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            if what == "helpfulness" and row.dimension != "safety":
                by_prompt[row.prompt_id].append(float(row.helpfulness or 0.0))
            elif what == "safety" and row.dimension == "safety":
                by_prompt[row.prompt_id].append(float(not row.unsafe))
        for prompt, values in by_prompt.items():
            means[prompt].append(sign * sum(values) / len(values))
    return mean_interval([sum(pair) for pair in means.values()], clusters=list(means), seed=0)


def figures(name: str, ours: list[JudgedAnswer], sft_answers: list[JudgedAnswer]) -> dict[str, Figure]:
    """Win rate minus one half, and both gains; printed, as they are worth reading."""
    rate = compare_policies(ours, sft_answers, policy=name, against="sft", judge="gold", seed=0)
    found: dict[str, Figure] = {
        "win rate - 1/2": {
            "value": rate["win_rate"] - 0.5,
            "ci95": [bound - 0.5 for bound in rate["ci95"]],
            "n": rate["n"],
        },
        "helpfulness": gain(ours, sft_answers, "helpfulness"),
        "safe answers": gain(ours, sft_answers, "safety"),
    }
    for what, figure in found.items():
        low, high = figure["ci95"]
        print(f"{name:<24} {what:<16} {figure['value']:+.3f} [{low:+.3f}, {high:+.3f}]")
    return found


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("control") / "full"
    run_stages.run(recipe_of(run))
    return run


def test_the_full_recipe_gains(full: Path) -> None:
    found = figures("full recipe", answers(full, "ppo"), answers(full, "sft"))
    assert all(figure["ci95"][0] > 0 for figure in found.values())


def gained(found: dict[str, Figure]) -> set[str]:
    """Figures that rose by more than their interval."""
    return {what for what, figure in found.items() if figure["ci95"][0] > 0}


def fallen(found: dict[str, Figure]) -> set[str]:
    """Figures that fell by more than their interval."""
    return {what for what, figure in found.items() if figure["ci95"][1] < 0}


def test_rejection_sampling_that_picks_at_random_does_not(full: Path, tmp_path: Path) -> None:
    run = started_from(full, tmp_path / "random", "base", "sft", "round-1/annotate", "round-1/reward")
    recipe = recipe_of(run, "rejection.pick=random", "ppo.method=rejection")
    ppo.run(recipe)
    evaluate.run(recipe)
    assert gained(figures("random pick", answers(run, "rejection"), answers(full, "sft"))) == set()


def test_reward_models_of_shuffled_labels_do_not(full: Path, tmp_path: Path) -> None:
    run = started_from(full, tmp_path / "shuffled", "base", "sft", "round-1/annotate")
    recipe = recipe_of(run, "reward.labels=shuffled")
    train_reward_models.run(recipe)
    ppo.run(recipe)
    evaluate.run(recipe)
    found = figures("shuffled labels", answers(run, "ppo"), answers(full, "sft"))
    # PPO on a meaningless reward drifts, towards refusals or away from them: one figure may rise at the other's cost.
    assert "win rate - 1/2" not in gained(found)
    assert len(gained(found)) <= len(fallen(found) - {"win rate - 1/2"})


CONVERGED_SFT_EPOCHS = 40
"""Passes over the demonstrations after which more of them no longer help; the toy recipe makes two."""


def sft_arm(full: Path, run: Path, *, epochs: float) -> list[JudgedAnswer]:
    """Answers of an SFT model on the full recipe's base after this many passes over the demonstrations."""
    recipe = recipe_of(started_from(full, run, "base"), f"sft.epochs={epochs}")
    finetune.run(recipe)
    evaluate.run(recipe)
    return answers(run, "sft")


def test_converged_sft_continued_for_as_many_steps_does_not_and_the_full_recipe_is_ahead(
    full: Path, tmp_path: Path
) -> None:
    per_step = recipe_of(full).sft.epochs / RunFolder(full).result("sft")["steps"]
    converged = sft_arm(full, tmp_path / "converged", epochs=CONVERGED_SFT_EPOCHS)
    epochs = CONVERGED_SFT_EPOCHS + per_step * optimiser_steps(full)
    continued = sft_arm(full, tmp_path / "continued", epochs=epochs)
    added = RunFolder(tmp_path / "continued").result("sft")["steps"] - CONVERGED_SFT_EPOCHS / per_step
    assert added == pytest.approx(optimiser_steps(full), rel=0.02)
    # Two passes are not converged: with more of them, SFT alone still gains (left to RLHF on purpose).
    figures("SFT converged", converged, answers(full, "sft"))
    assert gained(figures("converged, continued", continued, converged)) == set()
    for name, arm in (("converged", converged), ("continued", continued)):
        beyond = figures(f"full recipe over {name}", answers(full, "ppo"), arm)
        assert all(figure["ci95"][0] > 0 for figure in beyond.values())
