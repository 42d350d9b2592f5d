"""``python -m stages`` and the command ``tandem``: list the stages, or run one by its name."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from rich.console import Console

from stages.door.progress_and_exit import DESK, as_called, is_tandem

STAGES = {
    "pipeline": "the whole recipe: the next six stages, one after the other",
    "base": "pretrain the toy base model",
    "sft": "fine-tune on dialogues that people wrote or chose",
    "annotate": "collect comparisons, simulated, from a file or from people",
    "reward": "train the helpfulness and the safety reward model",
    "ppo": "improve the policy: rejection sampling, then PPO",
    "evaluate": "judge every policy, and write report.html",
    "chat": "talk to a policy",
    "doctor": "check a recipe before a run, or how PPO went in one",
    "export": "write a reward model or a policy as a standard folder",
}
"""Name of a stage, and what it does."""
APP = "the annotation app: serve it, make accounts, import, export, report"
"""What the command ``tandem desk`` is."""


def main(argv: Sequence[str] | None = None) -> int:
    """``tandem NAME ...``: run a stage or the app by its name, or list what there is; returns the exit code."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        Console().out(overview(), highlight=False)
        return 0
    if name == DESK:
        return int(_door("annotation_ui").main(words, program=as_called("python -m annotation_ui")))
    if name in STAGES:
        return int(_door(f"stages.{name}").main(words))
    nearest = difflib.get_close_matches(name, [*STAGES, DESK], n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join([*STAGES, DESK])}"
    print(f"error: no such command: {name}; {hint}", file=sys.stderr)
    return 2


def _door(package: str) -> ModuleType:
    """The module that ``python -m PACKAGE`` runs; imported by name, so that no other stage is."""
    return importlib.import_module(f"{package}.__main__")


def overview() -> str:
    """Every command, a line each."""
    program = "tandem" if is_tandem() else "python -m stages"
    lines = [f"usage: {program} NAME [options] [key=value ...]", ""]
    lines += [f"  {name:<10}{what}" for name, what in {**STAGES, DESK: APP}.items()]
    return "\n".join([*lines, "", f"Each explains itself and its settings: {program} NAME --help"])


if __name__ == "__main__":
    sys.exit(main())
