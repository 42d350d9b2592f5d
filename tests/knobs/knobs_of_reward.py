"""Reward models: their data, their losses, their heads, and measuring any without training one."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from knob_bench import Bench, Knob, Turned, Watch, rows_of
from knob_data import N_VOTED, OWN_PAIRS
from knobs_of_sft import groups
from safetensors.torch import load_file
from transformers import AutoTokenizer

from alignment.data.records import GRADES
from alignment.reward import reward_training
from alignment.reward.reward_training import GradedRewardTrainer
from stages.reward import train_reward_models
from stages.reward.__main__ import main

REWARD = "reward"
MODELS = ("helpfulness", "safety")
MARGINS = {
    "none": (0.0, 0.0, 0.0, 0.0),
    "small": (1.0, 2 / 3, 1 / 3, 0.0),
    "large": (3.0, 2.0, 1.0, 0.0),
}
"""Table 27, from significantly to negligibly better."""
NO_MIX = ("reward.helpfulness.mix=[]", "reward.safety.mix=[]")


def encoded(given: tuple[Any, ...], _: Any, found: Any) -> dict[str, Any]:
    """The comparisons that were encoded, and the margin and strength that each got."""
    pairs, kept, _ = found
    return {
        "ids": [item.id for item in given[0]],
        "chosen": [item.chosen_text for item in given[0]],
        "rejected": [item.rejected_text for item in given[0]],
        "prompts": [item.prompt[-1].content for item in given[0]],
        "grades": [item.grade for item in kept],
        "margins": [pair.margin for pair in pairs],
        "strengths": [pair.strength for pair in pairs],
    }


def loss_of_step(given: tuple[Any, ...], options: dict[str, Any], found: Any) -> dict[str, Any]:
    """What the loss was made of, and what it was; the model is known by its head."""
    head, opinions, labels = given
    flags = {key: labels[key].tolist() for key in ("margin", "strength", "safe", "labelled")}
    return {
        "head": id(head),
        "scores": opinions[:, :, 0].tolist(),
        "n_pairs": options["n_pairs"],
        "loss": found.item(),
        **flags,
    }


def micro_batch(given: tuple[Any, ...], *_: Any) -> tuple[str, int, float]:
    """Model, pairs of a forward pass, and a setting of TRL's."""
    trainer, _, inputs, *_ = given
    return trainer.checkpoint_folder.name, len(inputs["margin"]), trainer.args.max_grad_norm


ENCODED = Watch(train_reward_models, "encode_pairs", encoded)

BENCHES = {
    REWARD: Bench(
        main,
        "sft",
        watches=(
            ENCODED,
            Watch(reward_training, "reward_loss", loss_of_step),
            Watch(reward_training, "optimizer_and_schedule", groups),
            Watch(reward_training, "save_checkpoint", lambda given, *_: (given[0].name, given[1])),
            Watch(GradedRewardTrainer, "compute_loss", micro_batch),
        ),
    ),
    "reward models": Bench(main, "sft", OWN_PAIRS),
    "reward votes": Bench(
        main, "sft", ("reward.models=[helpfulness]", "reward.helpfulness.data={votes}", *NO_MIX), watches=(ENCODED,)
    ),
    "reward guard": Bench(main, "sft", (*OWN_PAIRS, *NO_MIX, "reward.head.name=mlp"), watches=(ENCODED,)),
    "reward format": Bench(
        main,
        "sft",
        (
            "data.too_long=skip",
            "reward.helpfulness.data={twofold_pairs}",
            "reward.safety.data={twofold_pairs}",
            "reward.helpfulness.margin=none",
            "reward.safety.safety_weight=0",
            *NO_MIX,
        ),
        watches=(ENCODED,),
    ),
    "reward evaluation": Bench(main, "scored", OWN_PAIRS, options=("--evaluate-only",)),
}


# -- what the runs are to show, by hand -------------------------------------------------------------------------------


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


# -- the knobs --------------------------------------------------------------------------------------------------------


