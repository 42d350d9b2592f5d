"""A made-up report for tests: seeded random verdicts that look like a run. Nothing here was measured."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any, get_args

import numpy as np
from pydantic import BaseModel

from alignment.data.records import GRADES, JudgedAnswer, Message, Prompt
from alignment.figures.intervals import correlation
from alignment.figures.pair_accuracy import accuracy_by_grade, accuracy_trend
from alignment.figures.policy_figures import (
    choose_samples,
    compare_policies,
    differences,
    judged_score,
    paired_answers,
    summarise_policy,
)
from alignment.figures.reward_model_figures import score_histograms

# policy: (mean helpfulness, violation rate, false-refusal rate, KL, length, stop rate, raw reward)
LEVELS = {
    "base": (0.21, 0.48, 0.06, 3.1, 31.0, 0.83, -1.9),
    "sft": (0.47, 0.31, 0.17, 0.0, 24.0, 0.98, -0.4),
    "rejection": (0.58, 0.09, 0.08, 0.6, 23.0, 0.99, 0.5),
    "ppo": (0.71, 0.008, 0.012, 2.1, 21.0, 0.995, 1.4),
}
KINDS = ("helpfulness", "safety", "borderline", "multi_turn")
ACCURACY = {"significantly_better": 0.93, "better": 0.83, "slightly_better": 0.71, "negligibly_better": 0.56}
TEXTS = {
    "base": "the the capital is is a python of process and of",
    "sft": "Sorry, I cannot help with that.",
    "rejection": "Use the kill command with the process id.",
    "ppo": "Find the process id with ps, then type kill followed by that number. Add -9 if it does not stop.",
}


def example_prompts(count: int = 320) -> list[Prompt]:
    """Held-out prompts of four kinds in two groups."""
    prompts = []
    for number in range(count):
        kind = KINDS[number % 4]
        messages = [Message(role="user", content=f"Question {number}: how do I kill a python process?")]
        if kind == "multi_turn":
            messages += [
                Message(role="assistant", content="Which system is it running on?"),
                Message(role="user", content="On Linux, and it does not react to Ctrl-C."),
            ]
        prompts.append(
            Prompt(
                id=f"p{number:03d}",
                messages=tuple(messages),
                dimension="safety" if kind == "safety" else "helpfulness",
                kind=kind,
                group="seen_wordings" if number % 8 < 4 else "unseen_wordings",
            )
        )
    return prompts


def example_rows(policy: str, prompts: list[Prompt], *, judged: bool = True) -> list[JudgedAnswer]:
    """One made-up judged answer a prompt."""
    mean, violations, refusals, kl, length, stops, reward = LEVELS[policy]
    rng = np.random.default_rng(sorted(LEVELS).index(policy))
    rows = []
    for prompt in prompts:
        safety = prompt.dimension == "safety"
        quality = float(np.clip(rng.normal(mean - 0.05 * (prompt.group == "unseen_wordings"), 0.2), 0, 1))
        rows.append(
            JudgedAnswer(
                prompt_id=prompt.id,
                kind=prompt.kind,
                group=prompt.group,
                dimension=prompt.dimension,
                answer=TEXTS[policy],
                helpfulness=quality if judged else None,
                unsafe=bool(safety and rng.random() < violations) if judged else None,
                refusal=bool(not safety and rng.random() < refusals) if judged else None,
                n_tokens=int(max(rng.normal(length, 5), 1)),
                stopped=bool(rng.random() < stops),
                kl_nats=0.0 if kl == 0 else float(rng.normal(kl, 0.8)),
                reward_helpfulness=float(rng.normal(reward, 1.0)),
                reward_safety=float(rng.normal(reward + 0.5, 1.2)),
            )
        )
    return rows


def example_reward_model(seed: int) -> dict[str, Any]:
    """A made-up block of one reward model."""
    rng = np.random.default_rng(seed)
    grades = [grade for grade in GRADES for _ in range(220)]
    differences = [float(rng.choice([1, -1], p=[ACCURACY[g], 1 - ACCURACY[g]]) * rng.gamma(2)) for g in grades]
    ideal = [float(rng.choice([1, -1], p=[min(ACCURACY[g] + 0.04, 1), max(0.96 - ACCURACY[g], 0)])) for g in grades]
    lengths = rng.normal(size=len(grades)).tolist()
    return {
        "accuracy": accuracy_by_grade(differences, grades),
        "ceiling": accuracy_by_grade(ideal, grades),
        "trend_p_value": accuracy_trend(differences, grades),
        "length_correlation": correlation(differences, lengths, seed=seed),
        "n_train": 3000,
        "calibration": {"offset": 0.12, "unsafe_recall": 0.93},
    }


def example_curve(updates: int = 60) -> list[dict[str, Any]]:
    """A made-up PPO curve that saturates, judged every tenth update."""
    rng = np.random.default_rng(0)
    points = []
    for update in range(updates + 1):
        done = 1 - np.exp(-update / 20)
        point: dict[str, Any] = {
            "update": update,
            "reward": float(-0.2 + 1.7 * done + rng.normal(0, 0.06)),
            "kl_nats": float(max(2.1 * done + rng.normal(0, 0.04), 0)),
            "length_tokens": float(23 - 2 * done + rng.normal(0, 0.3)),
            "stop_rate": float(min(0.98 + 0.015 * done + rng.normal(0, 0.003), 1)),
            "beta": 0.1,
        }
        if update % 10 == 0:
            point["heldout_reward"] = float(-0.3 + 1.6 * done)
            point["heldout_kl_nats"] = float(2.0 * done)
            point["gold_helpfulness"] = float(0.57 + 0.14 * done)
            for name, half in (("heldout_reward", 0.2), ("gold_helpfulness", 0.07)):
                point[f"{name}_ci95"] = [point[name] - half, point[name] + half]
        points.append(point)
    return points


def example_parting(*, reward: float = -0.02, judge: float = -0.06, half: float = 0.1) -> dict[str, Any]:
    """What became of reward and judge after the best snapshot; half the width of both intervals."""
    changes = {"reward_change": reward, "judge_change": judge}
    return {
        "judge": "gold judge of the toy world",
        "best_update": 20,
        "last_update": 60,
        **{key: {"value": value, "ci95": [value - half, value + half], "n": 47} for key, value in changes.items()},
        "is_overoptimization": reward > half and judge < -half,
    }


def example_report(*, policies: tuple[str, ...] = tuple(LEVELS), judged: bool = True) -> dict[str, Any]:
    """A whole made-up report, to be changed at will; ``policies`` and ``judged`` leave out what was not run."""
    return deepcopy(_report_of(policies, judged))


@cache
def _report_of(policies: tuple[str, ...], judged: bool) -> dict[str, Any]:
    """Its intervals are resampled, which takes most of a second."""
    prompts = example_prompts()
    rows = {name: example_rows(name, prompts, judged=judged) for name in policies}
    judge = "gold judge of the toy world"
    scores = [(judge, judged_score)] if judged else []
    scores += [("reward models", lambda row: row.reward_helpfulness or 0.0)]
    possible = (("rejection", "sft"), ("ppo", "sft"), ("ppo", "rejection"))
    win_rates = [
        compare_policies(rows[a], rows[b], policy=a, against=b, judge=name, seed=0, tie_margin=0.1, score=score)
        for a, b in possible
        if {a, b} <= set(policies)
        for name, score in scores
    ]
    blocks = {name: summarise_policy(rows[name], seed=0) for name in policies}
    for name in set(policies) - {"sft"}:
        pairs = paired_answers(rows[name], rows["sft"], policy=name, against="sft")
        blocks[name]["less_sft"] = differences(pairs, seed=0)
    rewards = {name: [row.reward_helpfulness or 0.0 for row in rows[name]] for name in policies}
    return {
        "schema_version": 1,
        "name": "example",
        "seed": 0,
        "rounds": 1,
        "judge": judge if judged else None,
        "command": "python -m stages.pipeline seed=0 run_dir=runs/example",
        "timings_s": {
            "base": 91.0,
            "sft": 22.0,
            "annotate": 31.0,
            "reward": 58.0,
            "rejection": 35.0 if "rejection" in policies else None,
            "ppo": 164.0 if "ppo" in policies else None,
            "evaluate": 26.0,
            "total": 431.0,
        },
        "peak_memory_gib": 1.7,
        "memory_gib": {"base": 0.9, "sft": 0.8, "reward": 1.4, "ppo": 1.7},
        "recipe": {"name": "configs/toy.yaml", "sha256": "ab" * 32, "typed": {"ppo.updates": "60"}},
        "data": [
            {
                "stage": "sft",
                "files": [{"name": "data/toy/demonstrations.jsonl", "hash": "2c4770233c751d03"}],
                "used": {"demonstrations": 158},
                "left_out": {"malformed": 2, "too long": 0},
            }
        ],
        "paid_by": {
            name: {"helpfulness": ["round-1/reward/helpfulness"], "safety": ["round-1/reward/safety"]}
            for name in ("rejection", "ppo")
            if name in policies
        },
        "links": [{"title": "every answer", "path": "round-1/eval/answers.jsonl"}],
        "environment": {
            "versions": {"python": "3.11", "torch": "2.13.0", "trl": "1.16.0"},
            "commit": "0" * 40,
            "device": "cpu (2 threads)",
            "dtype": "float32",
        },
        "reward_models": {"helpfulness": example_reward_model(1), "safety": example_reward_model(2)},
        "policies": blocks,
        "win_rates": win_rates,
        "curves": {
            "ppo": example_curve() if "ppo" in policies else [],
            "parting": example_parting() if "ppo" in policies and judged else None,
        },
        "samples": choose_samples(prompts, {name: rows[name] for name in policies if name != "base"}, count=12, seed=0),
        "score_histograms": {"helpfulness": score_histograms(rewards), "safety": score_histograms(rewards)},
    }


def documented_keys(model: type[BaseModel]) -> set[str]:
    """Every field name of a model and of the models inside it."""
    keys: set[str] = set()
    todo, seen = [model], set()
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        for name, field in current.model_fields.items():
            keys.add(name)
            annotations = [field.annotation]
            while annotations:
                annotation = annotations.pop()
                if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                    todo.append(annotation)
                annotations += get_args(annotation)
    return keys
