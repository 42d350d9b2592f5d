"""Which settings and which earlier stages decide what a stage makes, and what of them has changed."""

from __future__ import annotations

from typing import Any

SECTIONS = {
    "base": ("model.name_or_path", "model.dtype", "base", "data.on_error"),
    "sft": ("model", "sft", "data.on_error", "data.too_long"),
    "annotate": ("model", "data", "annotate", "reward.heldout_share"),
    "reward": ("model", "reward", "data.on_error", "data.too_long"),
    "rejection": (
        "model",
        "data",
        "rejection",
        "ppo.gate",
        "ppo.safety_threshold",
        "ppo.reward_models",
        "sft.data",
        "sft.format",
        "sft.max_length_tokens",
        "sft.packing",
        "sft.weight_decay",
    ),
    "ppo": ("model", "data", "ppo", "evaluate.sampling.temperature"),
    "eval": ("model", "data", "evaluate"),
}
"""Stage folder -> the recipe's sections and settings that decide what the stage makes."""
INPUT_STAGES = {
    "base": (),
    "sft": ("base",),
    "annotate": ("sft",),
    "reward": ("sft", "annotate"),
    "rejection": ("sft", "reward"),
    "ppo": ("sft", "reward", "rejection"),
    "eval": ("sft", "annotate", "reward", "rejection", "ppo"),
}
"""Stage folder -> the stages, of the same round or before all rounds, that it reads."""


WITHOUT_EFFECT = (
    "annotate.ui_port",
    "ppo.method",
    "ppo.save_steps",
    "ppo.save_total_limit",
    "reward.evaluation",
    "reward.helpfulness.save_steps",
    "reward.safety.save_steps",
)
"""Settings, and sections, within these sections that leave a stage's numbers as they are."""


def value_at(values: Any, key: str) -> Any:
    """The value at a dotted key of nested mappings; ``None`` where there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def differing_keys(before: Any, now: Any, prefix: str = "") -> list[str]:
    """Dotted keys in which two nested mappings differ."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [prefix]
    keys: list[str] = []
    for key in sorted(before.keys() | now.keys()):
        keys += differing_keys(before.get(key), now.get(key), f"{prefix}.{key}" if prefix else key)
    return keys


def changed_values(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Keys whose values differ, in order."""
    return [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
