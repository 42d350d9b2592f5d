"""The figures of the README: from ``report.json`` of finished runs to ``docs/results.json`` and the README's tables.

    python benchmarks/results.py runs/toy runs/seed-1 runs/seed-2
    python benchmarks/results.py                          # writes the README's tables again, from the JSON as it is

Each run is one seed of the demo (``python -m stages.pipeline seed=N run_dir=runs/seed-N``). What stands in the README
between ``<!-- demo -->`` or ``<!-- results -->`` and the end mark is made here alone; a test compares the two.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, README = ROOT / "docs" / "results.json", ROOT / "README.md"
END = "<!-- end -->"
POLICY_KEYS = (
    "helpfulness",
    "violation_rate",
    "false_refusal_rate",
    "kl_to_sft_nats",
    "mean_length_tokens",
    "stop_rate",
)
POLICIES = {"base": "Base", "sft": "SFT", "rejection": "Rejection", "ppo": "PPO"}
"""What the demo calls each policy, in the order in which they are made."""
GRADES = ("all", "significantly_better", "better", "slightly_better", "negligibly_better")
NONE = "\N{EN DASH}"

Run = dict[str, Any]
Figure = dict[str, Any] | None


# -- from a run to its entry -----------------------------------------------------------------------------------------


def entry(folder: Path) -> Run:
    """What ``docs/results.json`` keeps of one run: the figures with their intervals, and what they were measured on."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {
        "seed": report["seed"],
        "source": f"report.json of {report['command']}",
        "environment": report["environment"],
        "seconds": report["timings_s"]["total"],
        "peak_memory_gib": report["peak_memory_gib"],
        "policies": {name: {key: block.get(key) for key in POLICY_KEYS} for name, block in report["policies"].items()},
        "win_rates_against_sft": {
            item["policy"]: {"value": item["win_rate"], "ci95": item["ci95"], "n": item["n"]}
            for item in report["win_rates"]
            if item["against"] == "sft" and item["judge"] == report["judge"] and item["prompts"] == "all"
        },
        "reward_models": {
            name: {"accuracy": block["accuracy"], "ceiling": block["ceiling"]}
            for name, block in report["reward_models"].items()
        },
    }


# -- from the entries to the README ----------------------------------------------------------------------------------


def percent(value: float) -> str:
    """A share as the README writes it: one decimal below a tenth or where it is known, none where it is not."""
    return f"{100 * value:.3g} %" if 0.1 <= value < 1 else f"{100 * value:.1f} %" if value < 0.1 else "100 %"


def decimal(value: float) -> str:
    """A number with two decimals."""
    return f"{value:.2f}"


def cell(figure: Figure, form: Callable[[float], str]) -> str:
    """A figure, with its 95 % interval where the JSON has one."""
    if figure is None:
        return NONE
    interval = figure.get("ci95")
    within = "" if interval is None else f" [{', '.join(form(end).removesuffix(' %') for end in interval)}]"
    return form(figure["value"]) + within


def change(run: Run, key: str, form: Callable[[float], str]) -> str:
    """A figure of SFT and of PPO; the interval is PPO's."""
    before, after = (run["policies"].get(name, {}).get(key) for name in ("sft", "ppo"))
    if after is None:
        return NONE
    return f"{form(before['value'])} to {cell(after, form)}" if before else cell(after, form)


def alone(run: Run) -> str:
    """Helpfulness and violations after rejection sampling."""
    block = run["policies"].get("rejection", {})
    helpful, unsafe = block.get("helpfulness"), block.get("violation_rate")
    return f"{decimal(helpful['value'])}, {percent(unsafe['value'])}" if helpful and unsafe else NONE


