"""A conversation in the terminal: what is typed, the commands, and the answers as they stream."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator

from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from alignment.data.records import Message
from alignment.errors import UserError
from alignment.models.sampling.streaming import stream_answer
from alignment.run.run_folder import RunFolder
from alignment.settings.recipe import Recipe
from alignment.workflow.prompts_and_policies import Policy, load_backbone, load_policy

console = Console()


COMMANDS = {
    "/new": "start over",
    "/back": "take back the last message and its answers",
    "/help": "show this list",
    "/quit": "leave; so does Ctrl-D",
}
"""What can be typed in place of a message."""


def run(recipe: Recipe, names: list[str]) -> None:
    """Read messages from standard input until it ends, answering each with every named policy."""
    folder = RunFolder(recipe.run_dir)
    settings = recipe.model.model_copy(update={"sampling_copy": False})  # drawing token by token does without
    backbone = load_backbone(folder, settings)
    policies = [load_policy(folder, backbone, name) for name in names]
    seeds = itertools.count(recipe.seed)
    histories: dict[str, list[Message]] = {policy.name: [] for policy in policies}
    console.print(f"{folder.root}: {', '.join(histories)}. /help lists what you can type.", markup=False)
    for text in messages():
        if re.fullmatch(r"/[a-z]+", text):
            obey(text, histories)
            continue
        try:
            answer_all(recipe, policies, histories, text, seeds)
        except UserError as error:
            console.print(f"error: {error}", style="red", markup=False)


def messages() -> Iterator[str]:
    """What the person types, line by line; blank lines are passed over."""
    try:
        import readline  # noqa: F401  # not on Windows; input() edits lines and remembers them once it is there
    except ImportError:
        pass
    prompt = "you: " if sys.stdin.isatty() else ""
    while True:
        try:
            text = input(prompt).strip()
        except EOFError:
            return
        if text == "/quit":
            return
        if text:
            yield text


def obey(command: str, histories: dict[str, list[Message]]) -> None:
    """Do what a command of ``COMMANDS`` says; name them all for another one."""
    if command == "/new":
        for history in histories.values():
            history.clear()
    elif command == "/back":
        taken = [history[-2:] for history in histories.values() if history]
        for history in histories.values():
            del history[-2:]
        console.print(f"taken back: {taken[0][0].content}" if taken else "there is nothing to take back", markup=False)
    else:
        if command not in COMMANDS:
            console.print(f"no such command: {command}", style="red", markup=False)
        for name, what in COMMANDS.items():
            console.print(f"{name:<7}{what}", markup=False, highlight=False)


def answer_all(
    recipe: Recipe, policies: list[Policy], histories: dict[str, list[Message]], text: str, seeds: Iterator[int]
) -> None:
    """Stream every policy's answer into its own panel, then remember the turn.

    Args:
        recipe: temperature and lengths, those of the evaluation.
        policies: who answers, one after the other.
        histories: policy name -> its dialogue so far; the turn is added to each.
        text: the person's message.
        seeds: gives each answer its own seed.
    """
    dialogues = {name: [*history, Message(role="user", content=text)] for name, history in histories.items()}
    shown = {policy.name: "" for policy in policies}
    with Live(console=console, auto_refresh=False, transient=not console.is_terminal) as live:
        for policy in policies:
            dialogue, sampling = dialogues[policy.name], recipe.evaluate.sampling
            for partial in stream_answer(*policy.role, dialogue, sampling, seed=next(seeds)):
                shown[policy.name] = partial.text
                live.update(Columns([Panel(Text(words), title=name) for name, words in shown.items()]), refresh=True)
    for name, words in shown.items():
        if not console.is_terminal:
            console.print(f"{name}: {words}", markup=False)
        histories[name] = [*dialogues[name], Message(role="assistant", content=words or "...")]
