"""The command line of ``stages.base``."""

from stages import base
from stages.base.pretrain import main
from stages.door.command_line import run

run(main, base.__doc__ or "", "stages.base")
