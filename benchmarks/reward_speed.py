"""Training of a reward model by Tandem, measured against TRL's RewardTrainer; run alone: make bench-reward

    Tandem          train_reward_model, as the stage calls it
    TRL             RewardTrainer with its own collator and batches drawn at random
    TRL, grouped    the same with batches of similar length

All train the same adapter and linear head on the same random Llama of 14 million parameters, on the same real pairs:
transcripts of several turns in the hh-rlhf format, without grades. Batches of 16 pairs, one per optimiser step, the
same optimiser and schedule, no gradient checkpointing. Tandem and plain TRL see the same pairs in the same steps; their
losses are compared. Each measurement is a process of its own, which trains on other pairs first.
The last line of the output is a JSON object.

    make bench-reward ARGS="--rows float32 --repeats 3"
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import ppo_rows
from ppo_rows import ROOT
from ppo_speed import CPU_ONLY, TINY_SHAPE, processor
from ppo_workload import available_threads, print_json, versions
from reward_workload import RewardWork

DATA = ROOT.parent / "shared" / "real_data" / "hh_harmless_base.jsonl.gz"
OURS, PLAIN, GROUPED = "Tandem", "TRL", "TRL, grouped"
SIDES = {PLAIN: ("reward_trl.py",), OURS: ("reward_ours.py",), GROUPED: ("reward_trl.py", "--grouped")}
SHAPE = (
    "--hidden=384",
    "--intermediate=1024",
    "--layers=6",
    "--heads=6",
    "--key-value-heads=6",
    "--vocabulary=8192",
    "--context=2048",
)
TINY = (*TINY_SHAPE[:-1], "--vocabulary=300", "--context=2048")
COMPARED_STEPS = 5
"""Steps whose losses must agree: the first, before rounding has grown."""


@dataclass
class Row:
    """One number format, and what each side needed, by repeat."""

    work: RewardWork
    figures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def run(self, *, repeats: int) -> None:
        """Measure: all sides in turn, and again."""
        for repeat in range(repeats):
            for name, (script, *options) in SIDES.items():
                print(f"{self.work.dtype}: {name}, {repeat + 1} of {repeats} ...", file=sys.stderr, flush=True)
                found = ppo_rows.run_script(script, [*self.work.options, *options], environment=CPU_ONLY)
                self.figures.setdefault(name, []).append(found)

    def of(self, name: str, key: str) -> list[float]:
        """A figure of one side, by repeat."""
        return [found[key] for found in self.figures[name]]

    def ratio(self, peer: str) -> float:
        """Pairs per second against a peer: the median of the repeats' ratios."""
        pairs = zip(self.of(OURS, "pairs_per_s"), self.of(peer, "pairs_per_s"), strict=True)
        return round(median(own / other for own, other in pairs), 3)

    @property
    def loss_difference(self) -> float:
        """Between Tandem and plain TRL, at most, in the first steps."""
        ours, peers = ([found["losses"] for found in self.figures[name]] for name in (OURS, PLAIN))
        return max(
            abs(own - other)
            for losses, others in zip(ours, peers, strict=True)
            for own, other in list(zip(losses, others, strict=True))[:COMPARED_STEPS]
        )

    def table(self) -> str:
        """A line for each side."""
        head = (
            f"{self.work.dtype:<16}{'pairs/s':>9}{'repeats':>20}{'tokens/pair':>13}{'passes/step':>13}{'peak GiB':>10}"
        )
        lines = [head, "-" * len(head)]
        for name in SIDES:
            speeds = self.of(name, "pairs_per_s")
            each = " ".join(f"{speed:.2f}" for speed in speeds)
            tokens, passes = (self.of(name, key)[0] for key in ("tokens_per_pair", "passes_per_step"))
            peak = max(self.of(name, "peak_rss_gib"))
            lines.append(f"{name:<16}{median(speeds):>9.2f}{each:>20}{tokens:>13.1f}{passes:>13.2f}{peak:>10.2f}")
        return "\n".join(lines)


def ratios(rows: dict[str, Row]) -> dict[str, float | None]:
    """Tandem to TRL; without a suffix, in float32."""
    found: dict[str, float | None] = dict.fromkeys(("pairs_ratio", "grouped_ratio", "max_loss_difference"))
    for name, row in rows.items():
        suffix = "" if name == "float32" else f"_{name}"
        found[f"pairs_ratio{suffix}"] = row.ratio(PLAIN)
        found[f"grouped_ratio{suffix}"] = row.ratio(GROUPED)
        found[f"max_loss_difference{suffix}"] = row.loss_difference
    return found


def report(rows: dict[str, Row], *, parameters: int, repeats: int) -> None:
    """Tables, ratios, and the JSON object."""
    found = ratios(rows)
    print(f"Random Llama of {parameters / 1e6:.1f} million parameters\n")
    for row in rows.values():
        print(row.table() + "\n")
    for name, value in found.items():
        print(f"{name:<32}{'not measured' if value is None else f'{value:.3g}':>12}")
    machine = {"processor": processor(), "python": platform.python_version(), "threads": available_threads()}
    figures = {name: {"workload": row.work.__dict__, "figures": row.figures} for name, row in rows.items()}
    rest = {"parameters": parameters, "repeats": repeats, "machine": machine, "versions": versions(), "rows": figures}
    print_json({**found, **rest})


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="preference pairs; default: %(default)s")
    parser.add_argument("--rows", default="float32,bfloat16", help="number formats, with commas between")
    parser.add_argument("--batch", type=int, default=16, help="pairs per step, on both sides")
    parser.add_argument("--steps", type=int, default=8, help="timed steps")
    parser.add_argument("--learning-rate", type=float, default=RewardWork.learning_rate, help="peak, on both sides")
    parser.add_argument("--repeats", type=int, default=2, help="of each measurement")
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--quick", action="store_true", help="a tiny model, once: does it run?")
    arguments = parser.parse_args(argv)
    if not arguments.data.is_file():
        parser.error(f"{arguments.data}: no such file. Name preference pairs in the hh-rlhf format with --data FILE")
    arguments.rows = arguments.rows.split(",")
    unknown = sorted(set(arguments.rows) - {"float32", "bfloat16"})
    if unknown:
        parser.error(f"--rows: there is no {unknown[0]!r}; there are float32, bfloat16")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    arguments = parse(argv)
    repeats = 1 if arguments.quick else arguments.repeats
    with tempfile.TemporaryDirectory() as scratch:
        print("making model and pairs ...", file=sys.stderr, flush=True)
        made = [scratch, f"--data={arguments.data}", *(TINY if arguments.quick else SHAPE)]
        made += [f"--batch={arguments.batch}", f"--steps={arguments.steps}"]
        parameters = ppo_rows.run_script("reward_pairs.py", made, environment=CPU_ONLY)["parameters"]
        work = RewardWork(
            folder=scratch,
            batch=arguments.batch,
            learning_rate=arguments.learning_rate,
            threads=arguments.threads,
        )
        rows = {name: Row(replace(work, dtype=name)) for name in arguments.rows}
        for row in rows.values():
            row.run(repeats=repeats)
    report(rows, parameters=parameters, repeats=repeats)


if __name__ == "__main__":
    main()
