"""The command line of ``stages.sft``."""

from stages import sft
from stages.door.command_line import run
from stages.sft.finetune import main

run(main, sft.__doc__ or "", "stages.sft")
