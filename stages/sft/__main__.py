"""The door of ``stages.sft``."""

import sys
from collections.abc import Sequence

from stages.door.command_line import run_stage
from stages.door.preconditions import check_sft


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage as a command line asks; returns the exit code."""
    return run_stage("sft", check_sft, page="stages.sft.finetune", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
