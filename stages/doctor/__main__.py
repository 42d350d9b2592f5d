"""The door of ``stages.doctor``."""

import sys
from collections.abc import Sequence

from alignment.errors import UserError
from stages.doctor.run_findings import run_is_healthy
from stages.door.command_line import enter, open_page, parser_for, recipe_from


def main(argv: Sequence[str] | None = None) -> int:
    """Look over what a command line names; returns the exit code, 1 where it is not healthy."""
    parser = parser_for("doctor")
    parser.add_argument("--run", metavar="FOLDER", help="a run folder whose PPO stages to look over")
    arguments = parser.parse_intermixed_args(argv)
    healthy: list[bool] = []

    def work() -> None:
        if arguments.run is None:
            recipe = recipe_from(arguments)
            healthy.append(open_page("stages.doctor.recipe_checks", recipe).recipe_is_healthy(recipe))
            return
        if arguments.config or arguments.overrides:
            raise UserError(
                "--run reads the settings from the run: leave --config and key=value out, or leave --run out"
            )
        healthy.append(run_is_healthy(arguments.run))

    code = enter(arguments, work)
    return code or int(not all(healthy))


if __name__ == "__main__":
    sys.exit(main())
