"""Where a wrong change stands: module, function and old text instead of a line number, so that moves do not lose it.

The function is a qualified name, such as ``PPO.update`` or ``outer.inner``. It is empty for what stands outside of
functions and classes; the old text is then looked for in the whole module.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Mutant:
    """A wrong change: in ``function`` of ``module``, ``new`` stands in place of ``old``.

    ``place`` says which one is meant where the old text stands more than once in the function; the first is 0.
    """

    module: str
    function: str
    old: str
    new: str
    place: int = 0

    @classmethod
    def of(cls, row: dict[str, Any]) -> Mutant:
        """The mutant of a row of JSON, which may say more about it."""
        return cls(row["module"], row["function"], row["old"], row["new"], row.get("place", 0))

    def row(self) -> dict[str, Any]:
        """The same as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Scope:
    """A function or class: its qualified name, its lines (from 1, decorators included), and the first of its body."""

    name: str
    is_class: bool
    first: int
    last: int
    body: int


@lru_cache(maxsize=256)
def scopes(source: str) -> tuple[Scope, ...]:
    """All functions and classes of a module, outer ones before inner ones."""
    return tuple(_scopes(ast.parse(source), ""))


def _scopes(node: ast.AST, prefix: str) -> Iterator[Scope]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            name = prefix + child.name
            first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
            last = child.end_lineno or child.lineno
            yield Scope(name, isinstance(child, ast.ClassDef), first, last, child.body[0].lineno)
            yield from _scopes(child, f"{name}.")
        else:
            yield from _scopes(child, prefix)


def scope_at(source: str, line: int) -> Scope | None:
    """The innermost function or class that a line belongs to."""
    return next((scope for scope in reversed(scopes(source)) if scope.first <= line <= scope.last), None)


def statement_at(source: str, first: int, last: int) -> tuple[int, int]:
    """First and last line of the smallest statement around those lines; a compound one counts as its head alone."""
    around = (first, last)
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt | ast.excepthandler)]
    for node in sorted(statements, key=lambda node: (node.end_lineno or node.lineno) - node.lineno, reverse=True):
        end = node.end_lineno or node.lineno
        body = getattr(node, "body", None)
        if body and last < body[0].lineno:
            end = max(node.lineno, body[0].lineno - 1)
        if node.lineno <= first and last <= end:
            around = (node.lineno, end)
    return around


def lines_of(source: str, scope: Scope) -> str:
    """The text of a function or class."""
    return "".join(source.splitlines(keepends=True)[scope.first - 1 : scope.last])


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def places(mutant: Mutant, source: str) -> list[int]:
    """Every offset at which the old text stands in the named function; none where there is no such function."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    spans = [(starts[scope.first - 1], starts[scope.last]) for scope in scopes(source) if scope.name == mutant.function]
    found = []
    for start, end in spans if mutant.function else [(0, len(source))]:
        while (start := source.find(mutant.old, start, end)) >= 0:
            found.append(start)
            start += len(mutant.old)
    return found


def place_of(mutant: Mutant, source: str) -> int:
    """The offset of the change; raise ``LookupError`` if the old text is no longer there."""
    found = places(mutant, source)
    if len(found) <= mutant.place:
        raise LookupError(f"{mutant.module}: {mutant.function or 'the module'} no longer holds {mutant.old!r}")
    return found[mutant.place]


def changed(mutant: Mutant, source: str) -> str:
    """The module with the change in it."""
    start = place_of(mutant, source)
    return source[:start] + mutant.new + source[start + len(mutant.old) :]


def difference(mutant: Mutant) -> str:
    """The change as lines with - and +."""
    old, new = (text.strip("\n").splitlines() for text in (mutant.old, mutant.new))
    lines = [f"{mutant.module}: {mutant.function or '(outside of functions)'}"]
    return "\n".join([*lines, *(f"  - {line}" for line in old), *(f"  + {line}" for line in new)])
