"""The command line of ``stages.evaluate``."""

from stages import evaluate
from stages.door.command_line import run
from stages.evaluate.judge_policies import main

run(main, evaluate.__doc__ or "", "stages.evaluate")
