"""PPO of Tandem measured against TRL's, on the processors of this machine; run alone: make bench-ppo

    natural   a toy SFT model and the toy's prompts; answers end where the model ends them
    fixed     a random Llama of two million parameters; 32 tokens of prompt, exactly 48 of answer
    memory    a random Llama of 120 million parameters, one update in small micro-batches

Tandem has five roles in every row: policy, reference, value and two reward models. TRL has four: policy, reference,
one reward model and a value model. Both have LoRA of rank 8, 128 episodes per update, four minibatches, one epoch. The
first update of each process is not timed. The last line of the output is a JSON object.

    make bench-ppo ARGS="--rows fixed --repeats 5"
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ppo_rows
from ppo_rows import PEER, ROOT, Contender, Row
from ppo_workload import Workload, available_threads, print_json

OURS = "ppo_ours.py"
FAST = Contender("Tandem, fastest", OURS, ("--dtype=auto", "--value=head", "--sampling-copy"))
FLOAT32 = Contender("Tandem, float32", OURS, ("--dtype=float32", "--value=head", "--sampling-copy"))
ADAPTER = Contender("Tandem, value as adapter", OURS, ("--dtype=auto", "--value=adapter", "--sampling-copy"))
SMALL = Contender("Tandem, all roles as adapters", OURS, ("--dtype=bfloat16", "--value=adapter"))
TRL_FLOAT32 = Contender("TRL, float32", PEER, ("--precision=float32",))
TRL_AUTOCAST = Contender("TRL, bf16 autocast", PEER, ("--precision=autocast",))
TRL_BFLOAT16 = Contender("TRL, bfloat16 weights", PEER, ("--precision=bfloat16",))
TRL = (TRL_FLOAT32.name, TRL_AUTOCAST.name, TRL_BFLOAT16.name)
TRL_MASTER_WEIGHTS = TRL[:2]
"""Those whose value model is trained in float32, as it has to be: bfloat16 swallows steps of 1e-5."""
SHAPES = {
    "fixed": ("--hidden=192", "--intermediate=512", "--layers=4", "--heads=6", "--key-value-heads=6"),
    "memory": ("--hidden=1024", "--intermediate=2816", "--layers=8", "--heads=16", "--key-value-heads=16"),
}
VOCABULARIES = {"fixed": 1024, "memory": 16384}
TINY_SHAPE = ("--hidden=32", "--intermediate=64", "--layers=2", "--heads=2", "--key-value-heads=2", "--vocabulary=64")
CPU_ONLY = {"CUDA_VISIBLE_DEVICES": ""}


def natural(arguments: argparse.Namespace) -> Row:
    """Answers as long as a model makes them."""
    model: Path = arguments.model
    if not (model / "config.json").is_file():
        made = "python -m stages.base && python -m stages.sft"
        raise SystemExit(f"{model}: no model there. For the toy's: {made} (in .venv), or leave the row out with --rows")
    rewards = model.parent / "round-1" / "reward"
    trained = all((rewards / name / "reward_model.json").is_file() for name in ("helpfulness", "safety"))
    own = (f"--rewards={rewards}",) if trained else ()
    ours = [replace(contender, options=(*contender.options, *own)) for contender in (FAST, FLOAT32)]
    work = replace(workload(arguments), model=str(model), prompts=str(arguments.prompts))
    return Row("natural", work, [ours[0], TRL_BFLOAT16, ours[1], TRL_FLOAT32, TRL_AUTOCAST])


def fixed(arguments: argparse.Namespace, folder: Path) -> Row:
    """Answers of one length: the same tokens on both sides."""
    work = replace(workload(arguments), fixed_length=True, **random_model("fixed", arguments, folder))
    return Row("fixed", work, [FAST, TRL_BFLOAT16, FLOAT32, TRL_FLOAT32, ADAPTER, TRL_AUTOCAST])


def memory(arguments: argparse.Namespace, folder: Path) -> Row:
    """One update of a larger model in micro-batches of four."""
    work = replace(workload(arguments), fixed_length=True, **random_model("memory", arguments, folder))
    work = replace(work, warm_up=0, updates=1, micro_batch=4, rollout_batch=4)
    if not arguments.quick:
        work = replace(work, episodes=32, minibatch=8)
    return Row("memory", work, [SMALL, TRL_FLOAT32, TRL_AUTOCAST, TRL_BFLOAT16])


def workload(arguments: argparse.Namespace) -> Workload:
    """What the rows have in common."""
    work = Workload(threads=arguments.threads)
    if arguments.quick:
        return replace(work, episodes=8, minibatch=4, micro_batch=4, rollout_batch=8, new_tokens=8, updates=1)
    return work


def random_model(name: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Write a random model with its prompts; returns where they are."""
    made = folder / name
    shape = TINY_SHAPE if arguments.quick else (*SHAPES[name], f"--vocabulary={VOCABULARIES[name]}")
    ppo_rows.run_script("random_llama.py", [str(made), *shape], environment=CPU_ONLY)
    return {"model": str(made / "model"), "prompts": str(made / "prompts.jsonl")}


