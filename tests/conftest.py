"""Settings that the libraries read when they are imported: no network, no telemetry, no display."""

from __future__ import annotations

import os

os.environ.update(
    {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_OFFLINE": "1",
    }
)
