"""The toy's base model, and what every stage has: the run's folder, and plugins."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from knob_bench import Bench, Knob, Turned, Watch, rows_of
from safetensors.torch import load_file

from alignment.models.muon import Muon
from alignment.toy import toy_base_model
from alignment.toy.toy_tokenizer import ASSISTANT, USER
from stages.base.__main__ import main
from stages.door import command_line

BASE = "base"


def rates(given: tuple[Any, ...], *_: Any) -> float:
    """The rate of a step that was just taken."""
    [rate] = {group["lr"] for group in given[0].param_groups}
    return float(rate)


def replaced(given: tuple[Any, ...], _: Any, found: torch.Tensor) -> list[float]:
    """Of each row with other words in its questions: the share of the questions' words that are others."""
    plain = given[0]
    in_question = (plain == USER).cumsum(1) > (plain == ASSISTANT).cumsum(1)
    words = in_question & (plain != USER)
    changed = (found != plain) & words
    assert torch.equal(found == plain, ~changed), "nothing but the questions' words"
    rows = changed.any(1)
    return (changed[rows].sum(1) / words[rows].sum(1)).tolist()


def extra(given: tuple[Any, ...], _: Any, found: list[int]) -> float:
    """Words that a document got, for each of its questions."""
    questions = given[0].count(USER)
    return (len(found) - len(given[0])) / questions if questions else 0.0


BENCHES = {
    BASE: Bench(
        main,
        watches=(
            Watch(toy_base_model, "_next_token_step", lambda given, *_: len(given[1])),
            Watch(torch.optim.AdamW, "step", rates, "AdamW"),
            Watch(Muon, "step", rates, "Muon"),
            Watch(toy_base_model, "with_question_noise", replaced),
            Watch(toy_base_model, "with_extra_words", extra),
            Watch(command_line, "load_plugins", lambda given, *_: list(given[0])),
        ),
    ),
    "base again": Bench(main, "sft", may_refuse=True),
}


def config(turned: Turned) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((turned.run / "base" / "config.json").read_text(encoding="utf-8"))
    return found


def weights(turned: Turned) -> dict[str, torch.Tensor]:
    return load_file(str(turned.run / "base" / "model.safetensors"))


def blocks(turned: Turned) -> int:
    return len({name.split(".")[2] for name in weights(turned) if name.startswith("model.layers.")})


def mean_replaced(turned: Turned) -> float:
    shares = [share for batch in turned.kept["with_question_noise"] for share in batch]
    return round(sum(shares) / max(1, len(shares)), 1)


def sizes(turned: Turned) -> list[int]:
    """Tokens that the tokenizer knows, and rows of the embeddings."""
    vocabulary = json.loads((turned.run / "base" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return [len(vocabulary), len(weights(turned)["model.embed_tokens.weight"])]


def context(turned: Turned) -> list[int]:
    """What the model and what the tokenizer take for the longest dialogue."""
    tokenizer = json.loads((turned.run / "base" / "tokenizer_config.json").read_text(encoding="utf-8"))
    return [config(turned)["max_position_embeddings"], tokenizer["model_max_length"]]


KNOBS = [
    Knob(
        "run_dir",
        BASE,
        ("{root}/one", "{root}/two"),
        see=lambda turned: [turned.run.name, (turned.run / "base" / "result.json").is_file()],
        law=lambda value, _: [value.rpartition("/")[2], True],
        says="the run lies there and nowhere else",
    ),
    Knob(
        "overwrite",
        "base again",
        (False, True),
        see=lambda turned: [turned.code, len(turned.rows("ledger.jsonl"))],
        law=lambda value, _: [0, 3] if value else [2, 2],
        says="a finished stage is refused, or stands in the ledger of base and SFT once more",
    ),
    Knob(
        "plugins",
        BASE,
        ([], ["{plugin}"]),
        see=lambda turned: turned.kept["load_plugins"],
        law=lambda value, _: [value],
        says="the files that are run, once",
    ),
    Knob(
        "model.dtype",
        BASE,
        ("float32", "bfloat16"),
        see=lambda turned: {str(tensor.dtype) for tensor in weights(turned).values()},
        law=lambda value, _: {f"torch.{value}"},
        says="format of the weights",
    ),
    Knob(
        "base.corpus",
        BASE,
        ("{pretraining}", "{pretraining_b}"),
        see=lambda turned: turned.result("base")["documents"],
        law=lambda value, _: len(rows_of(value)),
        says="as many documents as the file has lines",
    ),
    Knob(
        "base.steps",
        BASE,
        (8, 6),
        see=lambda turned: [row["step"] for row in turned.rows("base/metrics.jsonl")],
        law=lambda value, _: list(range(1, value + 1)),
        says="a line of metrics for each step",
    ),
    Knob(
        "base.batch_size_documents",
        BASE,
        (4, 3),
        see=lambda turned: set(turned.kept["_next_token_step"]),
        law=lambda value, _: {value},
        says="documents of every step",
    ),
    Knob(
        "base.learning_rate",
        BASE,
        (1e-2, 2e-2),
        see=lambda turned: max(turned.kept["AdamW"]),
        law=lambda value, _: value,
        says="the highest rate of AdamW",
    ),
    Knob(
        "base.matrix_learning_rate",
        BASE,
        (4e-3, 6e-3),
        see=lambda turned: max(turned.kept["Muon"]),
        law=lambda value, _: value,
        says="the highest rate of Muon",
    ),
    Knob(
        "base.warmup_steps",
        BASE,
        (2, 4),
        see=lambda turned: 1 + max(range(len(turned.kept["AdamW"])), key=turned.kept["AdamW"].__getitem__),
        law=lambda value, _: value,
        says="the step with the highest rate",
    ),
    Knob(
        "base.question_noise",
        BASE,
        (0.0, 1.0),
        see=mean_replaced,
        law=lambda value, _: value,
        says="share of the questions' words that are others, in rows with any, to a tenth",
    ),
    Knob(
        "base.question_extra_words",
        BASE,
        (0, 2),
        see=lambda turned: math.ceil(max(turned.kept["with_extra_words"])),
        law=lambda value, _: value,
        says="most words that a question got",
    ),
    Knob(
        "base.vocabulary_size",
        BASE,
        (280, 300),
        see=sizes,
        law=lambda value, _: [value, value],
        says="tokens of the vocabulary, and rows of the embeddings",
    ),
    Knob(
        "base.hidden_size",
        BASE,
        (16, 24),
        see=lambda turned: weights(turned)["model.norm.weight"].shape[0],
        law=lambda value, _: value,
        says="width of the last norm",
    ),
    Knob(
        "base.layers",
        BASE,
        (1, 2),
        see=blocks,
        law=lambda value, _: value,
        says="blocks in the weights",
    ),
    Knob(
        "base.heads",
        BASE,
        (2, 3),
        see=lambda turned: config(turned)["num_attention_heads"],
        law=lambda value, _: value,
        says="heads of the model",
    ),
    Knob(
        "base.context_tokens",
        BASE,
        (512, 768),
        see=context,
        law=lambda value, _: [value, value],
        says="positions of model and tokenizer",
    ),
]
