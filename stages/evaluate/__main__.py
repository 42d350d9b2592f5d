"""The door of ``stages.evaluate``."""

import sys
from collections.abc import Sequence

from stages.door.command_line import run_stage
from stages.door.preconditions import check_evaluate


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage as a command line asks; returns the exit code."""
    return run_stage("evaluate", check_evaluate, page="stages.evaluate.judge_policies", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
