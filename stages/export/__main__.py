"""The door of ``stages.export``."""

import sys
from collections.abc import Sequence

from stages.door.command_line import run_stage
from stages.door.preconditions import check_export


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage as a command line asks; returns the exit code."""
    return run_stage("export", check_export, page="stages.export.write_folder", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
