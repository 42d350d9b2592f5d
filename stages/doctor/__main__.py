"""The door of ``stages.doctor``."""

import sys
from collections.abc import Sequence

from alignment.errors import UserError
from stages.doctor.run_contents import accept_stage, run_is_as_made
from stages.doctor.run_findings import run_is_healthy
from stages.door.command_line import enter, open_page, parser_for, recipe_from


def main(argv: Sequence[str] | None = None) -> int:
    """Look over what a command line names; returns the exit code, 1 where it is not healthy."""
    parser = parser_for("doctor")
    parser.add_argument("--run", metavar="FOLDER", help="a run folder whose PPO stages to look over")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--verify", action="store_true", help="read every byte: is the run what its stages made?")
    what.add_argument("--accept", metavar="STAGE", help="take the files of a stage, round-1/annotate say, as they are")
    arguments = parser.parse_intermixed_args(argv)
    healthy: list[bool] = []

    def work() -> None:
        if arguments.run is None:
            if arguments.verify or arguments.accept:
                raise UserError("--verify and --accept are about a run: give --run FOLDER")
            recipe = recipe_from(arguments)
            healthy.append(open_page("stages.doctor.recipe_checks", recipe).recipe_is_healthy(recipe))
            return
        if arguments.config or arguments.overrides:
            raise UserError(
                "--run reads the settings from the run: leave --config and key=value out, or leave --run out"
            )
        if arguments.accept:
            accept_stage(arguments.run, arguments.accept)
        else:
            healthy.append((run_is_as_made if arguments.verify else run_is_healthy)(arguments.run))

    code = enter(arguments, work)
    return code or int(not all(healthy))


if __name__ == "__main__":
    sys.exit(main())
