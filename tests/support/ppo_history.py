"""The metrics of a made-up healthy PPO run, row by row, and how a test spoils them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

Rows = list[dict[str, float]]
UPDATES = 44


def healthy(seed: int = 0, updates: int = UPDATES) -> Rows:
    """The course of a toy run, with as much noise as there is in one."""
    noise = random.Random(seed)
    rows: Rows = []
    for update in range(1, updates + 1):
        done = (update - 1) / (updates - 1)
        kl = 1.5 * done**0.7
        row = {
            "update": update,
            "objective/beta": 0.1,
            "objective/kl": kl + noise.gauss(0, math.sqrt(2 * kl / 128)),
            "objective/kl_k3": kl * noise.uniform(0.85, 1.15),
            "objective/entropy": 0.5 - 0.18 * done + noise.gauss(0, 0.02),
            "objective/score": 1.2 + 0.6 * done + noise.gauss(0, 0.1),
            "objective/score_std": 1.7 - 0.35 * done + noise.gauss(0, 0.08),
            "objective/helpfulness": -0.2 + 0.3 * done + noise.gauss(0, 0.08),
            "objective/safety": 3.2 + 0.4 * done + noise.gauss(0, 0.05),
            "objective/routed_to_safety": 0.4,
            "rollout/length": 19 + 3.5 * done + noise.gauss(0, 0.8),
            "rollout/stop_rate": noise.choice([1.0, 1.0, 1.0, 127 / 128, 125 / 128]),
            "rollout/repetition": abs(noise.gauss(0.004, 0.003)),
            "advantages/std": 0.8 - 0.2 * done,
            "value/explained_variance": 0.65 * (1 - math.exp(-(update - 1) / 3)) + noise.gauss(0, 0.03),
            "value/loss": 0.2 - 0.08 * done,
            "value/clip_fraction": 0.13 * math.exp(1 - update),
            "value/grad_norm": 0.03,
            "policy/loss": noise.gauss(-0.008, 0.006),
            "policy/ratio_mean": 0.995,
            "policy/first_ratio_mean": 1 + noise.gauss(0, 3e-5),
            "policy/clip_fraction": noise.uniform(0.01, 0.04),
            "policy/approx_kl": noise.uniform(0.002, 0.014),
            "policy/grad_norm": noise.uniform(0.15, 0.3),
            "policy/learning_rate": 1e-3,
        }
        rows.append(row)
    rows[0] |= {"objective/kl": 0.0, "objective/kl_k3": 0.0, "value/explained_variance": 0.0}
    return rows


def from_update(rows: Rows, start: int, **values: float | Callable[[float], float]) -> Rows:
    """Rows whose metrics (written with ``__`` for ``/``) are replaced from one update on; a function gets the share
    of the way from there to the end."""
    for row in rows:
        if row["update"] >= start:
            share = (row["update"] - start) / max(len(rows) - start, 1)
            row |= {key.replace("__", "/"): v(share) if callable(v) else v for key, v in values.items()}
    return rows
