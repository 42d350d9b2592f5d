"""The annotation app and its store, from the command line.

    python -m annotation_ui --run runs/toy
    python -m annotation_ui users add ada --run runs/toy --role annotator
    python -m annotation_ui report --run runs/toy

Without a command, it serves. Settings: configs/annotation.yaml, or --config, then key.sub=value.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, get_args

from rich.console import Console

from alignment.data.records import GRADES, Dimension
from alignment.settings.read_recipe import recipe_keys
from annotation_ui.app_settings import DEFAULT_SETTINGS, AppSettings, ProjectSettings, VariantSettings
from annotation_ui.vocabulary import AccountRole

PROGRAM = "python -m annotation_ui"
COMMANDS = {
    "serve": "serve_commands.serve_app",
    "users": "account_commands.users",
    "report": "store_commands.report",
    "backup": "store_commands.backup",
    "import": "store_commands.import_data",
    "export": "store_commands.export_data",
    "simulate": "serve_commands.simulate_people",
}
"""Module and function of each command in ``annotation_ui.cli``."""
_Commands = Any


class _Help(argparse.Action):
    """``--help``: the command's own, then every setting."""

    def __init__(self, option_strings: list[str], dest: str, **unused: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show every setting and exit")

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> NoReturn:
        lines = [parser.format_help()]
        lines += [f"settings (in {DEFAULT_SETTINGS} or a file of your own, or as key=value on the command line):"]
        for section, prefix in ((AppSettings, ""), (ProjectSettings, "projects.NAME."), (VariantSettings, "variants.")):
            for key, kind, default, description in recipe_keys(section, prefix):
                if key != "projects.NAME.name":
                    lines += [f"  {key} : {kind} = {default}", f"      {description}"]
        Console().out("\n".join(lines), highlight=False)  # not print: its reader may leave, as in "--help | head"
        parser.exit()


def parser(program: str = PROGRAM, *, whole: bool = True) -> argparse.ArgumentParser:
    """The whole command line, of a program of that name; not ``whole``: without the options of an export."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("-h", "--help", action=_Help)
    # Suppressed: a command's own default would undo what stands before the command.
    place = "run folder; its store is RUN/annotation/annotations.db"
    shared.add_argument("--run", type=Path, metavar="RUN", default=argparse.SUPPRESS, help=place)
    file = f"settings; default {DEFAULT_SETTINGS}"
    shared.add_argument("--config", metavar="FILE.yaml", default=argparse.SUPPRESS, help=file)
    top = argparse.ArgumentParser(
        prog=program,
        description=(__doc__ or "").replace(PROGRAM, program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
        add_help=False,
    )
    added = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    _add_serve(added, shared)
    _add_users(added, shared)
    _add_report(added, shared)
    _add_backup(added, shared)
    _add_import(added, shared)
    _add_export(added, shared, whole=whole)
    _add_simulate(added, shared)
    return top


def _command(added: _Commands, name: str, summary: str, shared: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = added.add_parser(
        name, help=summary, description=summary, parents=[shared], add_help=False
    )
    return command


def _add_serve(added: _Commands, shared: argparse.ArgumentParser) -> None:
    sub = _command(added, "serve", "Serve the app until Ctrl-C, or until it is asked to stop (SIGTERM).", shared)
    sub.add_argument("--pairs-only", action="store_true", help="serve pairs sampled before; load no model, no torch")
    sub.add_argument("--allow-remote", action="store_true", help="let host= be an address that others reach")
    stop = "stop once standard input is closed: for programs that start this one"
    sub.add_argument("--until-stdin-closes", action="store_true", help=stop)
    sub.add_argument("--https", action="store_true", help="browsers come through an HTTPS proxy: mark cookies so")


def _add_users(added: _Commands, shared: argparse.ArgumentParser) -> None:
    command = _command(added, "users", "Make, list, close accounts; reset their passwords and tests.", shared)
    what = command.add_subparsers(title="what to do", metavar="WHAT", dest="what", required=True)

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
    sub = _command(added, "report", "Print the quality report, or write it as a page.", shared)
    sub.add_argument("--project", help="only this one")
    sub.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots instead")
    sub.add_argument("--json", action="store_true", help="print JSON instead")
    sub.add_argument("--names", action="store_true", help="user names in place of pseudonyms")
    sub.add_argument("--with-simulated", action="store_true", help="count simulated annotators beside people")


def _add_backup(added: _Commands, shared: argparse.ArgumentParser) -> None:
    _command(added, "backup", "Copy the store while it is in use.", shared).add_argument(
        "to", type=Path, metavar="FILE"
    )


def _add_import(added: _Commands, shared: argparse.ArgumentParser) -> None:
    sub = _command(added, "import", "Bring prompts, or pairs to be judged, into a project's queue.", shared)
    sub.add_argument("source", metavar="FILE", help="a file in any format that the stages read, or a Hub dataset")
    sub.add_argument("--project", required=True)
    sub.add_argument("--pairs", action="store_true", help="take the answers, too: they are to be judged")
    sub.add_argument("--attention", action="store_true", help="add the app's own attention checks")
    sub.add_argument("--format", default="auto", help="auto, tandem, hh, alpaca, alpaca_eval, trl")
    sub.add_argument("--part", choices=("train", "heldout"), default="train", help="what the judgments are for")
    sub.add_argument("--batch", help="name of the batch; default: the project's")
    sub.add_argument("--priority", type=int, default=0, help="higher ones come first")
    sub.add_argument("--overlap", type=int, help="annotators per item; default: the project's")
    sub.add_argument("--limit", type=int, help="take so many at most")
    sub.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="what to do with malformed rows")


def _add_export(added: _Commands, shared: argparse.ArgumentParser, *, whole: bool) -> None:
    sub = _command(added, "export", "Write what was judged as comparison records for stages.reward.", shared)
    sub.add_argument("to", type=Path, metavar="FILE.jsonl")
    if not whole:
        return
    # with the libraries of the store, which no other command line needs
    from annotation_ui.exchange.selection import ExportFilter

    for field, option, more in _EXPORT_OPTIONS:
        told = str(ExportFilter.model_fields[field].description)
        sub.add_argument(option, dest=field, default=argparse.SUPPRESS, help=told, **more)


def _add_simulate(added: _Commands, shared: argparse.ArgumentParser) -> None:
    sub = _command(
        added, "simulate", "Have the toy world's annotators judge the queue, through the app's own desk.", shared
    )
    sub.add_argument("count", type=int, metavar="N", help="judgments in each project")
    sub.add_argument("--project", action="append", help="only this one; may be given more than once")
    sub.add_argument("--annotator", action="append", metavar="NAME", help="who judges: ada, ben, ...; default: all")
    sub.add_argument("--seed", type=int, default=0, help="of what the annotators perceive")
    toy = "no model: put pairs with answers of the toy world's corpus into the queues first"
    sub.add_argument("--pairs-only", action="store_true", help=toy)


def split_words(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command, ``serve`` where none is named, and the settings among them."""
    overrides = [word for word in argv if "=" in word and not word.startswith("-")]
    words = [word for word in argv if word not in overrides]
    if not any(word in COMMANDS for word in words) and not {"-h", "--help"} & set(words):
        words = ["serve", *words]
    return words, overrides


def command_named(name: str) -> Callable[[AppSettings, argparse.Namespace], None]:
    """What a command does; imported when it is asked for, as help and mistakes need none of its libraries."""
    module, _, function = COMMANDS[name].partition(".")
    command: Callable[[AppSettings, argparse.Namespace], None] = getattr(
        import_module(f"annotation_ui.cli.{module}"), function
    )
    return command


_FLAG: dict[str, Any] = {"action": "store_true"}
_EXPORT_OPTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("projects", "--project", {"action": "append"}),
    ("dimension", "--dimension", {"choices": get_args(Dimension)}),
    ("part", "--part", {"choices": ("train", "heldout", "all")}),
    ("batches", "--batch", {"action": "append"}),
    ("annotators", "--annotator", {"action": "append"}),
    ("since", "--since", {"metavar": "DAY"}),
    ("until", "--until", {"metavar": "DAY"}),
    ("overlap", "--overlap", {"choices": ("all", "majority")}),
    ("min_grade", "--min-grade", {"choices": GRADES}),
    ("margins", "--margins", {"choices": ("small", "large", "none")}),
    ("with_simulated", "--with-simulated", _FLAG),
    ("with_gold", "--with-gold", _FLAG),
    ("with_unsafe_preferred", "--with-unsafe-preferred", _FLAG),
    ("with_for_review", "--without-for-review", {"action": "store_false"}),
    ("with_earlier_withdrawn", "--with-earlier-withdrawn", _FLAG),
    ("with_notes", "--with-notes", _FLAG),
]
"""Field of ``ExportFilter``, its option, and what else ``argparse`` has to know."""
