"""How a stage ends: errors as one message without a traceback, and the exit code that says which kind of end it was."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, NoReturn

from alignment.errors import UserError
from stages.door.command_names import as_called
from stages.door.progress import console


class Terminated(BaseException):
    """SIGTERM arrived."""


def guarded(work: Callable[[], Any]) -> int:
    """Run ``work``; returns the exit code.

    0: done. 1: the numbers went bad. 2: something that the user can put right. 130: Ctrl-C. 143: SIGTERM.
    """
    signal.signal(signal.SIGTERM, _stop)
    try:
        work()
    except UserError as error:
        say_error(str(error))
        return 2
    except FloatingPointError as error:
        say_error(f"{error}. A lower learning rate is the first thing to try (with overwrite=true).")
        return 1
    except (KeyboardInterrupt, Terminated) as stopped:
        kept = "Finished stages are kept; the same command, without overwrite=true, goes on from there."
        console.print(f"stopped. {kept}", soft_wrap=True)
        return 143 if isinstance(stopped, Terminated) else 130
    return 0


def _stop(*unused: Any) -> NoReturn:
    raise Terminated


def say_error(message: str) -> None:
    """One message on standard error; a terminal folds long lines, a log gets them whole."""
    console.print(f"error: {as_called(message)}", style="bold red", markup=False, highlight=False, soft_wrap=True)
