"""The pages that people read, taken apart: code in sentences, typed lines, commands, links, tables. No torch.

And what code there is to hold them against: every word and every text in the product, read without running it.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data/README.md"]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
PACKAGES = ("alignment", "annotation_ui", "stages")

FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```", flags=re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\[((?:[^\]\[]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
COMMAND = re.compile(
    r"(?:^|[\s\"'])(?:\S*[/\\])?(?:python3?|py|torchrun)\b[^\n|;]*? -m (?P<module>[\w.]+)(?P<rest>[^\n]*)"
)
SHORT_COMMAND = re.compile(r"^(?:\S*/)?tandem (?P<name>[a-z]+)(?P<rest>[^\n]*)")
MAKE = re.compile(r"(?:^|[\s;])make (?:[A-Z]+=\S+ )?(?P<target>[a-z][a-z-]*)\b")


class Command(NamedTuple):
    """A command of ours as a page gives it."""

    page: str
    module: str
    words: list[str]

    @property
    def settings(self) -> list[str]:
        """Its ``key=value`` words."""
        return [word for word in self.words if re.match(r"[a-z_][\w.]*=", word)]


def name_of(page: Path) -> str:
    """The page as messages name it."""
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    """A page; of a recipe, its comments."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".yaml":
        return text
    comments = [line.partition("#")[2].removeprefix(" ") for line in text.splitlines() if "#" in line]
    return "\n".join(comments)


def spans(page: Path) -> list[str]:
    """Code within sentences and tables, spaces made one."""
    return [" ".join(span.split()) for span in INLINE.findall(FENCE.sub("", text_of(page)))]


def typed_lines(page: Path) -> list[str]:
    """What stands in code blocks and in code within sentences, continuation lines joined, comments taken off."""
    if page.suffix == ".yaml":
        text = re.sub(r"\\\n\s*", " ", text_of(page))
        return [re.sub(r"^\s*(\w+:\s+)?(?=python|make)", "", line) for line in text.splitlines()]
    blocks = [block.replace("\\\n", " ") for block in FENCE.findall(text_of(page))]
    lines = [line for block in [*blocks, *spans(page)] for line in block.splitlines()]
    return [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]


def docstring_lines(module: Path) -> list[str]:
    """The lines of a module's docstring."""
    return (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").splitlines()


def stage_names() -> list[str]:
    """The stages that can be run, by their folder."""
    return sorted(file.parent.name for file in (ROOT / "stages").glob("*/__main__.py"))


def split(rest: str) -> list[str]:
    """The words of a command, up to its end."""
    words = shlex.split(re.split(r"[|;]|&&|\s#", rest)[0].rstrip(" ,."), comments=True)
    return [re.sub(r"\bN\b", "1", word) for word in words if word != "\\"]


def commands_in(name: str, lines: list[str]) -> Iterator[Command]:
    """The commands of ours among typed lines."""
    for line in lines:
        for match in COMMAND.finditer(line):
            if match["module"].split(".")[0] in PACKAGES:
                yield Command(name, match["module"], split(match["rest"]))
        if short := SHORT_COMMAND.match(line):
            module = "annotation_ui" if short["name"] == "desk" else f"stages.{short['name']}"
            yield Command(name, module, split(short["rest"]))


@cache
def commands() -> list[Command]:
    """All of them: in pages, in the recipes' comments, and in the docstrings of the stages."""
    found = [command for page in [*PAGES, *RECIPES] for command in commands_in(name_of(page), typed_lines(page))]
    for stage in stage_names():
        file = ROOT / "stages" / stage / "__init__.py"
        lines = [line.strip() for line in docstring_lines(file)]
        found += commands_in(f"stages.{stage}", lines)
    return [command for command in found if "..." not in command.words and command.module != "stages.NAME"]


# -- the code that they speak of ---------------------------------------------------------------------------------------


@cache
def sources() -> dict[str, str]:
    """Path -> text of everything but documents and tests."""
    folders = (*PACKAGES, "benchmarks", "configs")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.suffix in TEXT_SUFFIXES]
    files += [ROOT / name for name in ("Makefile", "Dockerfile", "pyproject.toml", "constraints.txt", ".ci/run")]
    files += sorted((ROOT / "tests" / "support").glob("*.py"))
    return {name_of(file): file.read_text(encoding="utf-8") for file in files if file != Path(__file__)}


TEXT_SUFFIXES = frozenset({".py", ".yaml", ".js", ".css", ".html", ".j2", ".jsonl", ".md"})


@cache
def code_words() -> frozenset[str]:
    """Every word in the code, and in the names of its files."""
    text = " ".join([*sources().values(), *sources()])
    return frozenset(re.findall(r"\w+", text))


@cache
def texts_in_code() -> frozenset[str]:
    """Every string in the product."""
    texts = set()
    for name, source in sources().items():
        if name.endswith(".py"):
            nodes = ast.walk(ast.parse(source))
            texts |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(texts)


@cache
def defined_in(file: Path) -> frozenset[str]:
    """Names that a module defines or imports, methods and fields as ``Class.name``."""
    names: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    collect(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    parts = target.elts if isinstance(target, ast.Tuple) else [target]
                    names.update(prefix + part.id for part in parts if isinstance(part, ast.Name))
            elif isinstance(node, ast.ImportFrom):
                names.update(prefix + (alias.asname or alias.name) for alias in node.names)

    collect(ast.parse(file.read_text(encoding="utf-8")).body, "")
    return frozenset(names)


def module_file(dotted: str) -> Path | None:
    """The file of a module or package of ours, ``None`` where there is none."""
    place = ROOT / dotted.replace(".", "/")
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)
