"""What README, docs, CONTRIBUTING and the recipes' comments say is there: settings, commands, paths, names, figures."""

from __future__ import annotations

import json
import re
import runpy
from argparse import ArgumentError
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import pytest
from doc_pages import (
    COMMAND,
    FENCE,
    LINK,
    MAKE,
    PAGES,
    RECIPES,
    ROOT,
    SHORT_COMMAND,
    code_words,
    commands,
    defined_in,
    docstring_lines,
    module_file,
    name_of,
    sources,
    spans,
    stage_names,
    text_of,
    texts_in_code,
    typed_lines,
)
from report_example import example_report

from alignment.errors import UserError
from alignment.settings.read_recipe import load_recipe, recipe_keys
from alignment.settings.sections import TOY_MODEL
from annotation_ui.app_settings import AppSettings, ProjectSettings, VariantSettings, load_settings
from annotation_ui.cli.command_parser import parser, split_words
from stages.door import command_line

PATH = re.compile(r"[\w.\-]+(/[\w.\-]+)*/?")
SUFFIXES = (".py", ".md", ".json", ".jsonl", ".yaml", ".toml", ".svg", ".html", ".txt", ".safetensors", ".db", ".cff")
KEY = re.compile(r"([a-z_]+(?:\.[A-Za-z_]+)*)(?:=|: )(.*)")
DOTTED = re.compile(r"[a-z_]+(\.[A-Za-z_]+)+")
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?")
RECIPE_KEYS = {key for key, *_ in recipe_keys()}
APP_KEYS = {
    key
    for section, prefix in ((AppSettings, ""), (ProjectSettings, "projects.NAME."), (VariantSettings, "variants."))
    for key, *_ in recipe_keys(section, prefix)
}
OPEN_ENDED = ("sft.trainer", "reward.trainer", "reward.head.arguments")
LEAVES = {key.rpartition(".")[2] for key in RECIPE_KEYS | APP_KEYS}
SECTIONS = {part for key in RECIPE_KEYS for part in [key[: place.start()] for place in re.finditer(r"\.", key)]}
OF_OTHERS = {
    # Words of other programs, in pages that compare with them or say how to use ours from them.
    *("Trainer", "apply_chat_template", "proxy_set_header", "pg_dump", "cp", "owner", "name", "save_state", "pip"),
    *("torchrun", "synchronous", "FULL", "css", "float32", "bfloat16", "nan", "from_json", "Dataset", "gr", "py"),
    *("AutoModelForSequenceClassification", "from_dict", "Features", "requires_grad", "SEQ_CLS", "key", "null"),
}
"""Names that a page may use though our code does not."""
EXAMPLES = re.compile(
    r"(\./)?(my-?\w*|team|prompts|pairs|judgments|preferences|instructions|dialogues|heldout|helpful|harmless|safe|FILE|"
    r"models/\w+|open|hh|monday|harmless-base|alpaca_eval|hh_harmless|mine|runs/[\w\-]+|RUN)(\.\w+)*/?.*"
)
"""Files and folders of the reader's own, in examples."""


