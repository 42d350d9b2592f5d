"""The annotation app and its store, from the command line.

    python -m annotation_ui --run runs/toy
    python -m annotation_ui users add ada --run runs/toy --role annotator
    python -m annotation_ui report --run runs/toy

Without a command, it serves. Settings: configs/annotation.yaml, or --config, then key.sub=value.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from alignment.config import recipe_keys
from alignment.errors import UserError
from annotation_ui import commands
from annotation_ui.session import AccountRole
from annotation_ui.settings import DEFAULT_SETTINGS, AppSettings, ProjectSettings, VariantSettings, load_settings

_Commands = Any


class _Help(argparse.Action):
    """``--help``: the command's own, then every setting."""

    def __init__(self, option_strings: list[str], dest: str, **unused: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show every setting and exit")

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> NoReturn:
        print(parser.format_help())
        print(f"settings (in {DEFAULT_SETTINGS} or a file of your own, or as key=value on the command line):")
        for section, prefix in ((AppSettings, ""), (ProjectSettings, "projects.NAME."), (VariantSettings, "variants.")):
            for key, kind, default, description in recipe_keys(section, prefix):
                if key != "projects.NAME.name":
                    print(f"  {key} : {kind} = {default}\n      {description}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("-h", "--help", action=_Help)
    # Suppressed: a command's own default would undo what stands before the command.
    place = "run folder; its store is RUN/annotation/annotations.db"
    shared.add_argument("--run", type=Path, metavar="RUN", default=argparse.SUPPRESS, help=place)
    file = f"settings; default {DEFAULT_SETTINGS}"
    shared.add_argument("--config", metavar="FILE.yaml", default=argparse.SUPPRESS, help=file)
    top = argparse.ArgumentParser(
        prog="python -m annotation_ui",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
        add_help=False,
    )
    added = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    _add_serve(added, shared)
    _add_users(added, shared)
    _add_report(added, shared)
    _add_backup(added, shared)
    return top


def _command(added: _Commands, name: str, do: Any, shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
    summary = (do.__doc__ or "").splitlines()[0]
    made: argparse.ArgumentParser = added.add_parser(
        name, help=summary, description=summary, parents=[shared], add_help=False
    )
    made.set_defaults(do=do)
    return made


def _add_serve(added: _Commands, shared: argparse.ArgumentParser) -> None:
    made = _command(added, "serve", commands.serve_app, shared)
    made.add_argument("--pairs-only", action="store_true", help="serve pairs sampled before; load no model, no torch")
    made.add_argument("--allow-remote", action="store_true", help="let host= be an address that others reach")
    made.add_argument("--https", action="store_true", help="browsers come through an HTTPS proxy: mark cookies so")


def _add_users(added: _Commands, shared: argparse.ArgumentParser) -> None:
    made = _command(added, "users", commands.users, shared)
    what = made.add_subparsers(title="what to do", metavar="WHAT", dest="what", required=True)

    def one(name: str, summary: str) -> argparse.ArgumentParser:
        sub = what.add_parser(name, help=summary, description=summary, parents=[shared], add_help=False)
        sub.add_argument("name", metavar="NAME")
        return sub

    for name, summary in (("add", "make an account"), ("password", "set another password")):
        sub = one(name, summary)
        sub.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
        if name == "add":
            sub.add_argument("--role", choices=get_args(AccountRole), default="annotator")
    one("close", "end an account's access; its judgments stay")
    one("reopen", "let a closed account sign in again")
    one("withdraw", "take an annotator's data out of every later export")
    for name, summary in (
        ("qualify", "let somebody work without the test"),
        ("reset-test", "give somebody their tries at the test again"),
    ):
        one(name, summary).add_argument("--project", required=True)
    what.add_parser("list", help="all accounts", parents=[shared], add_help=False)


def _add_report(added: _Commands, shared: argparse.ArgumentParser) -> None:
    made = _command(added, "report", commands.report, shared)
    made.add_argument("--project", help="only this one")
    made.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots instead")
    made.add_argument("--json", action="store_true", help="print JSON instead")
    made.add_argument("--names", action="store_true", help="user names in place of pseudonyms")


def _add_backup(added: _Commands, shared: argparse.ArgumentParser) -> None:
    _command(added, "backup", commands.backup, shared).add_argument("to", type=Path, metavar="FILE")


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code: 0 done, 2 something that the user can put right, 130 Ctrl-C."""
    overrides = [word for word in argv if "=" in word and not word.startswith("-")]
    words = [word for word in argv if word not in overrides]
    if not any(word in _NAMES for word in words) and not {"-h", "--help"} & set(words):
        words = ["serve", *words]
    arguments = parser().parse_args(words, argparse.Namespace(run=None, config=None))
    try:
        arguments.do(load_settings(arguments.config, overrides), arguments)
    except UserError as error:
        commands.console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


_NAMES = frozenset({"serve", "users", "report", "backup"})

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
