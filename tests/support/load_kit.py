"""The modules of the annotation app's benchmark, for the tests that use them.

    from load_kit import clients, load, served

They are scripts that import each other by name, from a folder that is not among those of the tests.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
clients: Any = import_module("annotation_clients")
served: Any = import_module("annotation_served")
load: Any = import_module("annotation_load")
