"""The door of ``stages.ppo``."""

import sys
from collections.abc import Sequence

from stages.door.command_line import run_stage
from stages.door.preconditions import check_ppo


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage as a command line asks; returns the exit code."""
    return run_stage("ppo", check_ppo, page="stages.ppo.train_policy", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
