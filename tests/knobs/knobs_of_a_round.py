"""What stands around the training of a round: annotation, evaluation, export, and how many rounds there are."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from knob_bench import Bench, Knob, Stand, Turned, Watch, rows_of
from knob_data import OWN_PAIRS
from knobs_of_rejection import DECODED, HEAT, LONGEST, TOGETHER, all_of, most
from safetensors.torch import load_file

from alignment.models.backbone import Backbone
from stages.annotate import people, variant_answers
from stages.annotate.__main__ import main as annotate
from stages.evaluate.__main__ import main as evaluate
from stages.export.__main__ import main as export
from stages.pipeline.__main__ import main as pipeline

ANNOTATE, EVALUATE = "annotate", "evaluate"
ROUND = "round-1/annotate"
QUEUES = ("helpfulness_pairs", "safety_pairs", "heldout_helpfulness_pairs", "heldout_safety_pairs")
"""In the order in which they are answered, twice each."""
ONE_PAIR = tuple(f"annotate.{queue}=4" for queue in QUEUES)


BENCHES = {
    ANNOTATE: Bench(
        annotate,
        "sft",
        ("annotate.source=simulated",),
        watches=(
            DECODED,
            Watch(variant_answers, "answer_prompts", lambda given, *_: len(given[1])),
            Watch(Backbone, "_fill_copy", lambda *_: True),
        ),
    ),
    "annotate source": Bench(annotate, "sft", (*ONE_PAIR, "annotate.data={pairs_a}", "annotate.heldout_overlap=1")),
    "annotate file": Bench(annotate, "sft", ("annotate.source=dataset",)),
    "annotate broken": Bench(
        annotate, "sft", ("annotate.source=dataset", "annotate.data={broken_pairs}"), may_refuse=True
    ),
    "annotate labelled": Bench(
        annotate, "sft", ("annotate.source=dataset", "annotate.data={labelled_pairs}"), may_refuse=True
    ),
    "annotate format": Bench(annotate, "sft", ("annotate.source=dataset", "annotate.data={twofold_pairs}")),
    "annotate people": Bench(
        annotate,
        "sft",
        (*ONE_PAIR, "annotate.source=ui"),
        stands=(Stand(people, "wait_for_people", lambda *_: None),),
        watches=(Watch(people, "wait_for_people", lambda given, *_: given[1]),),
        may_refuse=True,
    ),
    EVALUATE: Bench(evaluate, "scored", OWN_PAIRS, watches=(DECODED,)),
    "export": Bench(export, None, (*OWN_PAIRS, "rounds=2", "ppo.method=rejection"), after="pipeline"),
    "pipeline": Bench(pipeline, "judged", (*OWN_PAIRS, "ppo.method=rejection")),
}


def queue(number: int) -> Any:
    """Prompts of a queue that were answered."""
    return lambda turned: turned.kept["answer_prompts"][2 * number]


def files_that_hold(turned: Turned, names: tuple[str, ...], file: str) -> set[str]:
    """The prompt files in which all prompts of some comparisons are."""
    asked = {json.dumps(row["prompt"]) for row in turned.rows(f"{ROUND}/{file}.jsonl")}
    return {name for name in names if asked <= {json.dumps(row["messages"]) for row in rows_of(turned.files[name])}}


def annotators_of_a_pair(turned: Turned) -> int:
    """Most annotators who judged one pair of the held-out ones."""
    judged: dict[str, set[str]] = defaultdict(set)
    for row in turned.rows(f"{ROUND}/heldout_comparisons.jsonl"):
        answers = sorted(row[side][0]["content"] for side in ("chosen", "rejected"))
        judged[json.dumps([row["dimension"], row["prompt"], answers])].add(row["annotator_id"])
    return max(map(len, judged.values()))


def temperatures(turned: Turned) -> list[float]:
    """Of all answers that were compared."""
    rows = turned.rows(f"{ROUND}/comparisons.jsonl")
    return sorted({row[side]["temperature"] for row in rows for side in ("chosen_source", "rejected_source")})


def comparisons(turned: Turned) -> list[dict[str, Any]]:
    return [*turned.rows(f"{ROUND}/comparisons.jsonl"), *turned.rows(f"{ROUND}/heldout_comparisons.jsonl")]


def answers(turned: Turned) -> list[dict[str, Any]]:
    """What every policy answered."""
    return turned.rows("round-1/eval/answers.jsonl")


def report(turned: Turned) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((turned.run / "report.json").read_text(encoding="utf-8"))
    return found


def exported(turned: Turned) -> Path:
    """The folder that was made."""
    [found] = [path.parent for path in turned.run.rglob("calibration.json")]
    return found


def exported_models(turned: Turned) -> list[str]:
    """The reward models of the run whose head is that of the export."""
    [weights] = [load_file(str(file)) for file in exported(turned).glob("*.safetensors")]
    [score] = [tensor for name, tensor in weights.items() if name.endswith("score.weight")]
    heads = sorted(turned.run.glob("round-*/reward/*/head.safetensors"))
    same = [file for file in heads if torch.equal(load_file(str(file))["score.weight"], score)]
    return [file.parent.relative_to(turned.run).as_posix() for file in same]


def expected_models(turned: Turned, **changed: Any) -> list[str]:
    what, number = (changed.get(name, turned.given(f"export.{name}")) for name in ("what", "round"))
    return [f"round-{number}/reward/{what}"]


KNOBS = [
    Knob(
        "rounds",
        "pipeline",
        (1, 2),
        see=lambda turned: sorted(path.parent.parent.name for path in turned.run.glob("round-*/eval/result.json")),
        law=lambda value, _: [f"round-{number}" for number in range(1, value + 1)],
        says="rounds that were judged",
    ),
    Knob(
        "model.sampling_copy",
        ANNOTATE,
        (True, False),
        see=lambda turned: bool(turned.kept["_fill_copy"]),
        law=lambda value, _: value,
        says="a copy is filled to sample with",
    ),
    Knob(
        "data.prompts",
        ANNOTATE,
        ("{prompts}", "{prompts_b}"),
        see=lambda turned: files_that_hold(turned, ("prompts", "prompts_b"), "comparisons"),
        law=lambda value, _: {Path(value).stem},
        says="the file of the prompts of all training comparisons",
    ),
    Knob(
        "data.heldout_prompts",
        EVALUATE,
        ("{heldout_prompts}", "{heldout_prompts_b}"),
        see=lambda turned: {row["prompt_id"] for row in answers(turned)},
        law=lambda value, _: {row["id"] for row in rows_of(value)},
        says="the prompts that are answered",
    ),
    Knob(
        "data.on_error",
        "annotate broken",
        ("raise", "skip"),
        see=lambda turned: [turned.code, turned.result(ROUND)["left_out"] if turned.code == 0 else None],
        law=lambda value, _: [0, {"malformed": 1}] if value == "skip" else [2, None],
        says="a malformed line is refused, or left out and counted",
    ),
    Knob(
        "data.unused",
        "annotate labelled",
        ([], ["margin"]),
        see=lambda turned: turned.code,
        law=lambda value, _: 0 if value else 2,
        says="a label without a meaning is refused unless it is named",
    ),
    Knob(
        "annotate.source",
        "annotate source",
        ("simulated", "dataset"),
        see=lambda turned: {row["id"].partition("-")[0] for row in comparisons(turned)},
        law=lambda value, _: {"round"} if value == "simulated" else {"pairs_a"},
        says="comparisons of this round, or of the file",
    ),
    Knob(
        "annotate.data",
        "annotate file",
        ("{pairs_a}", "{pairs_b}"),
        see=lambda turned: {row["id"].partition("-")[0] for row in comparisons(turned)},
        law=lambda value, _: {Path(value).stem},
        says="comparisons of that file",
    ),
    Knob(
        "annotate.format",
        "annotate format",
        ("alpaca", "trl"),
        see=lambda turned: {row["prompt"][-1]["content"].partition(" ")[0] for row in comparisons(turned)},
        law=lambda value, _: {"tell"} if value == "trl" else {"ask"},
        says="which of a row's two prompts is read",
    ),
    Knob(
        "annotate.dimension",
        "annotate format",
        ("helpfulness", "safety"),
        see=lambda turned: {row["dimension"] for row in comparisons(turned)},
        law=lambda value, _: {value},
        says="tag of comparisons that have none",
    ),
    *(
        Knob(
            f"annotate.{name}",
            ANNOTATE,
            values,
            see=queue(number),
            law=lambda value, _: value,
            says="prompts that are answered twice",
        )
        for number, (name, values) in enumerate(zip(QUEUES, ((20, 40), (40, 20), (20, 40), (40, 20)), strict=True))
    ),
    Knob(
        "annotate.heldout_overlap",
        ANNOTATE,
        (2, 3),
        see=annotators_of_a_pair,
        law=lambda value, _: value,
        says="most annotators of a held-out pair",
    ),
    Knob(
        "annotate.ui_settings",
        "annotate people",
        ("{app_one}", "{app_two}"),
        see=lambda turned: sorted(project.title for project in turned.kept["wait_for_people"][0].projects),
        law=lambda value, _: [f"{Path(value).stem.removeprefix('app_')} {name}" for name in ("helpfulness", "safety")],
        says="titles of the projects",
    ),
    Knob(
        "annotate.ui_port",
        "annotate people",
        (7001, 7002),
        see=lambda turned: turned.kept["wait_for_people"][0].port,
        law=lambda value, _: value,
        says="where the page would be",
    ),
    Knob(
        "annotate.temperatures",
        ANNOTATE,
        ([0.5, 1.5], [0.8, 1.3]),
        see=temperatures,
        law=lambda value, _: list(value),
        says="temperatures of the compared answers",
    ),
    Knob(
        "annotate.max_new_tokens",
        ANNOTATE,
        (6, 5),
        see=most(LONGEST),
        law=lambda value, _: value,
        says="tokens of the longest answer",
    ),
    Knob(
        "annotate.batch_size_prompts",
        ANNOTATE,
        (16, 10),
        see=most(TOGETHER),
        law=lambda value, _: value,
        says="most prompts decoded together",
    ),
    Knob(
        "evaluate.judge",
        EVALUATE,
        ("none", "gold"),
        see=lambda turned: [report(turned)["judge"] is None, answers(turned)[0]["refusal"] is None],
        law=lambda value, _: [value == "none", value == "none"],
        says="no judge and no verdict, or both",
    ),
    Knob(
        "evaluate.answers_per_prompt",
        EVALUATE,
        (2, 3),
        see=lambda turned: sum(row["policy"] == "sft" for row in answers(turned)),
        law=lambda value, turned: value * len(rows_of(turned.given("data.heldout_prompts"))),
        says="so many answers of a policy to each prompt",
    ),
    Knob(
        "evaluate.samples",
        EVALUATE,
        (4, 3),
        see=lambda turned: len(report(turned)["samples"]),
        law=lambda value, _: value,
        says="prompts side by side in the report",
    ),
    Knob(
        "evaluate.sampling.temperature",
        EVALUATE,
        (0.7, 1.4),
        see=all_of(HEAT),
        law=lambda value, _: {value},
        says="what divides the logits of all answers",
    ),
    Knob(
        "evaluate.sampling.max_new_tokens",
        EVALUATE,
        (6, 5),
        see=lambda turned: max(row["n_tokens"] for row in answers(turned)),
        law=lambda value, _: value,
        says="tokens of the longest answer",
    ),
    Knob(
        "evaluate.sampling.batch_size_prompts",
        EVALUATE,
        (32, 20),
        see=most(TOGETHER),
        law=lambda value, _: value,
        says="most prompts decoded together",
    ),
    Knob(
        "export.what",
        "export",
        ("safety", "helpfulness"),
        see=exported_models,
        law=lambda value, turned: expected_models(turned, what=value),
        says="the reward model whose head the export has",
    ),
    Knob(
        "export.round",
        "export",
        (2, 1),
        see=exported_models,
        law=lambda value, turned: expected_models(turned, round=value),
        says="the round whose head the export has",
    ),
    Knob(
        "export.to",
        "export",
        ("{root}/run/here", "{root}/run/there"),
        see=lambda turned: exported(turned).name,
        law=lambda value, _: Path(value).name,
        says="name of the folder",
    ),
    Knob(
        "export.form",
        "export",
        ("merged", "adapter"),
        see=lambda turned: (exported(turned) / "adapter_config.json").is_file(),
        law=lambda value, _: value == "adapter",
        says="an adapter, or a whole model",
    ),
]
