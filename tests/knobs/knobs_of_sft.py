"""Supervised fine-tuning; the model and its adapters; and what becomes of lines that cannot be used."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from knob_bench import Bench, Knob, Turned, Watch, rows_of
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from alignment.models import sft_trainer
from alignment.models.sft_trainer import AnswerTokensTrainer
from stages.sft import finetune
from stages.sft.__main__ import main

SFT = "sft"
PROJECTIONS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
"""The linear layers of a Llama's block."""


def dropouts(given: tuple[Any, ...], *_: Any) -> set[float]:
    """Chances of dropout in the model that is handed over to be trained."""
    return {module.p for module in given[0].modules() if isinstance(module, nn.Dropout) and module.p}


def layers(_: Any, __: Any, found: Any) -> set[str]:
    """Kinds of layers of a base that was loaded."""
    return {type(module).__name__ for module in found.base.modules()}


def texts(given: tuple[Any, ...], *_: Any) -> list[str]:
    """The dialogues that are trained on."""
    return [given[1].decode(dialogue.input_ids) for dialogue in given[2]]


def rows_of_batch(given: tuple[Any, ...], *_: Any) -> int:
    """Rows of one forward pass."""
    return len(given[2]["input_ids"])


def groups(_: Any, __: Any, found: Any) -> list[tuple[float, float]]:
    """Peak rate and weight decay of an optimiser that was made."""
    return [(group["initial_lr"], group["weight_decay"]) for group in found[0].param_groups]


OPTIMIZERS = Watch(sft_trainer, "optimizer_and_schedule", groups)
PASSES = Watch(AnswerTokensTrainer, "compute_loss", rows_of_batch)
TRAINED_ON = Watch(finetune, "train_sft", texts)
AGAIN = "overwrite=true"
SHORT = 90
"""Tokens that some demonstrations have more of."""

BENCHES = {
    SFT: Bench(
        main,
        "sft",
        (AGAIN, "data.too_long=skip"),
        watches=(
            OPTIMIZERS,
            PASSES,
            Watch(finetune, "train_sft", dropouts),
            Watch(AnswerTokensTrainer, "_get_num_items_in_batch", lambda given, *_: given[0].args.max_grad_norm),
        ),
    ),
    "sft other": Bench(main, "sft", (AGAIN, "sft.data={twofold}"), watches=(PASSES, TRAINED_ON)),
    "sft too long": Bench(main, "sft", (AGAIN, "sft.data={few}", f"sft.max_length_tokens={SHORT}"), may_refuse=True),
    "own model": Bench(
        main,
        settings=("sft.data={few}", "model.sampling_copy=false"),
        watches=(Watch(finetune, "load_base", layers),),
    ),
    "own code": Bench(
        main,
        settings=("sft.data={few}", "model.name_or_path={model_with_code}", "model.sampling_copy=false"),
        may_refuse=True,
    ),
}


def n_of(turned: Turned) -> int:
    """Demonstrations that are trained on."""
    return int(turned.result("sft")["demonstrations"])


def steps(turned: Turned, *, epochs: float, batch: int) -> int:
    return math.ceil(n_of(turned) / batch) * round(epochs)


def adapter(turned: Turned) -> dict[str, Tensor]:
    return load_file(str(turned.run / "sft" / "adapter" / "adapter_model.safetensors"))


def changed(turned: Turned) -> set[str]:
    """Layers whose weights are others in the SFT model than in the base."""
    before, after = (load_file(str(turned.run / name / "model.safetensors")) for name in ("base", "sft"))
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    return {name.removesuffix(".weight").rpartition(".")[2] for name in moved}


def scale(turned: Turned) -> float:
    """How many times the product of an adapter's two matrices was merged, times their rank: alpha."""
    layer = "model.layers.0.self_attn.q_proj"
    before, after = (
        load_file(str(turned.run / name / "model.safetensors"))[f"{layer}.weight"].double() for name in ("base", "sft")
    )
    down, up = (adapter(turned)[f"base_model.model.{layer}.lora_{name}.weight"].double() for name in "AB")
    product = up @ down
    return round(len(down) * ((after - before) * product).sum().item() / product.square().sum().item(), 2)


def lengths(turned: Turned, data: str) -> list[int]:
    """Tokens of each dialogue of a file."""
    tokenizer = AutoTokenizer.from_pretrained(str(turned.run / "base"))
    texts = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows_of(data)]
    return [len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]


def n_too_long(turned: Turned, limit: int) -> int:
    return sum(length > limit for length in lengths(turned, str(turned.given("sft.data"))))


def outcome(turned: Turned) -> tuple[int, int | None]:
    """How the stage ended, and how many dialogues were too long."""
    return turned.code, turned.result("sft")["left_out"]["too long"] if turned.code == 0 else None


def model_type(folder: Path) -> str:
    return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])


