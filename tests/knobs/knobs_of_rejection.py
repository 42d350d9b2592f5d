"""Rejection sampling, and the seed, which draws its prompts."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

from knob_bench import Bench, Knob, Turned, Watch, rows_of
from knob_data import OWN_PAIRS
from knobs_of_sft import OPTIMIZERS, PASSES

from alignment.models.sampling import batch_sampling
from stages.ppo import rejection_sampling
from stages.ppo.__main__ import main

REJECTION = "rejection"
LONGEST, TOGETHER, HEAT = "lengths", "rows", "temperature"


def asked(given: tuple[Any, ...], _: Any, found: Any) -> dict[str, Any]:
    """Ids of the prompts, one for each answer, and the answers' lengths."""
    return {"prompts": [item.prompt.id for item in given[1]], "lengths": found.lengths.tolist()}


def decoding(given: tuple[Any, ...], options: dict[str, Any], found: Any) -> dict[str, Any]:
    """Prompts that were decoded together, at which temperature, and how long the answers became."""
    return {TOGETHER: len(given[1]), HEAT: options["temperature"], LONGEST: found.lengths.max().item()}


def picking(given: tuple[Any, ...], options: dict[str, Any], found: Any) -> dict[str, Any]:
    """Candidates with their merit, and the winners."""
    candidates, merit, _ = given
    prompts = [item.prompt.id for item in candidates]
    texts = [item.answer_ids for item in candidates]
    return {"prompts": prompts, "texts": texts, "merit": merit.tolist(), "won": [item.answer_ids for item in found]}


DECODED = Watch(batch_sampling, "_decode", decoding)

BENCHES = {
    REJECTION: Bench(
        main,
        "scored",
        (*OWN_PAIRS, "ppo.method=rejection"),
        watches=(
            DECODED,
            OPTIMIZERS,
            PASSES,
            Watch(rejection_sampling, "answer_prompts", asked),
            Watch(rejection_sampling, "pick_winners", picking),
        ),
    )
}


def most(what: str) -> Any:
    """The most of something in any decoding."""
    return lambda turned: max(item[what] for item in turned.kept["_decode"])


def all_of(what: str) -> Any:
    """The different values of something in all decodings."""
    return lambda turned: {item[what] for item in turned.kept["_decode"]}


def drawn_prompts(turned: Turned) -> list[str]:
    """The prompts that candidates were drawn for, each once."""
    return list(dict.fromkeys(turned.kept["answer_prompts"][0]["prompts"]))


def by_seed(turned: Turned, seed: int) -> list[str]:
    """As many prompts as were asked for, drawn by seed and round."""
    ids = [row["id"] for row in rows_of(turned.given("data.prompts"))]
    return random.Random(f"{seed}/1").sample(ids, turned.given("rejection.prompts"))


def picked(turned: Turned, pick: str) -> list[list[int]]:
    """A winner for each prompt: of the greatest merit, or drawn by the seed."""
    found, chance = turned.kept["pick_winners"][0], random.Random(turned.given("seed"))
    winners = []
    for prompt in dict.fromkeys(found["prompts"]):
        rows = [row for row, own in enumerate(found["prompts"]) if own == prompt]
        best = sorted(rows, key=lambda row: -found["merit"][row])[0]
        winners.append(found["texts"][chance.choice(rows) if pick == "random" else best])
    return winners


def tuning_steps(turned: Turned, *, epochs: float, batch: int) -> int:
    """Winners and demonstrations over the batch, rounded up, in each pass."""
    result = turned.result("round-1/rejection")
    n = result["winners"] + result["demonstrations"] - result["left_out"]["winners too long"]
    return math.ceil(n / batch) * round(epochs)


KNOBS = [
    Knob(
        "seed",
        REJECTION,
        (3, 5),
        see=drawn_prompts,
        law=lambda value, turned: by_seed(turned, value),
        says="the prompts that a generator of that seed draws",
    ),
    Knob(
        "rejection.prompts",
        REJECTION,
        (6, 9),
        see=lambda turned: len(drawn_prompts(turned)),
        law=lambda value, _: value,
        says="prompts with candidates",
    ),
    Knob(
        "rejection.samples_per_prompt",
        REJECTION,
        (2, 3),
        see=lambda turned: set(Counter(turned.kept["answer_prompts"][0]["prompts"]).values()),
        law=lambda value, _: {value},
        says="candidates of each prompt",
    ),
    Knob(
        "rejection.pick",
        REJECTION,
        ("best", "random"),
        see=lambda turned: turned.kept["pick_winners"][0]["won"],
        law=lambda value, turned: picked(turned, value),
        says="the winner of each prompt, by merit or by chance",
    ),
    Knob(
        "rejection.epochs",
        REJECTION,
        (1, 3),
        see=lambda turned: len(turned.rows("round-1/rejection/metrics.jsonl")),
        law=lambda value, turned: tuning_steps(
            turned, epochs=value, batch=turned.given("rejection.batch_size_dialogues")
        ),
        says="so many times the steps of one pass",
    ),
    Knob(
        "rejection.batch_size_dialogues",
        REJECTION,
        (4, 8),
        see=lambda turned: turned.result("round-1/rejection")["steps"],
        law=lambda value, turned: tuning_steps(turned, epochs=turned.given("rejection.epochs"), batch=value),
        says="steps of a pass: winners and demonstrations over the batch, rounded up",
    ),
    Knob(
        "rejection.micro_batch_size_dialogues",
        REJECTION,
        (2, 4),
        see=lambda turned: max(turned.kept["compute_loss"]),
        law=lambda value, _: value,
        says="most rows of a forward pass",
    ),
    Knob(
        "rejection.learning_rate",
        REJECTION,
        (1e-3, 4e-3),
        see=lambda turned: max(row["learning_rate"] for row in turned.rows("round-1/rejection/metrics.jsonl")),
        law=lambda value, _: value,
        says="the highest rate of the metrics",
    ),
    Knob(
        "rejection.sampling.temperature",
        REJECTION,
        (0.9, 1.5),
        see=all_of(HEAT),
        law=lambda value, _: {value},
        says="what divides the logits of candidates",
    ),
    Knob(
        "rejection.sampling.max_new_tokens",
        REJECTION,
        (6, 4),
        see=most(LONGEST),
        law=lambda value, _: value,
        says="tokens of the longest candidate",
    ),
    Knob(
        "rejection.sampling.batch_size_prompts",
        REJECTION,
        (4, 8),
        see=most(TOGETHER),
        law=lambda value, _: value,
        says="most candidates decoded together",
    ),
]
