"""The command line of ``stages.annotate``."""

from stages import annotate
from stages.annotate.collect import main
from stages.door.command_line import run

run(main, annotate.__doc__ or "", "stages.annotate")
