"""One package per stage of the recipe, each runnable as ``python -m stages.NAME``.

Importing this package asks the libraries underneath to be quiet and not to call home; what the user has set wins.
It has to happen before they are imported.
"""

import logging
import os
import sys
import warnings
from types import TracebackType

for _name, _value in {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "GRADIO_ANALYTICS_ENABLED": "False",
}.items():
    os.environ.setdefault(_name, _value)
for _name in ("bitsandbytes", "httpx"):
    logging.getLogger(_name).setLevel(logging.ERROR)
if not sys.warnoptions:
    # TRL 1.16 and PEFT 0.21 use names that Transformers 5.23 has renamed; nobody who runs a stage can mend that.
    warnings.filterwarnings(
        "ignore", r".*gradient_checkpointing.* is deprecated and will be removed in v6", FutureWarning
    )


def _say_stopped(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C before a stage is at work, while libraries are imported, is no error to be traced."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("stopped.", file=sys.stderr)
    raise SystemExit(130)


if sys.excepthook is sys.__excepthook__:
    sys.excepthook = _say_stopped
