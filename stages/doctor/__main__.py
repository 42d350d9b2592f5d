"""The command line of ``stages.doctor``."""

import sys

from stages import doctor
from stages.doctor.look_over import run_doctor
from stages.door.command_line import guarded, parser_for

parser = parser_for(doctor.__doc__ or "", "stages.doctor")
parser.add_argument("--run", metavar="FOLDER", help="a run folder whose PPO stages to look over")
parsed = parser.parse_intermixed_args()
healthy: list[bool] = []
code = guarded(lambda: healthy.append(run_doctor(parsed)))
sys.exit(code or int(not healthy[0]))
