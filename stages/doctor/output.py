"""What the doctor prints: a styled line, a finding as a paragraph, a number with its noun."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from alignment.rl.health.health_watch import Finding
from stages.door.progress_and_exit import as_called

STYLES = {"ok": "green", "skipped": "dim", "warning": "yellow", "problem": "bold red", "error": "bold red"}
console = Console()


def print_line(*parts: str, style: str = "") -> None:
    """Print a line whose first part is styled; what was read is printed as it is."""
    console.print(
        Text(parts[0], style=style), *map(as_called, parts[1:]), sep="", soft_wrap=True, markup=False, highlight=False
    )


def print_finding(finding: Finding) -> None:
    """A finding, as a paragraph."""
    heading = f"update {finding.update}, {finding.check} ({finding.severity})"
    console.print(Padding(Text(heading, style=STYLES[finding.severity]), (0, 0, 0, 2), expand=False))
    for label, words in (
        ("what", finding.what),
        ("likely cause", finding.likely_cause),
        ("what to do", finding.what_to_do),
    ):
        console.print(Padding(Text(f"{label}: {words}"), (0, 0, 0, 4), expand=False))


def counted(count: int, noun: str) -> str:
    """``1 finding``, ``2 findings``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