def of_a_model(model: str, other: str, *, margin: tuple[str, str], safety_weight: tuple[float, float]) -> list[Knob]:
    """The knobs of one reward model's section.

    Args:
        model: its name.
        other: the other one's.
        margin: two schemes.
        safety_weight: two weights.
    """
    section = f"reward.{model}"
    strengths = dict(zip(GRADES, ((2.0, 5.0), (4.0, 6.0), (2.5, 3.5), (0.5, 0.25)), strict=True))
    return [
        Knob(
            f"{section}.data",
            REWARD,
            ("{pairs_a}", "{pairs_b}"),
            see=lambda turned: {name.partition("-")[0] for name in encoding(turned, model)["ids"][:10]},
            law=lambda value, _: {Path(value).stem},
            says="comparisons of that file",
        ),
        Knob(
            f"{section}.format",
            "reward format",
            ("trl", "alpaca"),
            see=lambda turned: {text.partition(" ")[0] for text in encoding(turned, model)["prompts"]},
            law=lambda value, _: {"tell"} if value == "trl" else {"ask"},
            says="which of a row's two prompts is read",
        ),
        Knob(
            f"{section}.mix",
            REWARD,
            ([], [{"dimension": other, "share": 0.25}]),
            see=lambda turned: model_result(turned, model)["mixture"],
            law=lambda value, turned: mixture(turned, model, value),
            says="all of its own, and others up to their share of the whole",
        ),
        Knob(
            f"{section}.margin",
            REWARD,
            margin,
            see=lambda turned: by_grade(turned, model, "margins"),
            law=lambda value, _: margins(value),
            says="margins by grade, Table 27",
        ),
        Knob(
            f"{section}.loss",
            REWARD,
            ("ranking", "scaled"),
            **by_loss(model, "loss"),
            says="the loss as the slow loop has it",
        ),
        *(
            Knob(
                f"{section}.strengths.{grade}",
                REWARD,
                values,
                see=lambda turned, grade=grade: by_grade(turned, model, "strengths")[grade],
                law=lambda value, _: [value],
                says="strength of the pairs of that grade",
            )
            for grade, values in strengths.items()
        ),
        Knob(
            f"{section}.label_smoothing",
            REWARD,
            (0.0, 0.2),
            **by_loss(model, "label_smoothing"),
            says="the loss as the slow loop has it",
        ),
        Knob(
            f"{section}.safety_weight",
            REWARD,
            safety_weight,
            **by_loss(model, "safety_weight"),
            says="the loss as the slow loop has it",
        ),
        Knob(
            f"{section}.centering_weight",
            REWARD,
            (0.0, 0.3),
            **by_loss(model, "centering_weight"),
            says="the loss as the slow loop has it",
        ),
        Knob(
            f"{section}.epochs",
            REWARD,
            (1, 2),
            see=lambda turned: sum(row["model"] == model for row in turned.rows("round-1/reward/metrics.jsonl")),
            law=lambda value, turned: model_step_count(
                turned, model, epochs=value, batch=turned.given(f"{section}.batch_size_pairs")
            ),
            says="so many times the steps of one pass",
        ),
        Knob(
            f"{section}.learning_rate",
            REWARD,
            (1e-3, 2e-3),
            see=lambda turned: turned.kept["optimizer_and_schedule"][MODELS.index(model)][0][0],
            law=lambda value, _: value,
            says="peak rate of the optimiser",
        ),
        Knob(
            f"{section}.batch_size_pairs",
            REWARD,
            (16, 8),
            see=lambda turned: model_result(turned, model)["steps"],
            law=lambda value, turned: model_step_count(
                turned, model, epochs=turned.given(f"{section}.epochs"), batch=value
            ),
            says="steps of a pass: the pairs over the batch, rounded up",
        ),
        Knob(
            f"{section}.micro_batch_size_pairs",
            REWARD,
            (16, 4),
            see=lambda turned: max(count for name, count, _ in turned.kept["compute_loss"] if name == model),
            law=lambda value, _: value,
            says="most pairs of a forward pass",
        ),
        Knob(
            f"{section}.max_length_tokens",
            "reward format",
            (18, 16) if model == "helpfulness" else (17, 14),
            see=lambda turned: model_result(turned, model)["left_out"]["too long"],
            law=lambda value, turned: n_too_long(turned, model, value),
            says="longer pairs are left out and counted",
        ),
        Knob(
            f"{section}.save_steps",
            REWARD,
            (1, 2),
            see=lambda turned: [step for name, step in turned.kept["save_checkpoint"] if name == model],
            law=lambda value, turned: saved_steps(turned, model, value),
            says="a checkpoint after every so many steps but the last",
        ),
    ]


