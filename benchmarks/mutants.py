"""Plant wrong changes in a copy of the tree and see whether tests fail: make mutants, or

    python benchmarks/mutants.py --seed 0 --count 200    # drawn from all that could be changed
    python benchmarks/mutants.py --planted               # those of planted_changes.json, each by the test named there
    python benchmarks/mutants.py --planted --count 200   # both
    python benchmarks/mutants.py --again                 # what was not caught, with the tests of now

Drawn changes are asked of the tests that reach them, so ``make mutants-coverage`` has to record first. The working tree
is never changed. Verdicts stand in ``.mutants``; the same command goes on where it was stopped. Ends with exit code 1
where fewer than 95 % are caught.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mutant_anchors import Mutant, difference
from mutant_copy import end_like_ctrl_c, tracked, tree_digest
from mutant_coverage import ROOT, STATE
from mutant_tests import Recording
from mutant_verdicts import LIMIT_S, Bench, Question, Verdicts, ask_all, check_without_changes

DATA_ENCODING = ("chat_template", "control_tokens", "dialogue_encoder", "encoded_dialogues", "splits")
MODULES = (
    "alignment/masks_padding_logprobs.py",
    *(f"alignment/data/{name}.py" for name in DATA_ENCODING),
    "alignment/models/",
    "alignment/reward/",
    "alignment/rl/",
    "stages/",
)
"""Modules and folders of modules that changes are drawn from."""
HERE = Path(__file__).resolve().parent
PLANTED, EXPLAINED = HERE / "planted_changes.json", HERE / "explained_mutants.json"
VERDICTS = ("caught", "survived", "timed out", "not reached", "gone", "unclear")
SHARE_CAUGHT = 0.95


def planted_questions() -> list[Question]:
    """The planted changes, each asked of the test that is named with it."""
    rows = json.loads(PLANTED.read_text(encoding="utf-8"))
    return [Question(Mutant.of(row), (row["test"],), row["number"]) for row in rows]


def drawn_questions(root: Path, places: Sequence[str], *, seed: int, count: int) -> list[Question]:
    """Changes by ``seed``, each asked of the tests that reach it; prints from what they are drawn."""
    from mutant_sites import draw, find_sites

    files = tracked(root)
    recording = Recording(root, root / STATE / "recording")
    if not recording.seconds:
        raise SystemExit("nothing is recorded of which test reaches which line; do that first: make mutants-coverage")
    tests = [file for file in files if Path(file).name.startswith("test_") and file.endswith(".py")]
    for what, names in (
        ("are not recorded, so they are not asked", recording.unrecorded(tests)),
        ("have changed since they were recorded", recording.changed),
        ("were recorded and are no longer there", recording.gone),
    ):
        if names:
            print(f"{len(names)} test files {what}: {' '.join(names)}")
    found = find_sites(root, [file for file in files if file.endswith(".py") and file.startswith(tuple(places))])
    left_out = ", ".join(f"{number} {reason}" for reason, number in found.left_out.most_common())
    print(f"{len(found.sites)} changes to draw from; left out: {left_out or 'none'}")
    mutants = list(islice(draw(found.sites, seed=seed), count))
    sources = {mutant.module: (root / mutant.module).read_text(encoding="utf-8") for mutant in mutants}
    return [Question(mutant, tuple(recording.tests_for(mutant, sources[mutant.module]))) for mutant in mutants]


def explained() -> dict[Mutant, str]:
    """Changes that no test need catch, and why."""
    return {Mutant.of(row): row["why"] for row in json.loads(EXPLAINED.read_text(encoding="utf-8"))}


def report(rows: Sequence[dict[str, Any]], reasons: dict[Mutant, str]) -> float:
    """Print what was not caught and the table; returns the share caught."""
    for row in rows:
        mutant = Mutant.of(row)
        if row["verdict"] != "caught":
            asked = f"{row['passed']} of {row['asked']} tests passed" + (f"; {row['why']}" if "why" in row else "")
            print(f"\n{row['verdict']} ({asked})\n{difference(mutant)}")
            if mutant in reasons:
                print(f"  explained: {reasons[mutant]}")
    counts = Counter(row["verdict"] for row in rows)
    print()
    for name in VERDICTS:
        why = sum(row["verdict"] == name and Mutant.of(row) in reasons for row in rows)
        print(f"{name:<12} {counts[name]:4}" + (f"   {why} explained" if why else ""))
    share = counts["caught"] / len(rows)
    print(f"{'share caught':<12} {100 * share:.1f} % of {len(rows)}")
    return share


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Ask, report, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="how many to draw; default 200, or none with --planted")
    parser.add_argument("--planted", action="store_true", help="plant the changes of planted_changes.json")
    parser.add_argument("--again", action="store_true", help="keep what was caught, ask about all else once more")
    parser.add_argument("--modules", nargs="+", default=MODULES, help="modules, and folders with a slash at the end")
    parser.add_argument("--workers", type=int, default=2, help="mutants that are asked at the same time")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="for one mutant")
    given = parser.parse_args(arguments)
    (root / STATE).mkdir(exist_ok=True)
    try:
        with FileLock(root / STATE / "lock", timeout=0):
            return run(given, root)
    except Timeout:
        raise SystemExit(f"mutants are being asked already: {root / STATE / 'lock'} is taken") from None


def run(given: argparse.Namespace, root: Path) -> int:
    """What the command line asks for; returns the exit code."""
    began = time.monotonic()
    count = given.count if given.count is not None else 0 if given.planted else 200
    questions = planted_questions() if given.planted else []
    if count:
        questions += drawn_questions(root, given.modules, seed=given.seed, count=count)
    verdicts = Verdicts(root / STATE / "verdicts.jsonl", tree_digest(root), again=given.again)
    known = sum(item.key in verdicts.rows for item in questions)
    if verdicts.is_new_tree and not given.again:
        print("code, tests or data have changed since the last run, so every mutant is asked anew")
    print(f"{len(questions)} mutants, of which {known} have a verdict already", flush=True)

    # Ask.
    def say(row: dict[str, Any]) -> None:
        nonlocal known
        known += 1
        where = f"{row['number']} {row['module']} {row['function']}".strip()
        print(f"{known:4}/{len(questions)} {row['verdict']:<11} {row['seconds']:5.1f} s  {where}", flush=True)

    folders = [root / STATE / "copies" / str(number) for number in range(max(1, given.workers))]
    folders_of_code = {Path(file).parts[0] for file in tracked(root) if file.endswith(".py") and "/" in file}
    packages = sorted(folders_of_code - {"benchmarks", "tests"})
    benches = [Bench(root, folder, packages) for folder in folders]
    try:
        ask_all(questions, verdicts, benches, limit_s=given.limit_s, on_row=say)

        # A test that fails without the change has caught nothing.
        rows = [verdicts.rows[item.key] for item in questions]
        for row in check_without_changes(rows, benches[0]):
            verdicts.add(row | {"verdict": "unclear", "why": f"{row['caught_by']} fails without the change, too"})
    finally:
        for bench in benches:
            bench.server.end()
    share = report([verdicts.rows[item.key] for item in questions], explained())
    print(f"{'minutes':<12} {(time.monotonic() - began) / 60:.1f}, of this run")
    return int(share < SHARE_CAUGHT)


if __name__ == "__main__":
    end_like_ctrl_c()
    sys.exit(main(sys.argv[1:]))
