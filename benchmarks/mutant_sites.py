"""Wrong changes to draw from: what mutmut's operators make of the code, apart from what no test could notice.

Of mutmut (https://github.com/boxed/mutmut) only the operators are used: comparisons, arithmetic, booleans, constants,
strings, assignments, arguments that are dropped or ``None``, and branches that are never or always taken. Its own
visitor leaves out every decorated function, and so most of what samples and scores under ``torch.no_grad``.

Not drawn, and counted by their reason:

- type annotations, decorators, docstrings, ``__all__``, what stands under ``if TYPE_CHECKING`` or
  ``if __name__ == "__main__"``, and overloads
- words for people: strings of three or more words, the arguments of an error that is raised (but for an exit code), and
  whatever is printed, warned of, logged or shown as progress
- ``encoding=`` of files, ``strict=`` of ``zip`` and the type of ``cast``: without the first, this system's encoding is
  the same; without the second, only a mistake of ours would show; the third is for the type checker
- the arguments of ``len`` and ``isinstance``, as in mutmut: any change raises at once
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutant_anchors import Mutant, digest, places, scope_at
from mutmut.mutation.mutators import mutation_operators

FEWEST_WORDS = 3
SPEAKING = frozenset({"print", "print_line", "progress", "warnings", "logging"})
RAISING = frozenset({"len", "isinstance"})
GUARDS = "encoding=, strict= and cast"


@dataclass(frozen=True)
class Site:
    """One change to one node of a module that is parsed; ``function`` is the innermost function or class around it."""

    module: str
    function: str
    tree: cst.Module
    node: cst.CSTNode
    new: cst.CSTNode
    line: int


@dataclass
class Found:
    """The sites of some modules, and how many were left out for each reason."""

    sites: list[Site] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


class _Visitor(cst.CSTVisitor):
    """Collects the sites of one module. A reason to leave a node out holds for all that stands in it."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, module: str, tree: cst.Module, found: Found) -> None:
        super().__init__()
        self.module, self.tree, self.found = module, tree, found
        self.source = tree.code
        self.reasons: list[str | None] = [None]
        self.guards: set[cst.CSTNode] = set()
        """Arguments that are left out because of the function that they are handed to."""

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Call):
            self.guards.update(_guards(node))
        reason = self.reasons[-1] or (GUARDS if node in self.guards else _reason(node))
        self.reasons.append(reason)
        for kind, operator in mutation_operators:
            for new in operator(node) if isinstance(node, kind) else ():
                if why := reason or _reason_of_change(node, new):
                    self.found.left_out[why] += 1
                else:
                    line = self.get_metadata(PositionProvider, node).start.line
                    scope = scope_at(self.source, line)
                    self.found.sites.append(Site(self.module, scope.name if scope else "", self.tree, node, new, line))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        self.reasons.pop()


def _reason(node: cst.CSTNode) -> str | None:
    """Why nothing in a node is drawn; ``None`` if it is."""
    match node:
        case cst.Annotation():
            return "annotations"
        case cst.Decorator():
            return "decorators"
        case cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString()):
            return "docstrings"
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value="__all__"))]):
            return "__all__"
        case cst.If() if _code(node.test) in ("TYPE_CHECKING", '__name__ == "__main__"'):
            return "type checker and command line"
        case cst.FunctionDef() if any(_code(item.decorator) == "overload" for item in node.decorators):
            return "type checker and command line"
        case cst.Raise(exc=cst.Call(func=cst.Name(value="SystemExit"))):
            return None
        case cst.Raise():
            return "words for people"
        case cst.Call() if _code(node.func).partition(".")[0] in SPEAKING:
            return "words for people"
        case cst.Call() if _code(node.func) in RAISING:
            return "len and isinstance"
        case cst.SimpleString() | cst.ConcatenatedString() | cst.FormattedString() if _is_text(node):
            return "words for people"
        case cst.Arg(keyword=cst.Name(value="encoding")):
            return GUARDS
    return None