def failing(found: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """(page, what) as a set, so that a failure lists every place at once."""
    return set(found)


# -- settings ----------------------------------------------------------------------------------------------------------


def is_setting(key: str) -> bool:
    """Whether a dotted key can be set, in a recipe or in the app, or is a section of settings."""
    app = re.sub(r"^(projects|variants)\.\w+\.", lambda found: f"{found[1]}.", key)
    known = APP_KEYS | {re.sub(r"\.NAME\.", ".", item) for item in APP_KEYS}
    return key in RECIPE_KEYS | SECTIONS or app in known or key.startswith(OPEN_ENDED)


def looks_like_a_setting(span: str) -> bool:
    """A dotted name that begins with a section of the recipe or of the app."""
    first = span.partition(".")[0]
    return bool(DOTTED.fullmatch(span)) and first in {key.partition(".")[0] for key in SECTIONS | APP_KEYS}


def unknown_settings(span: str) -> bool:
    """Whether a piece of code is a setting, or gives one, that does not exist."""
    if match := KEY.fullmatch(span):
        key = match[1].removeprefix("reward.DIMENSION.")
        if key == "key.sub":  # any setting
            return False
        if "." not in key and key not in LEAVES | SECTIONS:
            return key not in code_words() | OF_OTHERS
        return "." in key and not is_setting(key)
    return (
        looks_like_a_setting(span) and "DIMENSION" not in span and not span.endswith(SUFFIXES) and not is_setting(span)
    )


def test_every_setting_in_a_sentence_or_table_exists() -> None:
    assert failing([(name_of(page), span) for page in PAGES for span in spans(page) if unknown_settings(span)]) == set()


@pytest.mark.parametrize(
    "key", ["ppo.kl_betta", "ppo.kl_betta=1", "annotate.pairs", "kl_betta=0.1", "projects.NAME.shares"]
)
def test_a_misspelt_setting_is_found(key: str) -> None:
    assert unknown_settings(key)


@pytest.mark.integration
def test_every_setting_on_a_command_line_is_accepted_with_its_value() -> None:
    refused = []
    for command in commands():
        if command.module.startswith("stages."):
            recipe = next(
                (word for flag, word in zip(command.words, command.words[1:], strict=False) if flag == "--config"), None
            )
            shipped = recipe if recipe and recipe.startswith("configs/") else None
            try:
                load_recipe(shipped, command.settings)
            except UserError as error:
                refused.append((command.page, str(error)))
    assert refused == []


# -- commands ----------------------------------------------------------------------------------------------------------


def test_every_module_that_is_named_exists() -> None:
    missing = {
        (name_of(page), match["module"])
        for page in [*PAGES, *RECIPES]
        for line in typed_lines(page)
        for match in COMMAND.finditer(line)
        if match["module"].split(".")[0] in ("stages", "alignment", "annotation_ui")
        and match["module"] != "stages.NAME"
        and module_file(match["module"]) is None
    }
    assert missing == set()


def test_every_short_command_is_a_stage_or_the_desk() -> None:
    names = {match["name"] for page in PAGES for line in typed_lines(page) if (match := SHORT_COMMAND.match(line))}
    assert names <= {*stage_names(), "desk"}


class Parsed(Exception):
    """A command line was accepted; what it asks for is not begun."""


def accept(work: object) -> NoReturn:
    """In place of ``guarded``, which runs a stage's work."""
    raise Parsed


def test_every_command_of_a_stage_is_one_that_its_door_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands():
        if not command.module.startswith("stages.") or command.words[:1] in (["--help"], ["--help-all"]):
            continue
        door = import_module(f"{command.module}.__main__")
        for place in (command_line, door):
            monkeypatch.setattr(place, "guarded", accept, raising=place is command_line)
        try:
            door.main(command.words)
        except Parsed:
            continue
        except SystemExit:
            pytest.fail(f"{command.page}: {command.module} {' '.join(command.words)}")


def test_every_command_of_the_annotation_app_is_one_that_it_takes() -> None:
    given = [command for command in commands() if command.module == "annotation_ui" and "--help" not in command.words]
    assert len(given) >= 10
    for command in given:
        words, overrides = split_words(command.words)
        try:
            assert parser().parse_args(words) is not None
        except (SystemExit, ArgumentError):
            pytest.fail(f"{command.page}: {' '.join(command.words)}")
        assert load_settings(None, overrides) is not None


def test_every_recipe_on_a_command_line_is_there() -> None:
    named = {word for command in commands() for word in command.words if word.startswith("configs/")}
    assert {name for name in named if not (ROOT / name).is_file()} == set()


@pytest.mark.parametrize("stage", stage_names())
def test_every_stage_opens_with_two_commands_that_its_recipe_accepts(stage: str) -> None:
    own = [command for command in commands() if command.page == command.module == f"stages.{stage}"]
    assert len(own) >= 2
    for command in own:
        assert load_recipe(None, command.settings).model.name_or_path == TOY_MODEL


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    named = {
        (name_of(page), match["target"])
        for page in PAGES
        for line in typed_lines(page)
        for match in MAKE.finditer(line)
    }
    assert {(page, target) for page, target in named if target not in targets} == set()


def test_every_option_that_is_named_is_one_of_ours() -> None:
    ours = texts_in_code()
    others = {"--nproc_per_node", "--help", "--help-all"}
    named = {
        (name_of(page), option)
        for page in PAGES
        for span in spans(page)
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]+", span)
        if not span.startswith(("pip", "make venv"))
    }
    assert {
        (page, option) for page, option in named if not any(option in text for text in ours) and option not in others
    } == set()


