"""The command line of ``stages.reward``."""

import sys

from stages import reward
from stages.door.command_line import guarded, parser_for
from stages.reward.train_reward_models import command

parser = parser_for(reward.__doc__ or "", "stages.reward")
instead = parser.add_mutually_exclusive_group()
instead.add_argument("--evaluate-only", action="store_true", help="measure reward.evaluation.models, train none")
instead.add_argument("--ablate", metavar="FACTORS", help="train and compare variants: margin,auxiliary,head,loss")
parsed = parser.parse_intermixed_args()
sys.exit(guarded(lambda: command(parsed)))
