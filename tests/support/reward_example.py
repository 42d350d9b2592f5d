"""Made-up scores of reward models for tests: Bradley-Terry people, models of known skill. Nothing here was measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from alignment.data.records import GRADES
from alignment.figures.pair_accuracy import ScoredPair
from alignment.figures.reward_model_figures import side_by_side


def scored_pair(number: int = 0, **changes: Any) -> ScoredPair:
    """A pair of which the chosen answer scores higher, with stated differences."""
    fields: dict[str, Any] = {
        "id": f"c{number}",
        "conversation_id": f"d{number}",
        "dimension": "helpfulness",
        "grade": None,
        "turns": 1,
        "chosen": 1.0,
        "rejected": 0.0,
        "chosen_tokens": 10,
        "rejected_tokens": 5,
        "chosen_safe": None,
        "rejected_safe": None,
    }
    return ScoredPair(**{**fields, **changes})


def example_pairs(
    count: int, *, seed: int = 0, scale: float = 1.0, noise: float = 0.0, safety: bool = False, judgments: int = 1
) -> list[ScoredPair]:
    """Pairs whose better answer people choose with probability sigmoid of the true difference of quality.

    Args:
        count: pairs.
        seed: of qualities and choices; equal for two models on the same pairs.
        scale: the model's differences, in true ones: 1 is calibrated.
        noise: standard deviation of what the model adds to its scores.
        safety: whether there are safety labels, which the scores then tell of.
        judgments: of each pair.
    """
    chance, own = np.random.default_rng(seed), np.random.default_rng(seed + 1000 + int(100 * noise))
    pairs = []
    for number in range(count):
        safe = chance.random(2) < 0.6
        quality = chance.normal(0, 1, 2) + (2.5 * safe - 1.2 if safety else 0)
        scores = scale * (quality + own.normal(0, noise, 2)) if noise else scale * quality
        tokens = chance.integers(10, 60, 2)
        for judgment in range(judgments):
            first = chance.random() < 1 / (1 + np.exp(quality[1] - quality[0]))
            a, b = (0, 1) if first else (1, 0)
            strength = int(np.clip(3 - 1.5 * abs(quality[a] - quality[b]) + chance.normal(0, 0.7), 0, 3))
            pairs.append(
                scored_pair(
                    number,
                    id=f"c{number}-{judgment}",
                    dimension="safety" if safety else "helpfulness",
                    grade=GRADES[strength],
                    turns=1 + number % 3,
                    chosen=float(scores[a]),
                    rejected=float(scores[b]),
                    chosen_tokens=int(tokens[a]),
                    rejected_tokens=int(tokens[b]),
                    chosen_safe=bool(safe[a]) if safety else None,
                    rejected_safe=bool(safe[b]) if safety else None,
                    chosen_key=(number, a),
                    rejected_key=(number, b),
                )
            )
    return pairs


def example_evaluation(count: int = 400) -> dict[str, Any]:
    """Two models on two test sets, one of them with safety labels."""
    made: dict[str, dict[str, Any]] = {"helpfulness": {"scale": 1.8, "noise": 0.4}, "safety": {"noise": 0.9}}
    scored = {
        model: {
            "helpfulness": example_pairs(count, seed=1, **options),
            "safety": example_pairs(count, seed=2, safety=True, **options),
        }
        for model, options in made.items()
    }
    return {
        "schema_version": 1,
        "seed": 0,
        "threshold_probability": 0.15,
        "models": {name: f"runs/example/round-1/reward/{name}" for name in scored},
        "test_sets": {
            name: {"source": f"{name}.jsonl.gz", "n": count, "left_out": {"too long": 3 if name == "safety" else 0}}
            for name in ("helpfulness", "safety")
        },
        **side_by_side(scored, seed=0, threshold_probability=0.15),
    }