def _guards(call: cst.Call) -> list[cst.Arg]:
    """``strict=`` of ``zip`` and the type of ``cast``."""
    match _code(call.func):
        case "zip":
            return [arg for arg in call.args if arg.keyword and arg.keyword.value == "strict"]
        case "cast":
            return list(call.args[:1])
    return []


def _reason_of_change(node: cst.CSTNode, new: cst.CSTNode) -> str | None:
    """Why a change to a node is not drawn although others to it are: it takes away what is itself left out."""
    if isinstance(node, cst.Call) and isinstance(new, cst.Call):
        gone = [arg for arg in node.args if not any(arg is other for other in new.args)]
        if any(arg is guard for arg in gone for guard in _guards(node)):
            return GUARDS
        return next((why for arg in gone if (why := _reason(arg) or _reason(arg.value))), None)
    if isinstance(node, cst.Assign | cst.AnnAssign) and node.value is not None:
        return _reason(node.value) if _is_text(node.value) else None
    return None


def _is_text(node: cst.CSTNode) -> bool:
    """Whether a string is one for people to read, by the number of its words."""
    match node:
        case cst.SimpleString():
            words = str(node.evaluated_value)
        case cst.ConcatenatedString() | cst.FormattedString():
            words = _code(node)
        case _:
            return False
    return len(words.split()) >= FEWEST_WORDS


def _code(node: cst.CSTNode) -> str:
    return cst.Module([]).code_for_node(node).strip()


def find_sites(root: Path, modules: Iterable[str]) -> Found:
    """Every site in those modules, given by their paths from ``root``."""
    found = Found()
    for module in modules:
        wrapper = MetadataWrapper(cst.parse_module((root / module).read_text(encoding="utf-8")))
        wrapper.visit(_Visitor(module, wrapper.module, found))
    return found


def draw(sites: Sequence[Site], *, seed: int) -> Iterator[Mutant]:
    """Mutants in an order by ``seed``, each once; fewer or more of them begin alike.

    A site's place in the order depends on the seed and on itself, so that other code may change and the draw stays but
    for what has gone or come. Changes that leave the program the same, parentheses for example, or that are no Python
    are passed over.
    """
    alike, ordered, seen = Counter[tuple[str, ...]](), dict[str, Site](), set()
    for site in sites:
        what = (site.module, site.function, _code(site.node), _code(site.new))
        ordered[digest(json.dumps([seed, *what, alike[what]]))] = site
        alike[what] += 1
    for _, site in sorted(ordered.items()):
        mutant = mutant_at(site)
        if mutant is not None and mutant not in seen:
            seen.add(mutant)
            yield mutant


def mutant_at(site: Site) -> Mutant | None:
    """A site as a change of whole lines; ``None`` where the program stays the same or is none any more."""
    old, new = site.tree.code, cst.ensure_type(site.tree.deep_replace(site.node, site.new), cst.Module).code
    try:
        if ast.dump(ast.parse(old)) == ast.dump(ast.parse(new)):
            return None
    except SyntaxError:
        return None
    start, end, new_end = _lines_that_differ(old.splitlines(keepends=True), new.splitlines(keepends=True))
    lines = old.splitlines(keepends=True)
    scope = scope_at(old, site.line)
    function = scope.name if scope and scope.first <= start + 1 and end <= scope.last else ""
    text = "".join(lines[start:end])
    changed_text = "".join(new.splitlines(keepends=True)[start:new_end])
    offset = sum(map(len, lines[:start]))
    all_places = places(Mutant(site.module, function, text, changed_text), old)
    return Mutant(site.module, function, text, changed_text, all_places.index(offset))


def _lines_that_differ(old: Sequence[str], new: Sequence[str]) -> tuple[int, int, int]:
    """Where they begin, where they end in ``old`` and where they end in ``new``; at least one line of ``old``."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    same_after = 0
    while same_after < min(len(old), len(new)) - start and old[-1 - same_after] == new[-1 - same_after]:
        same_after += 1
    return start, len(old) - same_after, len(new) - same_after