# -- paths and names ---------------------------------------------------------------------------------------------------


def is_path(span: str) -> bool:
    """Whether a piece of code is the path of a file or folder."""
    return bool(PATH.fullmatch(span)) and (
        span.endswith(SUFFIXES) or span.endswith("/") or span.startswith(tuple(FOLDERS))
    )


FOLDERS = ("alignment/", "annotation_ui/", "stages/", "tests/", "benchmarks/", "docs/", "configs/", "data/toy/")


def run_names() -> set[str]:
    """Files and folders of a run, as the tree in docs/architecture.md has them."""
    tree = FENCE.findall(text_of(ROOT / "docs" / "architecture.md").partition("## The run folder")[2])[0]
    return set(re.findall(r"[\w.\-]+(?=[/, \n])", re.sub(r"  +(?=[^ ].*\w).*?(?=  |$)", lambda line: line[0], tree)))


def is_there(span: str) -> bool:
    """Whether a path is in the repository, or of a run folder, whose names the code itself writes."""
    if (ROOT / span).exists() or span in ("__init__.py", "__main__.py"):
        return True
    if "NAME" in span:
        return (ROOT / span.partition("NAME")[0]).is_dir()
    if span.startswith(FOLDERS):
        return False
    if EXAMPLES.fullmatch(span) and not span.startswith("runs/toy/"):
        return True
    *folders, last = span.removeprefix("runs/toy/").strip("/").split("/")
    written = last in run_names() or ("." in last and any(text.endswith(last) for text in texts_in_code()))
    return written and all(part in run_names() or re.fullmatch(r"round-\w+", part) for part in folders)


def test_every_path_in_a_sentence_or_table_exists() -> None:
    missing = [(name_of(page), span) for page in PAGES for span in spans(page) if is_path(span) and not is_there(span)]
    assert failing(missing) == set()


@pytest.mark.parametrize("path", ["alignment/recipe.py", "round-N/sampling/", "winner.jsonl", "docs/architectur.md"])
def test_a_path_that_is_not_there_is_found(path: str) -> None:
    assert is_path(path) and not is_there(path)


def test_every_test_that_is_named_exists() -> None:
    named = {
        (file, test)
        for page in PAGES
        for span in spans(page)
        for file, test in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", span)
    }
    missing = {
        (file, test)
        for file, test in named
        if not (ROOT / file).is_file() or (test and test not in defined_in(ROOT / file))
    }
    assert missing == set()


def unknown_name(span: str) -> bool:
    """Whether a piece of code is a name of which no part of our code knows anything."""
    if is_path(span) or not NAME.fullmatch(span) or looks_like_a_setting(span):
        return False
    if span.split(".")[0] in ("alignment", "annotation_ui", "stages") and "." in span:
        module, _, symbol = span.rpartition(".")
        return module_file(span) is None and not ((file := module_file(module)) and symbol in defined_in(file))
    words = re.findall(r"\w+", span)
    return not all(word in code_words() or word in OF_OTHERS for word in words)


def test_every_module_class_and_function_in_a_sentence_or_table_exists() -> None:
    assert failing([(name_of(page), span) for page in PAGES for span in spans(page) if unknown_name(span)]) == set()


@pytest.mark.parametrize("name", ["alignment.recipe", "MasterWeigthAdamW", "RunFolder.changed_input", "objective_klx"])
def test_a_name_that_nothing_has_is_found(name: str) -> None:
    assert unknown_name(name)


def test_links_lead_to_files_and_headings_that_exist() -> None:
    broken = []
    for page in PAGES:
        for _, target in LINK.findall(FENCE.sub("", text_of(page))):
            if "://" in target or target.startswith("mailto:"):
                continue
            path, _, heading = target.partition("#")
            file = page.parent / path if path else page
            if not file.exists() or (heading and heading not in headings(file)):
                broken.append((name_of(page), target))
    assert failing(broken) == set()


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_code_that_is_linked_by_name_is_defined_in_that_file() -> None:
    absent = []
    for page in PAGES:
        for words, target in LINK.findall(FENCE.sub("", text_of(page))):
            if target.endswith(".py") and re.fullmatch(r"`[\w.]+`", words) and not words.strip("`").endswith(".py"):
                if words.strip("`") not in defined_in((page.parent / target).resolve()):
                    absent.append((name_of(page), f"{words} in {target}"))
    assert failing(absent) == set()