KNOBS = [
    Knob(
        "model.name_or_path",
        "own model",
        ("{model_a}", "{model_b}"),
        see=lambda turned: model_type(turned.run / "sft"),
        law=lambda value, _: model_type(Path(value)),
        says="architecture of the SFT model",
    ),
    Knob(
        "model.quantization",
        "own model",
        ("none", "nf4"),
        see=lambda turned: "Linear4bit" in turned.kept["load_base"][0],
        law=lambda value, _: value == "nf4",
        says="layers in 4 bits",
    ),
    Knob(
        "model.trust_remote_code",
        "own code",
        (False, True),
        see=lambda turned: turned.code,
        law=lambda value, _: 0 if value else 2,
        says="a model that needs its own code is refused without",
    ),
    Knob(
        "model.lora.r",
        SFT,
        (2, 3),
        see=lambda turned: {len(tensor) for name, tensor in adapter(turned).items() if "lora_A" in name},
        law=lambda value, _: {value},
        says="rows of every lora_A",
    ),
    Knob(
        "model.lora.alpha",
        SFT,
        (4, 9),
        see=scale,
        law=lambda value, _: value,
        says="the merged weights are base + alpha / r * B A",
    ),
    Knob(
        "model.lora.dropout",
        SFT,
        (0.0, 0.3),
        see=lambda turned: turned.kept["train_sft"],
        law=lambda value, _: [{value} if value else set()],
        says="chances of dropout in the model that is trained",
    ),
    Knob(
        "model.lora.target_modules",
        SFT,
        (["q_proj", "v_proj"], ["q_proj", "k_proj", "o_proj"]),
        see=lambda turned: {name.split(".")[-3] for name in adapter(turned)},
        law=lambda value, _: set(value),
        says="layers with an adapter",
    ),
    Knob(
        "data.too_long",
        "sft too long",
        ("raise", "skip"),
        see=outcome,
        law=lambda value, turned: (0, n_too_long(turned, SHORT)) if value == "skip" else (2, None),
        says="what is longer is refused, or left out and counted",
    ),
    Knob(
        "sft.data",
        SFT,
        ("{demonstrations}", "{demonstrations_b}"),
        see=lambda turned: n_of(turned) + turned.result("sft")["left_out"]["too long"],
        law=lambda value, _: len(rows_of(value)),
        says="as many dialogues as the file has lines",
    ),
    Knob(
        "sft.format",
        "sft other",
        ("alpaca", "trl"),  # by itself, a reader takes such rows for Alpaca's
        see=lambda turned: {word for text in turned.kept["train_sft"][0] for word in ("told", "said") if word in text},
        law=lambda value, _: {"told"} if value == "trl" else {"said"},
        says="which of a row's two answers is learned",
    ),
    Knob(
        "sft.method",
        "sft other",
        ("lora", "full"),
        see=lambda turned: [(turned.run / "sft" / "adapter").is_dir(), "embed_tokens" in changed(turned)],
        law=lambda value, _: [value == "lora", value == "full"],
        says="an adapter is kept, or the embeddings have moved",
    ),
    Knob(
        "sft.epochs",
        SFT,
        (1, 3),
        see=lambda turned: len(turned.rows("sft/metrics.jsonl")),
        law=lambda value, turned: steps(turned, epochs=value, batch=turned.given("sft.batch_size_dialogues")),
        says="so many times the steps of one pass",
    ),
    Knob(
        "sft.batch_size_dialogues",
        SFT,
        (4, 8),
        see=lambda turned: turned.result("sft")["steps"],
        law=lambda value, turned: steps(turned, epochs=turned.given("sft.epochs"), batch=value),
        says="steps of a pass: the dialogues over the batch, rounded up",
    ),
    Knob(
        "sft.micro_batch_size_dialogues",
        SFT,
        (2, 4),
        see=lambda turned: max(turned.kept["compute_loss"]),
        law=lambda value, _: value,
        says="most rows of a forward pass",
    ),
    Knob(
        "sft.learning_rate",
        SFT,
        (1e-3, 3e-3),
        see=lambda turned: max(row["learning_rate"] for row in turned.rows("sft/metrics.jsonl")),
        law=lambda value, _: value,
        says="the highest rate of the metrics",
    ),
    Knob(
        "sft.weight_decay",
        SFT,
        (0.0, 0.23),
        see=lambda turned: [decay for _, decay in turned.kept["optimizer_and_schedule"][0]],
        law=lambda value, _: [value],
        says="decay of the optimiser",
    ),
    Knob(
        "sft.max_length_tokens",
        SFT,
        (130, 110),
        see=lambda turned: turned.result("sft")["left_out"]["too long"],
        law=lambda value, turned: n_too_long(turned, value),
        says="longer dialogues are left out and counted",
    ),
    Knob(
        "sft.packing",
        "sft other",
        (False, True),
        see=lambda turned: sum(turned.kept["compute_loss"]),
        law=lambda value, turned: 1 if value else n_of(turned),
        says="all dialogues in one row, or each in its own",
    ),
    Knob(
        "sft.trainer",
        SFT,
        ({"max_grad_norm": 0.5}, {"max_grad_norm": 0.01}),
        see=lambda turned: set(turned.kept["_get_num_items_in_batch"]),
        law=lambda value, _: {value["max_grad_norm"]},
        says="the setting as TRL's trainer has it",
    ),
]
