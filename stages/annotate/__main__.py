"""The door of ``stages.annotate``."""

import sys
from collections.abc import Sequence

from stages.door.command_line import run_stage
from stages.door.preconditions import check_annotate


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage as a command line asks; returns the exit code."""
    return run_stage("annotate", check_annotate, page="stages.annotate.collect", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