KNOBS = [
    Knob(
        "reward.models",
        "reward models",
        (["helpfulness"], ["safety"]),
        see=lambda turned: list(turned.result("round-1/reward")["models"]),
        law=lambda value, _: value,
        says="models of the result",
    ),
    Knob(
        "reward.head.name",
        "reward models",
        ("likelihood", "attention"),
        see=lambda turned: sorted(head_weights(turned)),
        law=lambda value, _: [{"likelihood": "likelihood", "attention": "query"}[value] + ".weight", "score.weight"],
        says="weights of the head",
    ),
    Knob(
        "reward.head.arguments",
        "reward guard",
        ({"width": 8}, {"width": 12}),
        see=lambda turned: len(head_weights(turned)["inner.weight"]),
        law=lambda value, _: value["width"],
        says="rows of the hidden layer",
    ),
    Knob(
        "reward.train",
        "reward models",
        ("lora", "full"),
        see=model_files,
        law=lambda value, _: {"adapter_model.safetensors" if value == "lora" else "model.safetensors"},
        says="an adapter, or a whole model",
    ),
    Knob(
        "reward.overlap",
        "reward votes",
        ("all", "majority"),
        see=lambda turned: {
            "trained": len(encoding(turned, "helpfulness")["ids"]),
            "even": model_result(turned, "helpfulness")["left_out"].get("pairs with even votes", 0),
        },
        law=lambda value, turned: voted(turned, value),
        says="all judgments, or one for each pair without even votes",
    ),
    Knob(
        "reward.labels",
        "reward guard",
        ("annotated", "shuffled"),
        see=lambda turned: encoding(turned, "helpfulness")["chosen"],
        law=lambda value, turned: toss(turned, value),
        says="the chosen answers, as they are or as a coin falls",
    ),
    Knob(
        "reward.guard_share",
        "reward guard",
        (0.0, 0.4),
        see=lambda turned: {
            name: block["n_train"] for name, block in turned.result("round-1/reward")["models"].items()
        },
        law=lambda value, turned: guard(turned, value),
        says="comparisons of each model and of the guard",
    ),
    Knob(
        "reward.heldout_share",
        REWARD,
        (0.2, 0.3),
        see=lambda turned: len(encoding(turned, "helpfulness", held_out=True)["ids"]),
        law=lambda value, turned: len(comparisons_of(turned, "helpfulness", held_out=True, share=value)),
        says="comparisons that the hash of their conversation holds out",
    ),
    Knob(
        "reward.trainer",
        REWARD,
        ({"max_grad_norm": 0.5}, {"max_grad_norm": 0.01}),
        see=lambda turned: {norm for *_, norm in turned.kept["compute_loss"]},
        law=lambda value, _: {value["max_grad_norm"]},
        says="the setting as TRL's trainer has it",
    ),
    Knob(
        "reward.evaluation.models",
        "reward evaluation",
        (["{root}/run/round-1/reward/safety"], ["{root}/run/round-1/reward/helpfulness"]),
        see=lambda turned: [row["model"] for row in report(turned)["tables"]["overall"]],
        law=lambda value, _: [Path(path).name for path in value],
        says="rows of the table",
    ),
    Knob(
        "reward.evaluation.data",
        "reward evaluation",
        ([{"data": "{pairs_a}", "dimension": "helpfulness"}], [{"data": "{pairs_b}", "dimension": "safety"}]),
        see=lambda turned: list(report(turned)["test_sets"]),
        law=lambda value, _: [Path(item["data"]).stem for item in value],
        says="sets of comparisons of the report",
    ),
    Knob(
        "reward.evaluation.to",
        "reward evaluation",
        ("{root}/run/here", "{root}/run/there"),
        see=lambda turned: [path.parent.name for path in turned.run.rglob("reward_models.json")],
        law=lambda value, _: [Path(value).name],
        says="folder of the tables",
    ),
    *of_a_model("helpfulness", "safety", margin=("small", "large"), safety_weight=(0.0, 0.7)),
    *of_a_model("safety", "helpfulness", margin=("none", "small"), safety_weight=(0.5, 2.0)),
]
