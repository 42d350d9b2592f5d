"""Asking the Hugging Face Hub whether it has something, before libraries do.

They ask for one file after the other, each several times: a minute for a name with a typing error, or for a model that
is in the cache of a machine without a network.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Literal

SECONDS = 5.0
"""So long the Hub may take to answer; after that, a library is to try, which waits longer."""
REMEMBERED_S = 120.0
"""So long what the Hub has is not asked for again: from a stage's door to the loading of the model."""
_FOUND: dict[tuple[str, str], float] = {}
"""(kind, name) -> when the Hub had it."""


def why_not_there(kind: Literal["model", "dataset"], name: str) -> Exception | None:
    """Why the Hub does not give something by this name; ``None`` if it does, or may.

    Where it cannot be reached and the cache has it, this process asks the Hub no more, and that is no reason.

    Args:
        kind: what it is to be.
        name: of it.
    """
    from huggingface_hub import constants  # here, and below: half a second that files do without
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    is_cached = (Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}").is_dir()
    try:
        _ask(kind, name)
    except (HfHubHTTPError, HFValidationError) as error:
        return None if is_cached else error
    except Exception as error:  # whatever the library of the network raises
        if "timeout" in type(error).__name__.lower():
            return None
        if not is_cached:
            return error
        constants.HF_HUB_OFFLINE = True
    return None


def _ask(kind: Literal["model", "dataset"], name: str) -> None:
    """Ask the Hub for a name, unless it had it a moment ago; raises what the Hub or the network does."""
    from huggingface_hub import HfApi

    if time.monotonic() - _FOUND.get((kind, name), -math.inf) > REMEMBERED_S:
        HfApi().repo_info(name, repo_type=kind, timeout=SECONDS)
        _FOUND[kind, name] = time.monotonic()
