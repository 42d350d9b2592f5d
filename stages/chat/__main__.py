"""The command line of ``stages.chat``."""

import sys

from stages import chat
from stages.chat.talk import main
from stages.door.command_line import guarded, parser_for, recipe_from

parser = parser_for(chat.__doc__ or "", "stages.chat")
parser.add_argument("--policy", default="newest", help="sft, rejection, ppo, ppo-1, ... or newest (default)")
parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two policies side by side")
arguments = parser.parse_intermixed_args()
chosen = arguments.compare or [arguments.policy]
sys.exit(guarded(lambda: main(recipe_from(arguments), chosen)))
