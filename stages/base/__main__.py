"""The door of ``stages.base``."""

import sys
from collections.abc import Sequence

from stages.door.command_line import run_stage
from stages.door.preconditions import check_base


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage as a command line asks; returns the exit code."""
    return run_stage("base", check_base, page="stages.base.write_base_model", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
