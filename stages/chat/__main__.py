"""The door of ``stages.chat``."""

import sys
from collections.abc import Sequence

from stages.door.command_line import enter, open_page, parser_for, recipe_from
from stages.door.preconditions import check_chat


def main(argv: Sequence[str] | None = None) -> int:
    """Begin the conversation that a command line asks for; returns the exit code."""
    parser = parser_for("chat")
    parser.add_argument("--policy", default="newest", help="sft, rejection, ppo, ppo-1, ... or newest (default)")
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two policies side by side")
    arguments = parser.parse_intermixed_args(argv)

    def work() -> None:
        recipe = recipe_from(arguments)
        check_chat(recipe)
        open_page("stages.chat.talk", recipe).run(recipe, arguments.compare or [arguments.policy])

    return enter(arguments, work)


if __name__ == "__main__":
    sys.exit(main())
