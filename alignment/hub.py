"""Asking the Hugging Face Hub whether it has something: once, and for seconds.

Libraries ask for one file after the other, each several times: a minute for a name with a typing error, or for a model
that is in the cache of a machine without a network.
"""

from __future__ import annotations

from typing import Literal

SECONDS = 5.0
"""So long the Hub may take to answer."""


def why_not_there(kind: Literal["model", "dataset"], name: str) -> Exception | None:
    """Why the Hub does not give something by this name; ``None`` if it does.

    Where it does not answer, this process asks it no more: what is in the cache is used.

    Args:
        kind: what it is to be.
        name: of it.
    """
    from huggingface_hub import HfApi, constants  # here: half a second that files do without
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().repo_info(name, repo_type=kind, timeout=SECONDS)
    except HfHubHTTPError as error:
        return error
    except Exception as error:  # whatever the library of the network raises
        constants.HF_HUB_OFFLINE = True
        return error
    return None