def test_no_link_counts_lines() -> None:
    assert [
        (name_of(page), target) for page in PAGES for _, target in LINK.findall(text_of(page)) if "#L" in target
    ] == []


def test_documents_and_tests_that_the_code_speaks_of_exist() -> None:
    missing = {
        (name, path)
        for name, source in sources().items()
        if name.endswith((".py", ".yaml"))
        for path in re.findall(r"\b(?:docs/[\w\-]+\.(?:md|svg)|tests/[\w/]+\.py)\b", source)
        if not (ROOT / path).is_file()
    }
    assert missing == set()


# -- PPO's page --------------------------------------------------------------------------------------------------------

PPO_PAGE = ROOT / "docs" / "ppo.md"


def test_the_page_on_ppo_links_all_six_steps() -> None:
    linked = {words.strip("`") for words, target in LINK.findall(text_of(PPO_PAGE)) if target.endswith("rl/ppo.py")}
    steps = ("sample", "score", "gate", "token_rewards", "advantages", "update")
    assert {step for step in steps if f"PPO.{step}" not in linked} == set()


def test_every_invariant_of_the_trap_table_has_a_test() -> None:
    table = text_of(PPO_PAGE).partition("## Traps")[2]
    tests = defined_in(ROOT / "tests" / "alignment" / "rl" / "test_ppo_invariants.py")
    tested = {number for name in tests for number in re.findall(r"^TestInvariant(\d\d)", name)}
    assert {number for number in re.findall(r"\bI(\d\d)\b", table) if number not in tested} == set()


# -- figures -----------------------------------------------------------------------------------------------------------


def test_the_results_in_the_readme_are_those_of_the_json() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "results.py"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))
    assert made["with_results"](readme, results) == readme
    assert all(mark in readme for mark in made["PARTS"])


def test_no_figure_of_the_readme_stands_outside_the_parts_that_are_made_of_the_json() -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "results.py"))
    rest = (ROOT / "README.md").read_text(encoding="utf-8")
    for begin in made["PARTS"]:
        before, _, after = rest.partition(begin)
        rest = before + after.partition(made["END"])[2]
    table_rows = [line for line in rest.splitlines() if line.startswith("|")]
    assert [row for row in table_rows if re.search(r"\d[\d.]* ?%|\b\d+\.\d+\b", row)] == []


def test_modules_open_with_commands_that_exist() -> None:
    for file in sorted((ROOT / "benchmarks").glob("*.py")):
        for line in docstring_lines(file):
            for path in re.findall(r"^\s+python (\S+\.py)", line):
                assert (ROOT / path).is_file() or (file.parent / path).is_file(), f"{file.name}: {line}"


def test_an_entry_of_the_results_holds_the_figures_of_a_report(tmp_path: Path) -> None:
    made = runpy.run_path(str(ROOT / "benchmarks" / "results.py"))
    report = example_report()
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    entry = made["entry"](tmp_path)
    assert entry["policies"]["ppo"]["helpfulness"] == report["policies"]["ppo"]["helpfulness"]
    (rate,) = (
        item
        for item in report["win_rates"]
        if (item["policy"], item["against"], item["judge"]) == ("ppo", "sft", report["judge"])
    )
    assert entry["win_rates_against_sft"]["ppo"]["value"] == rate["win_rate"]
    text = made["rendered"]({"runs": [entry]})
    assert f"{100 * rate['win_rate']:.3g} % [{100 * rate['ci95'][0]:.3g}, {100 * rate['ci95'][1]:.3g}]" in text
    assert made["demo"]({"runs": [entry]}).count("\n") > 8
    sorted_by_name = {**entry, "policies": dict(sorted(entry["policies"].items()))}
    lines = made["demo"]({"runs": [sorted_by_name]}).splitlines()
    rows = [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in made["POLICIES"].values()]
    assert [row for row in rows if row != "PPO"] == [
        made["POLICIES"][name] for name in ("base", "sft", "rejection") if name in entry["policies"]
    ]
    assert rows[-1] == "PPO"
