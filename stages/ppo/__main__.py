"""The command line of ``stages.ppo``."""

from stages import ppo
from stages.door.command_line import run
from stages.ppo.train_policy import main

run(main, ppo.__doc__ or "", "stages.ppo")
