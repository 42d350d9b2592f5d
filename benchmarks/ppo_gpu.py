"""PPO on an NVIDIA GPU: speed and memory against TRL's at 1.1 billion parameters, and one update at 7 billion in NF4.

    python benchmarks/ppo_gpu.py --peer .venv/bench-trl      # without --peer: our own side alone
    python benchmarks/ppo_gpu.py --tiny                      # tiny models on the processor: does it run?

    fixed     a random Llama of 1.1 billion parameters in bfloat16, 32 tokens of prompt, exactly 48 of answer
    memory    the same model, one update in micro-batches of four
    nf4       a random Llama 2 of 7 billion parameters in 4 bits with five roles, 8 episodes of 512 tokens

Nothing is downloaded. ``peak_gpu_gib`` is ``torch.cuda.max_memory_allocated`` of the process. The last line of the
output is a JSON object.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ppo_rows
import torch
from ppo_rows import PEER, Contender, Row
from ppo_workload import Workload, available_threads, print_json

OURS = "ppo_ours.py"
FAST = Contender("Tandem, fastest", OURS, ("--dtype=bfloat16", "--value=head", "--sampling-copy"))
ADAPTER = Contender("Tandem, value as adapter", OURS, ("--dtype=bfloat16", "--value=adapter", "--sampling-copy"))
SMALL = Contender("Tandem, all roles as adapters", OURS, ("--dtype=bfloat16", "--value=adapter"))
TRL = Contender("TRL, bfloat16 weights", PEER, ("--precision=bfloat16",))
BILLION = "--hidden=2048 --intermediate=5632 --layers=22 --heads=32 --key-value-heads=4 --vocabulary=32000 --tied=0"
LLAMA2_7B = "--hidden=4096 --intermediate=11008 --layers=32 --heads=32 --key-value-heads=32 --vocabulary=32000 --tied=0"
TINY = "--hidden=64 --intermediate=128 --layers=2 --heads=2 --key-value-heads=2 --vocabulary=64 --tied=0"
MEMORY_TARGET_GIB = 20


def rows(folder: Path, *, tiny: bool, threads: int) -> list[Row]:
    """The two rows at 1.1 billion parameters."""
    ppo_rows.run_script("random_llama.py", [str(folder), *(TINY if tiny else BILLION).split()], environment={})
    paths: dict[str, Any] = {"model": str(folder / "model"), "prompts": str(folder / "prompts.jsonl")}
    work = Workload(fixed_length=True, threads=threads, **paths)
    if tiny:
        work = replace(work, episodes=8, minibatch=4, micro_batch=4, rollout_batch=8, new_tokens=8, updates=1)
    small = replace(work, warm_up=0, updates=1, micro_batch=4, rollout_batch=4)
    if not tiny:
        small = replace(small, episodes=32, minibatch=8)
    return [Row("fixed", work, [FAST, TRL, ADAPTER]), Row("memory", small, [SMALL, TRL])]


def nf4_update(*, tiny: bool, threads: int) -> dict[str, Any]:
    """The update in 4 bits: the first one, which also loads kernels, and a second one that is timed."""
    work = Workload(episodes=8, minibatch=8, micro_batch=1, rollout_batch=8, new_tokens=256, updates=1, threads=threads)
    prompt_tokens, rank, shape = 256, 64, LLAMA2_7B
    if tiny:
        work, prompt_tokens, rank, shape = replace(work, new_tokens=8), 8, 4, TINY
    options = [*work.options, f"--prompt-tokens={prompt_tokens}", f"--rank={rank}", *shape.split()]
    return ppo_rows.run_script("ppo_nf4.py", options, environment={})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder that trl 1.12.0 is installed in; without it, ours alone")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement of speed")
    parser.add_argument("--threads", type=int, default=available_threads(), help="of the processor")
    parser.add_argument("--tiny", action="store_true", help="tiny models, also without a GPU: does it run?")
    arguments = parser.parse_args(argv)
    if not (torch.cuda.is_available() or arguments.tiny):
        parser.error("no NVIDIA GPU that torch can use; --tiny tries everything on the processor")
    if arguments.peer is not None and not (arguments.peer / "trl").is_dir():
        parser.error(f"{arguments.peer}: TRL is not there; `make .venv/bench-trl/trl` installs it")
    with tempfile.TemporaryDirectory() as scratch:
        fixed, memory = rows(Path(scratch), tiny=arguments.tiny, threads=arguments.threads)
        fixed.run(repeats=1 if arguments.tiny else arguments.repeats, peer=arguments.peer, environment={})
        memory.run(repeats=1, peer=arguments.peer, environment={})
    nf4 = nf4_update(tiny=arguments.tiny, threads=arguments.threads)
    for row in (fixed, memory):
        print(row.table() + "\n")
    key = "peak_gpu_gib" if torch.cuda.is_available() else "peak_rss_gib"
    print(f"NF4: peak {nf4[key]} GiB (wanted: at most {MEMORY_TARGET_GIB}), s/update: {nf4['seconds_per_update']}")
    print_json(
        {
            "fixed_ratio": fixed.speed_ratio(FAST.name, [TRL.name]),
            "fixed_value_adapter_ratio": fixed.speed_ratio(ADAPTER.name, [TRL.name]),
            "memory_ratio": memory.memory_ratio(SMALL.name, [TRL.name], key=key),
            "nf4": nf4,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "processor",
            "tiny": arguments.tiny,
            "rows": {row.name: {"workload": row.work.__dict__, "figures": row.figures} for row in (fixed, memory)},
        }
    )


if __name__ == "__main__":
    main()
