"""The door of ``stages.reward``: train the reward models, or instead evaluate any, or compare variants."""

import sys
from collections.abc import Sequence

from stages.door.command_line import enter, open_page, parser_for, recipe_from
from stages.door.preconditions import check_ablation, check_reward, check_reward_evaluation


def main(argv: Sequence[str] | None = None) -> int:
    """Run what a command line asks for; returns the exit code."""
    parser = parser_for("reward")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--evaluate-only", action="store_true", help="measure reward.evaluation.models, train none")
    instead.add_argument("--ablate", metavar="FACTORS", help="train and compare variants: margin,auxiliary,head,loss")
    arguments = parser.parse_intermixed_args(argv)

    def work() -> None:
        recipe = recipe_from(arguments)
        if arguments.evaluate_only:
            check_reward_evaluation(recipe)
            open_page("stages.reward.evaluate_only", recipe).evaluate_only(recipe)
        elif arguments.ablate:
            check_ablation(recipe)
            open_page("stages.reward.ablate", recipe).ablate(recipe, arguments.ablate.split(","))
        else:
            check_reward(recipe)
            open_page("stages.reward.train_reward_models", recipe).run(recipe)

    return enter(arguments, work)


if __name__ == "__main__":
    sys.exit(main())
