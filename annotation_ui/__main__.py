"""The door of ``python -m annotation_ui`` and ``tandem desk``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from alignment.errors import UserError
from annotation_ui.app_settings import database_of, load_settings
from annotation_ui.cli.command_parser import PROGRAM, command_named, parser, split_words


def main(argv: Sequence[str], program: str = PROGRAM) -> int:
    """Run one command; returns the exit code: 0 done, 2 something that the user can put right, 130 Ctrl-C."""
    words, overrides = split_words(argv)
    whole = "export" in words
    arguments = parser(program, whole=whole).parse_args(words, argparse.Namespace(run=None, config=None))
    try:
        settings = load_settings(arguments.config, overrides)
        database_of(settings, arguments.run)  # which every command needs, so that none is imported in vain
        command_named(arguments.command)(settings, arguments)
    except UserError as error:
        message = f"error: {error}".replace(PROGRAM, program)
        Console(stderr=True).print(message, style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
