"""Reward models: their data, their losses, their heads, and measuring any without training one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from knob_bench import Bench, Knob, Watch
from knob_data import OWN_PAIRS
from knobs_of_sft import groups
from reward_by_hand import (
    MODELS,
    by_grade,
    by_loss,
    comparisons_of,
    encoding,
    guard,
    head_weights,
    margins,
    mixture,
    model_files,
    model_result,
    model_step_count,
    n_too_long,
    report,
    saved_steps,
    toss,
    voted,
)

from alignment.data.records import GRADES
from alignment.reward import reward_training
from alignment.reward.reward_training import GradedRewardTrainer
from stages.reward import train_reward_models
from stages.reward.__main__ import main

REWARD = "reward"
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
            ("alpaca", "trl"),
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
