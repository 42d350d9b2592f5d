"""``python -m stages`` and the command ``tandem``: list the stages, or run one by its name."""

import sys

from stages.door.command_names import main

if __name__ == "__main__":
    sys.exit(main())
