"""Errors that are no fault of the program: a full disk, a folder that cannot be written, memory that does not suffice.

Each becomes one message that says what happened, where, and what to do.
"""

from __future__ import annotations

import errno
from pathlib import Path

from alignment.run.run_lock import killed_at

KEPT = "What was finished before is kept; the same command goes on from there."
DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "that is not permitted",
    errno.EPERM: "that is not permitted",
    errno.EIO: "the disk cannot be read or written",
    errno.EMFILE: "too many files are open",
}
"""Error number of the system -> what it means."""
TO_DO = {
    errno.ENOSPC: "Make room.",
    errno.EDQUOT: "Make room.",
    errno.EIO: "See to the disk.",
    errno.EMFILE: "Raise the limit (ulimit -n).",
}
SMALLER = (
    "sft.micro_batch_size_dialogues",
    "reward.helpfulness.micro_batch_size_pairs",
    "reward.safety.micro_batch_size_pairs",
    "rejection.micro_batch_size_dialogues",
    "ppo.micro_batch_size_episodes",
)
"""Settings with which a stage needs less memory and learns the same; it may go on with them."""
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")
"""What libraries say of memory in errors of no kind of their own."""


def fault_of_the_machine(error: BaseException) -> str | None:
    """What to say of an error that the machine is to blame for; ``None`` of any other."""
    if isinstance(error, OSError):
        return _disk(error)
    text = str(error)
    if isinstance(error, MemoryError) or any(words in text.lower() for words in NO_MEMORY):
        return (
            f"out of memory ({(text.splitlines() or ['no more to be had'])[0][:200]}). Lower what passes through the "
            f"model at once: {', '.join(SMALLER)}; they do not change what is learned, and the same command goes on "
            "with them. Where it samples: the stage's batch_size_prompts, with overwrite=true. What was finished "
            "before is kept."
        )
    if "No space left on device" in text or "os error 28" in text:  # from libraries in other languages
        return f"{DISK[errno.ENOSPC]} ({text.splitlines()[0][:200]}). Make room. {KEPT}"
    if isinstance(error, UnicodeEncodeError) and "surrogates not allowed" in text:
        return (
            f"a text holds half a character, which no file can hold: "
            f"{error.object[max(0, error.start - 20) : error.end]!r}. Mend the file that it is from. {KEPT}"
        )
    return None


def killed(root: Path) -> str | None:
    """What to say of a stage of a run whose process ended without a word; ``None`` if none did."""
    if (found := killed_at(root)) is None:
        return None
    stage = str(found.get("stage"))
    smaller = [key for key in SMALLER if key.startswith(f"{stage.rpartition('/')[2]}.")]
    lower = f" If so, lower {' and '.join(smaller)}." if smaller else ""
    process = f"{found.get('pid')} on {found.get('host')}, since {found.get('since')}"
    return (
        f"{root / stage}: the process at it ({process}) ended without a word, as one does that the system kills when "
        f"memory runs out.{lower}"
    )


def _disk(error: OSError) -> str | None:
    if error.errno not in DISK:
        return None
    where = f"{error.filename}: " if error.filename else ""
    todo = TO_DO.get(error.errno, "See to its permissions, or choose another run_dir.")
    return f"{where}{DISK[error.errno]}. {todo} {KEPT}"
