"""Commands in what people are told: the one that they gave, for another stage or again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_GIVEN: ContextVar[tuple[str, ...] | None] = ContextVar("given", default=None)


@contextmanager
def called_with(config: str | None, overrides: Sequence[str]) -> Iterator[None]:
    """While the block runs, commands that are told say what was said on this command line."""
    token = _GIVEN.set((*(("--config", config) if config else ()), *overrides))
    try:
        yield
    finally:
        _GIVEN.reset(token)


def command(stage: str, run_dir: Path, *settings: str) -> str:
    """The command that runs a stage as the present one was called.

    Args:
        stage: as in ``python -m stages.NAME``.
        run_dir: the run, named where the present command is not known.
        settings: ``key=value`` of its own, which take the place of those that were given.
    """
    given = _GIVEN.get()
    words = (f"run_dir={run_dir}",) if given is None else given
    own = {item.partition("=")[0] for item in settings} | {"overwrite"}
    kept = [word for word in words if word.partition("=")[0] not in own]
    return " ".join([f"python -m stages.{stage}", *map(shlex.quote, (*kept, *settings))])
