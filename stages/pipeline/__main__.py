"""The command line of ``stages.pipeline``."""

from stages import pipeline
from stages.door.command_line import run
from stages.pipeline.run_stages import main

run(main, pipeline.__doc__ or "", "stages.pipeline")
