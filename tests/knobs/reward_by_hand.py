"""What reward models are to learn by hand: which comparisons, with which labels, and slow loops over their losses."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable
from typing import Any

from knob_bench import Turned, rows_of
from knob_data import N_VOTED
from safetensors.torch import load_file
from transformers import AutoTokenizer

from alignment.data.records import GRADES

MODELS = ("helpfulness", "safety")
MARGINS = {
    "none": (0.0, 0.0, 0.0, 0.0),
    "small": (1.0, 2 / 3, 1 / 3, 0.0),
    "large": (3.0, 2.0, 1.0, 0.0),
}
"""Table 27, from significantly to negligibly better."""


def is_held_out(conversation: str, share: float, *, seed: int) -> bool:
    """The side of a conversation goes by the first seven bytes of a hash."""
    digest = hashlib.sha256(f"{seed}:{conversation}".encode()).digest()
    return sum(byte * 256 ** (6 - place) for place, byte in enumerate(digest[:7])) / 256**7 < share


def comparisons_of(turned: Turned, model: str, *, held_out: bool, share: float | None = None) -> list[dict[str, Any]]:
    """A file's comparisons about a model's dimension, on one side of the split."""
    share = float(turned.given("reward.heldout_share")) if share is None else share
    rows = [row for row in rows_of(turned.given(f"reward.{model}.data")) if row["dimension"] == model]
    seed = turned.given("seed")
    return [row for row in rows if is_held_out(row["conversation_id"], share, seed=seed) == held_out]


def model_result(turned: Turned, model: str) -> dict[str, Any]:
    found: dict[str, Any] = turned.result("round-1/reward")["models"][model]
    return found


def encoding(turned: Turned, model: str, *, held_out: bool = False) -> dict[str, Any]:
    """What was encoded for a model; each has two parts, one after the other."""
    found: dict[str, Any] = turned.kept["encode_pairs"][2 * MODELS.index(model) + held_out]
    return found


def by_grade(turned: Turned, model: str, what: str) -> dict[str, list[float]]:
    """Grade -> the different numbers that its pairs got."""
    found = encoding(turned, model)
    pairs = list(zip(found["grades"], found[what], strict=True))
    return {grade: sorted({round(number, 6) for own, number in pairs if own == grade}) for grade in GRADES}


def margins(value: str) -> dict[str, list[float]]:
    return {grade: [round(number, 6)] for grade, number in zip(GRADES, MARGINS[value], strict=True)}


def model_steps(turned: Turned, model: str) -> list[dict[str, Any]]:
    """The micro-batches of one model: they are trained one after the other."""
    heads = list(dict.fromkeys(step["head"] for step in turned.kept["reward_loss"]))
    return [step for step in turned.kept["reward_loss"] if step["head"] == heads[MODELS.index(model)]]


def slow_losses(turned: Turned, model: str, **changed: Any) -> list[float]:
    """The loss of every micro-batch, pair by pair."""
    names = ("loss", "label_smoothing", "safety_weight", "centering_weight")
    loss, smoothing, safety, centring = (changed.get(n, turned.given(f"reward.{model}.{n}")) for n in names)
    found = []
    for step in model_steps(turned, model):
        total, count = 0.0, len(step["scores"])
        for number, (chosen, rejected) in enumerate(step["scores"]):
            margin = step["margin"][number]
            strength = step["strength"][number] if loss == "scaled" else 1.0
            right = math.log1p(math.exp(-(chosen - rejected - margin)))
            wrong = math.log1p(math.exp(-(rejected - chosen - margin)))
            total += strength * ((1 - smoothing) * right + smoothing * wrong)
            total += centring * (chosen + rejected) ** 2
            for score, place in ((chosen, number), (rejected, count + number)):
                if step["labelled"][place]:
                    total += safety * math.log1p(math.exp(-score if step["safe"][place] else score))
        found.append(total / step["n_pairs"])
    return found


def by_loss(model: str, name: str) -> dict[str, Callable[..., Any]]:
    """The loss of each micro-batch, which a slow loop makes of the scores and this setting."""
    return {
        "see": lambda turned: [step["loss"] for step in model_steps(turned, model)],
        "law": lambda value, turned: slow_losses(turned, model, **{name: value}),
    }


def mixture(turned: Turned, model: str, mix: list[dict[str, Any]]) -> dict[str, int]:
    """All of a model's own comparisons, and so many others that they are a share of the whole."""
    own = len(comparisons_of(turned, model, held_out=False))
    rest = 1 - sum(item["share"] for item in mix)
    return {model: own, **{item["dimension"]: round(own * item["share"] / rest) for item in mix}}


