"""Where a model is: in a folder, or on the Hub by its name. Needs no torch, so that a wrong name is told at once."""

from __future__ import annotations

import re
from pathlib import Path

from alignment.errors import UserError
from alignment.hub import why_not_there

HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.tiktoken", "*.txt"]
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def find_model(name: str, *, with_code: bool = False, commit: str | None = None) -> Path:
    """The folder of a model: ``name`` itself, or else what the Hub has by that name, downloaded once.

    From the Hub come weights in safetensors, settings and tokenizer, and Python code only where ``with_code`` is on.

    Args:
        name: a folder or a Hub name.
        with_code: fetch the model's own code too.
        commit: of the Hub; default: the newest.

    Raises:
        UserError: there is no such folder, and no such model that the Hub gives.
    """
    from huggingface_hub import snapshot_download  # here, and below: half a second that a folder does without

    if name and Path(name).is_dir():
        return Path(name)
    check_there(name, name)
    wanted = [*HUB_FILES, "*.py"] if with_code else HUB_FILES
    try:
        found = snapshot_download(name, revision=commit, allow_patterns=wanted, ignore_patterns=["*/*"])
        return Path(found)
    except (OSError, ValueError) as error:
        which = f"commit {commit} of {name}" if commit else name
        raise UserError(f"{which}: {why_not(name, error)}") from error


def check_there(name: str, origin: str) -> None:
    """Raise ``UserError`` where a model is no folder, and neither on the Hub nor in its cache.

    Args:
        name: a folder or a Hub name.
        origin: what names it, for the message.
    """
    if name and Path(name).is_dir():
        return
    if not is_hub_name(name) or Path(name).exists():
        raise UserError(f"{origin}: {why_not(name, None)}")
    if (error := why_not_there("model", name)) is not None:
        raise UserError(f"{origin}: {why_not(name, error)}") from error


def folder_of(name: str) -> Path | None:
    """The folder that a model which was loaded by this name came from: itself, or one commit of it on the Hub.

    ``None`` where nothing has been loaded by that name.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def is_hub_name(name: str) -> bool:
    """Whether the Hub could have something by this name."""
    return _HUB_NAME.fullmatch(name) is not None


def why_not(path: str, error: Exception | None) -> str:
    """Why there is nothing to load, in one line: a path that is none is told as such, not as a name on the Hub."""
    place = Path(path)
    if place.is_file():
        return "that is a file; give the folder that it is in"
    if not path or (not place.exists() and not is_hub_name(path)):
        return "there is no such folder"
    if "trust_remote_code" in str(error):
        return "it needs Python code that comes with it; look at that, then pass model.trust_remote_code=true"
    said = first_line(error) if error is not None else "nothing to load"
    return said if place.exists() else f"there is no such folder, and as a name on the Hub: {said}"


def first_line(error: Exception) -> str:
    """What an error says, cut to one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
