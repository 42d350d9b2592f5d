"""What README and docs tell people to type exists: modules, settings, make targets, files."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

import pytest

from alignment.settings.model_sections import TOY_MODEL
from alignment.settings.read_recipe import recipe_keys
from annotation_ui.__main__ import parser, split_words
from annotation_ui.app_settings import AppSettings
from stages.door.command_line import recipe_from

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data/README.md"]
STAGES = sorted(
    f"stages.{file.stem}" for file in (ROOT / "stages").glob("*.py") if "__main__" in file.read_text(encoding="utf-8")
)
FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```", flags=re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?:^|\s)(?:\S*/)?(?:python3?|py) -m (?P<module>[\w.]+)(?P<rest>[^\n]*)")
MAKE = re.compile(r"(?:^|\s)make (?P<target>[a-z][a-z-]*)\b")
SETTING = re.compile(r"[a-z_]+(\.[a-z_]+)*=\S*")


def typed_lines(page: Path) -> list[str]:
    """What stands in code blocks, and in code within sentences, continuation lines joined."""
    text = page.read_text(encoding="utf-8")
    blocks = FENCE.findall(text)
    spans = INLINE.findall(FENCE.sub("", text))
    return [line.strip() for block in [*blocks, *spans] for line in block.replace("\\\n", " ").splitlines()]


def commands() -> list[tuple[str, str, str]]:
    """(page, module, arguments) of every ``python -m`` of ours, in the pages and in the stages' docstrings."""
    sources = {page.name: typed_lines(page) for page in PAGES}
    for module in STAGES:
        file = ROOT / (module.replace(".", "/") + ".py")
        sources[module] = [line.strip() for line in file.read_text(encoding="utf-8").split('"""')[1].splitlines()]
    found = []
    for name, lines in sources.items():
        for line in lines:
            for match in COMMAND.finditer(line):
                if match["module"].split(".")[0] in ("stages", "alignment", "annotation_ui"):
                    found.append((name, match["module"], match["rest"]))
    return found


def test_the_readme_shows_how_to_run_the_pipeline() -> None:
    modules = {module for page, module, _ in commands() if page == "README.md"}
    assert "stages.pipeline" in modules or "make demo" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_module_that_is_named_exists() -> None:
    missing = {(page, module) for page, module, _ in commands() if module.islower() and find_spec(module) is None}
    assert missing == set()


def settings_of(rest: str) -> list[str]:
    """The ``key=value`` arguments, up to a comment or the end of the command."""
    try:
        words = shlex.split(rest.split("|")[0].split(";")[0], comments=True)
    except ValueError:
        words = rest.split()
    return [word for word in words if SETTING.fullmatch(word)]


def test_every_setting_on_a_command_line_is_one_that_exists() -> None:
    keys = {key for key, *_ in recipe_keys()}
    open_ended = ("sft.trainer.", "reward.trainer.", "reward.head.arguments.")
    unknown = {
        (page, setting)
        for page, module, rest in commands()
        if module.startswith("stages.")
        for setting in settings_of(rest)
        if (key := setting.partition("=")[0]) not in keys and not key.startswith(open_ended)
    }
    assert unknown == set()


def test_every_command_of_the_annotation_app_is_one_that_it_takes() -> None:
    given = [rest for _, module, rest in commands() if module == "annotation_ui" and "..." not in rest]
    assert len(given) >= 10
    for rest in given:
        words, overrides = split_words(shlex.split(rest.split("|")[0], comments=True))
        assert parser().parse_args(words) is not None
        assert {word.partition("=")[0].split(".")[0] for word in overrides} <= AppSettings.model_fields.keys()


def test_every_recipe_on_a_command_line_is_there() -> None:
    named = {
        found
        for _, _, rest in commands()
        for found in re.findall(r"--config[ =](\S+)", rest)
        if found.startswith("configs/")
    }
    assert {name for name in named if not (ROOT / name).is_file()} == set()


@pytest.mark.parametrize("module", STAGES)
def test_every_stage_opens_with_two_commands_that_its_recipe_accepts(module: str) -> None:
    own = [rest for page, found, rest in commands() if page == module == found]
    assert len(own) >= 2
    for rest in own:
        recipe = recipe_from(Namespace(config=None, overrides=settings_of(rest)))
        assert recipe.model.name_or_path == TOY_MODEL


@pytest.mark.parametrize("module", STAGES)
def test_every_stage_renders_its_help(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(module, run_name="__main__")
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"python -m {module}" in shown
    assert "ppo.kl_beta : float = " in shown


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test", "lint", "demo-clean"} <= targets
    named = {
        (page.name, match["target"])
        for page in PAGES
        for line in typed_lines(page)
        for match in MAKE.finditer(line.split("#")[0])
    }
    assert {(page, target) for page, target in named if target not in targets} == set()


def test_files_that_the_pages_link_to_exist() -> None:
    broken = set()
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists():
                broken.add((page.name, target))
    assert broken == set()