def model_step_count(turned: Turned, model: str, *, epochs: float, batch: int) -> int:
    return math.ceil(model_result(turned, model)["n_train"] / batch) * round(epochs)


def saved_steps(turned: Turned, model: str, every: int) -> list[int]:
    return list(range(every, model_result(turned, model)["steps"], every))


def n_too_long(turned: Turned, model: str, limit: int) -> int:
    """Comparisons, of both parts, with an answer that makes the dialogue too long."""
    tokenizer = AutoTokenizer.from_pretrained(str(turned.run / "base"))

    def length(prompt: str, answer: str) -> int:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    parts = [encoding(turned, model, held_out=part) for part in (False, True)]
    rows = [row for part in parts for row in zip(part["prompts"], part["chosen"], part["rejected"], strict=True)]
    return sum(max(length(prompt, chosen), length(prompt, rejected)) > limit for prompt, chosen, rejected in rows)


def head_weights(turned: Turned) -> dict[str, Any]:
    """Of the first reward model that there is."""
    file = sorted(turned.run.glob("round-1/reward/*/head.safetensors"))[0]
    return load_file(str(file))


def model_files(turned: Turned) -> set[str]:
    return {path.name for path in turned.run.glob("round-1/reward/*/*model.safetensors")}


def voted(turned: Turned, value: str) -> dict[str, int]:
    """Judgments to train on: all, or one for each pair but those of two annotators, who do not agree."""
    rows = comparisons_of(turned, "helpfulness", held_out=False)
    pairs = {row["conversation_id"] for row in rows}
    even = {name for name in pairs if int(name.rpartition("-")[2]) % 4 == 0}
    assert 0 < len(even) < len(pairs) <= N_VOTED
    if value == "all":
        return {"trained": len(rows), "even": 0}
    return {"trained": len(pairs) - len(even), "even": len(even)}


def toss(turned: Turned, value: str) -> list[str]:
    """The chosen answers: as they are, or those that a coin chose after the labels were dealt out."""
    rows = comparisons_of(turned, "helpfulness", held_out=False)
    share, seed = turned.given("reward.guard_share"), turned.given("seed")
    stays = [not is_held_out(row["conversation_id"], share, seed=seed + 1) for row in rows]
    if value == "annotated":
        return [row["chosen"][0]["content"] for row, own in zip(rows, stays, strict=True) if own]
    chance = random.Random(turned.given("seed"))
    chance.shuffle(list(rows))
    sides = [("chosen", "rejected")[chance.random() < 0.5] for _ in rows]
    return [row[side][0]["content"] for row, side, own in zip(rows, sides, stays, strict=True) if own]


def guard(turned: Turned, share: float) -> dict[str, Any]:
    """Comparisons that each model keeps, and those of the guard, which has their own of both."""
    seed, kept, taken = turned.given("seed"), {}, 0
    for model in MODELS:
        rows = comparisons_of(turned, model, held_out=False)
        apart = [row for row in rows if is_held_out(row["conversation_id"], share, seed=seed + 1)]
        kept[model], taken = len(rows) - len(apart), taken + len(apart)
    return {**kept, **({"guard": taken} if share else {})}


def n_trained(turned: Turned) -> dict[str, int]:
    """Comparisons that each model was trained on."""
    return {name: block["n_train"] for name, block in turned.result("round-1/reward")["models"].items()}


def report(turned: Turned) -> dict[str, Any]:
    [file] = turned.run.rglob("reward_models.json")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