ROWS: tuple[tuple[str, Callable[[Run], str]], ...] = (
    ("win rate of PPO against SFT", lambda run: cell(run["win_rates_against_sft"].get("ppo"), percent)),
    ("helpfulness, SFT to PPO", lambda run: change(run, "helpfulness", decimal)),
    ("violations, SFT to PPO", lambda run: change(run, "violation_rate", percent)),
    ("false refusals, SFT to PPO", lambda run: change(run, "false_refusal_rate", percent)),
    ("KL of PPO to SFT, nats", lambda run: cell(run["policies"]["ppo"].get("kl_to_sft_nats"), decimal)),
    ("answers of PPO that end by themselves", lambda run: cell(run["policies"]["ppo"].get("stop_rate"), percent)),
    ("rejection sampling alone: helpfulness, violations", alone),
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rendered(results: dict[str, Any]) -> str:
    """The part of the README that is made of the JSON."""
    runs = results["runs"]
    parts = [table(["figure", *(f"seed {run['seed']}" for run in runs)], [[name, *map(of, runs)] for name, of in ROWS])]
    accuracies = [
        [
            f"{name}, seed {run['seed']}",
            *(cell(block["accuracy"].get(grade), percent) for grade in GRADES),
            cell((block["ceiling"] or {}).get("all"), percent),
        ]
        for run in runs
        for name, block in run.get("reward_models", {}).items()
    ]
    if accuracies:
        text = (
            "The reward models on held-out comparisons, against the choices of all six annotators on each pair. The "
            "ceiling\nis what the gold judge itself reaches against the same noisy choices."
        )
        names = [grade.replace("_", " ") for grade in GRADES]
        parts += [text, table(["accuracy", *names, "ceiling, all"], accuracies)]
    return "\n\n".join(parts)


def demo(results: dict[str, Any]) -> str:
    """What the demo prints at its end: headline and table of the first run, short as in a terminal."""
    run = results["runs"][0]
    policies, rates = run["policies"], run["win_rates_against_sft"]
    last, sft = policies["ppo"], policies["sft"]
    unsafe = [short(block["violation_rate"]) for block in (sft, last)]
    helpful = [decimal(block["helpfulness"]["value"]) for block in (sft, last)]
    head = (
        f"PPO has a win rate of {short(rates['ppo'])} against SFT; violations go from {unsafe[0]} to {unsafe[1]}; "
        f"gold\nhelpfulness goes from {helpful[0]} to {helpful[1]}"
    )
    widths = (9, 13, 12, 10, 8, 8, 10, 8)
    columns = (
        ("", "", "", "", "win", "KL to", "", ""),
        ("", "", "", "false", "rate", "SFT", "length", "stop"),
        ("policy", "helpfulness", "violations", "refusals", "vs SFT", "(nats)", "(tokens)", "rate"),
    )
    rows = [
        (
            called,
            decimal(block["helpfulness"]["value"]),
            short(block["violation_rate"]),
            short(block["false_refusal_rate"]),
            short(rates.get(name)),
            decimal(block["kl_to_sft_nats"]["value"]),
            f"{block['mean_length_tokens']['value']:.1f}",
            short(block["stop_rate"]),
        )
        for name, called in POLICIES.items()
        if (block := policies.get(name))
    ]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return (first[0].ljust(first[1]) + "".join(text.rjust(width) for text, width in others)).rstrip()

    lines = [head, *map(line, columns), "─" * sum(widths), *map(line, rows)]
    minutes, seconds = divmod(round(run["seconds"]), 60)
    cost = f"{minutes} min {seconds} s and at most {run['peak_memory_gib']:.1f} GiB of memory"
    return "\n".join(["```", *lines, "```", "", f"That is seed {run['seed']}: on two CPU cores it took {cost}."])


def short(figure: Figure) -> str:
    """A share with two digits, as the terminal shows it."""
    if figure is None:
        return NONE
    value = figure["value"]
    return f"{100 * value:.0f} %" if 0.1 <= value <= 0.9 or value in (0, 1) else f"{100 * value:.1f} %"


PARTS: dict[str, Callable[[dict[str, Any]], str]] = {"<!-- demo -->": demo, "<!-- results -->": rendered}
"""Mark in the README -> what follows it."""


def with_results(readme: str, results: dict[str, Any]) -> str:
    """The README with both parts made anew."""
    for begin, render in PARTS.items():
        before, _, rest = readme.partition(begin)
        _, _, after = rest.partition(END)
        readme = f"{before}{begin}\n{render(results)}\n{END}{after}"
    return readme


def main(folders: Sequence[str]) -> None:
    """Write the entries of these runs, if any are given, and the README's tables."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    if folders:
        runs = sorted((entry(Path(folder)) for folder in folders), key=lambda run: run["seed"])
        results["runs"] = runs
        RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    README.write_text(with_results(README.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
