"""The command line of ``stages.export``."""

from stages import export
from stages.door.command_line import run
from stages.export.write_folder import main

run(main, export.__doc__ or "", "stages.export")