def ratios(rows: dict[str, Row]) -> dict[str, float | None]:
    """Tandem to TRL, each at its fastest settings unless the name says otherwise."""
    found: dict[str, float | None] = dict.fromkeys(("natural_ratio", "fixed_ratio", "memory_ratio"))
    for name in [name for name in rows if name != "memory"]:
        found[f"{name}_ratio"] = rows[name].speed_ratio(FAST.name, TRL)
        found[f"{name}_float32_ratio"] = rows[name].speed_ratio(FLOAT32.name, TRL[:1])
    if "fixed" in rows:
        found["fixed_value_adapter_ratio"] = rows["fixed"].speed_ratio(ADAPTER.name, TRL)
    if "memory" in rows:
        row = rows["memory"]
        found["memory_ratio"] = row.memory_ratio(SMALL.name, TRL_MASTER_WEIGHTS, key="peak_rss_gib")
        found["memory_bfloat16_weights_ratio"] = row.memory_ratio(SMALL.name, TRL[2:], key="peak_rss_gib")
    return found


def report(rows: dict[str, Row], found: dict[str, float | None], *, repeats: int) -> None:
    """Tables, ratios, and the JSON object."""
    for row in rows.values():
        print(row.table() + "\n")
    for name, ratio in found.items():
        print(f"{name:<32}{'not measured' if ratio is None else f'{ratio:.2f}':>12}")
    figures: dict[str, Any] = {
        name: {"workload": row.work.__dict__, "figures": row.figures} for name, row in rows.items()
    }
    machine = {"processor": processor(), "python": platform.python_version(), "threads": available_threads()}
    print_json({**found, "repeats": repeats, "machine": machine, "rows": figures})


def processor() -> str:
    """The processor's name, where the system says it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="natural,fixed,memory", help="which, with commas between")
    parser.add_argument("--model", type=Path, default=Path("runs/toy/sft"), help="of the row 'natural'")
    parser.add_argument("--prompts", type=Path, default=ROOT / "data/toy/prompts.jsonl", help="of the row 'natural'")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement; one in the row 'memory'")
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--peer", type=Path, default=ROOT / ".venv/bench-trl", help="folder that trl 1.12.0 is in")
    parser.add_argument("--only", choices=["both", "ours"], default="both")
    parser.add_argument("--quick", action="store_true", help="tiny, once: does it run?")
    arguments = parser.parse_args(argv)
    if arguments.only == "both" and not (arguments.peer / "trl").is_dir():
        parser.error(f"{arguments.peer}: TRL is not there; `make bench-ppo` installs it, `--only ours` does without")
    unknown = sorted(set(arguments.rows.split(",")) - {"natural", "fixed", "memory"})
    if unknown:
        parser.error(f"--rows: there is no {unknown[0]!r}; there are natural, fixed, memory")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    arguments = parse(argv)
    peer = None if arguments.only == "ours" else arguments.peer
    repeats = 1 if arguments.quick else arguments.repeats
    names = arguments.rows.split(",")
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as scratch:
        if "natural" in names:
            rows["natural"] = natural(arguments)
        if "fixed" in names:
            rows["fixed"] = fixed(arguments, Path(scratch))
        if "memory" in names:
            rows["memory"] = memory(arguments, Path(scratch))
        for row in rows.values():
            row.run(repeats=1 if row.name == "memory" else repeats, peer=peer, environment=CPU_ONLY)
    report(rows, ratios(rows), repeats=repeats)


if __name__ == "__main__":
    main()
