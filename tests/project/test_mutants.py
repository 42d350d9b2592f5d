"""The tools around wrong changes, on a project of one module: what is drawn, who is asked, and what is made of it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import child_process
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SHOP = '''\
"""A shop."""


def total(prices, tax):
    return sum(prices) + tax


def cheapest(prices):
    return min(prices)


def countdown(n):
    steps = 0
    while n > 0:
        n -= 1
        steps += 1
    return steps


def described(price):
    if price > 9:
        return "dear"
    return "cheap"


def unsold():
    return 0
'''
TESTS = {
    "test_prices.py": """\
import pytest

from shop.prices import cheapest, countdown, total


def test_total():
    assert total([1, 2], 3) == 6


@pytest.mark.parametrize("tax", [0, 3])
def test_taxes(tax):
    assert total([0], tax) == tax


def test_cheapest():
    assert cheapest([4, 4]) == 4


def test_countdown():
    assert countdown(2) == 2


def test_fails_already():
    assert total([], 1) == 2
""",
    "test_words.py": """\
import pytest

from shop.prices import described


@pytest.fixture(scope="module")
def word():
    return described(1)


def test_it_is_a_word(word):
    assert isinstance(word, str)


def test_it_is_cheap(word):
    assert word == "cheap"
""",
}


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A git checkout of the project, nothing committed."""
    root = tmp_path / "project"
    files = {f"tests/{name}": text for name, text in TESTS.items()}
    files |= {"shop/__init__.py": "", "shop/prices.py": SHOP}
    files |= {"pyproject.toml": "[tool.pytest.ini_options]\n", ".gitignore": ".mutants/\n__pycache__/\n"}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    assert child_process.run(["git", "init", "-q", str(root)]).returncode == 0
    return root


def texts(root: Path) -> dict[str, bytes]:
    """All files of the project that are not the tools' own."""
    own = (".git", ".mutants")
    return {
        str(file): file.read_bytes()
        for file in root.rglob("*")
        if file.is_file() and file.relative_to(root).parts[0] not in own
    }


def mutant(function: str, old: str, new: str, place: int = 0) -> Any:
    return importlib.import_module("mutant_anchors").Mutant("shop/prices.py", function, old, new, place)


def recorded(root: Path, *arguments: str) -> Any:
    """The recording of the project's tests; one of them fails, which is the exit code."""
    coverage = importlib.import_module("mutant_coverage")
    assert coverage.main(["-q", *arguments], root, places=["shop/"]) == 1
    return importlib.import_module("mutant_tests").Recording(root, root / ".mutants" / "recording")


TOTAL, CHEAPEST, COUNTDOWN = (f"tests/test_prices.py::test_{name}" for name in ("total", "cheapest", "countdown"))
TAXES = "tests/test_prices.py::test_taxes"
ADDING = {TOTAL, f"{TAXES}[0]", f"{TAXES}[3]"}
WORD, CHEAP = (f"tests/test_words.py::test_it_is_{name}" for name in ("a_word", "cheap"))


@pytest.mark.integration
def test_those_who_reach_a_line_are_asked_shared_fixtures_and_workers_included(
    shop: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recording = recorded(shop, "-n", "2", "--dist", "loadfile")
    assert "not recorded, since it failed: tests/test_prices.py::test_fails_already" in capfd.readouterr().out
    assert set(recording.tests_for(mutant("total", "sum", "max"), SHOP)) == ADDING
    # The fixture's lines count for both of its tests, though they ran once; those that did not run count for nobody.
    assert set(recording.tests_for(mutant("described", "9", "0"), SHOP)) == {WORD, CHEAP}
    assert set(recording.tests_for(mutant("described", "cheap", "dear"), SHOP)) == {WORD, CHEAP}
    assert recording.tests_for(mutant("described", '"dear"', '""'), SHOP) == []
    assert recording.tests_for(mutant("unsold", "0", "1"), SHOP) == []
    # What runs at import is asked of all that reach the module; a function's head of all that reach the function.
    assert set(recording.tests_for(mutant("", "A shop", "No shop"), SHOP)) == {
        *ADDING,
        CHEAPEST,
        COUNTDOWN,
        WORD,
        CHEAP,
    }
    assert set(recording.tests_for(mutant("total", "(prices, tax)", "(tax, prices)"), SHOP)) == ADDING
    # So is what runs where a module without functions is imported, of all that reach one beside it.
    beside = replace(mutant("", "A shop", "No shop"), module="shop/__init__.py")
    assert {*ADDING, WORD, CHEAP} < set(recording.tests_for(beside, '"""A shop."""\n'))


@pytest.mark.integration
def test_a_recording_survives_moves_and_says_what_is_old(shop: Path) -> None:
    recording = recorded(shop)
    moved = SHOP.replace("def total", "PLACE = 'town'\n\n\ndef total")
    assert recording.tests_for(mutant("described", '"dear"', '""'), moved) == []
    assert recording.tests_for(mutant("cheapest", "min", "max"), moved) == [CHEAPEST]
    # The function is another one now: all who reached it are asked, whatever the line.
    rewritten = SHOP.replace("price > 9", "price >= 10")
    assert set(recording.tests_for(mutant("described", '"dear"', '""'), rewritten)) == {WORD, CHEAP}
    (shop / "tests" / "test_words.py").write_text(TESTS["test_words.py"] + "\n")
    (shop / "tests" / "test_prices.py").unlink()
    again = importlib.import_module("mutant_tests").Recording(shop, shop / ".mutants" / "recording")
    assert (again.changed, again.gone) == (["tests/test_words.py"], ["tests/test_prices.py"])
    assert again.unrecorded(["tests/test_words.py", "tests/test_new.py"]) == ["tests/test_new.py"]


@pytest.mark.parametrize("part", ["tests/test_prices.py::test_total", "-ktotal"])
def test_part_of_a_test_file_is_not_recorded_in_place_of_the_whole(part: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="whole test files"):
        importlib.import_module("mutant_coverage").main([part], tmp_path)


def test_a_shared_fixture_takes_its_seconds_of_each_test_that_needs_it(tmp_path: Path) -> None:
    recorder = importlib.import_module("mutant_coverage").Recorder(tmp_path, tmp_path, [])
    run, files = (" shares run", "run"), (" shares files", "files")
    first, second, third = (f"tests/test_runs.py::test_{name}" for name in ("first", "second", "third"))
    # The first test waited for both fixtures, which took 5 and 2 of its 8 seconds.
    recorder.fixtures = {(name, ""): context for context, name in (run, files)}
    recorder.setup_seconds = {run[0]: 5.0, files[0]: 2.0}
    recorder.shared = {first: [run[0], files[0]], second: [], third: []}
    names = {first: {"run", "files"}, second: {"run", "files"}, third: {"files"}}
    recorder.fixtures_of = {test: frozenset(found) for test, found in names.items()}
    recorder.seconds.update({first: 8.0, second: 1.0, third: 0.5})
    assert [recorder.seconds_of(test) for test in (first, second, third)] == [8.0, 8.0, 2.5]


def test_fast_tests_come_first_and_those_of_a_file_together(tmp_path: Path) -> None:
    recording = importlib.import_module("mutant_tests").Recording(tmp_path, tmp_path)
    recording.seconds = {"b::1": 0.01, "a::2": 0.05, "b::3": 0.02, "a::4": 0.5, "a::5": 20.0, "b::6": 3.0}
    assert recording.in_order(["a::5", *recording.seconds]) == ["a::2", "b::1", "b::3", "a::4", "b::6", "a::5"]


class Asking:
    """Asks about mutants of the project, each of the tests given with it."""

    def __init__(self, root: Path, n_benches: int) -> None:
        self.tools = importlib.import_module("mutant_verdicts")
        folders = [root / ".mutants" / "copies" / str(number) for number in range(n_benches)]
        self.benches = [self.tools.Bench(root, folder, ["shop"]) for folder in folders]
        self.file = root / ".mutants" / "verdicts.jsonl"
        self.asked: list[str] = []

    def __call__(
        self,
        *questions: tuple[Any, list[str]],
        tree: str = "tree",
        again: bool = False,
        limit_s: float = 60.0,
        on_row: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> list[dict[str, Any]]:
        """The rows, in the order of the questions; ``asked`` names the functions that were asked about now."""
        given = [self.tools.Question(item, tuple(tests)) for item, tests in questions]
        verdicts = self.tools.Verdicts(self.file, tree, again=again)
        self.asked = []

        def hear(row: dict[str, Any]) -> None:
            self.asked.append(row["function"])
            on_row(row)

        self.tools.ask_all(given, verdicts, self.benches, limit_s=limit_s, on_row=hear)
        return [verdicts.rows[item.key] for item in given]


@pytest.fixture
def asking(shop: Path) -> Iterator[Asking]:
    """On one bench, so that mutants are asked one after the other."""
    asking = Asking(shop, n_benches=1)
    yield asking
    for bench in asking.benches:
        bench.server.end()


@pytest.mark.integration
def test_one_is_caught_one_survives_one_is_reached_by_nobody_and_one_is_gone(shop: Path, asking: Asking) -> None:
    before = texts(shop)
    caught, survived, unreached, gone = asking(
        (mutant("total", "+ tax", "- tax"), [CHEAPEST, TOTAL]),
        (mutant("cheapest", "min", "max"), [CHEAPEST]),
        (mutant("unsold", "0", "1"), []),
        (mutant("total", "no such text", ""), [TOTAL]),
    )
    assert (caught["verdict"], caught["caught_by"], caught["passed"]) == ("caught", TOTAL, 1)
    assert caught["why"] == "assert 0 == 6"  # 1 + 2 - 3, in the first line of pytest's explanation
    assert (survived["verdict"], survived["passed"], survived["asked"]) == ("survived", 1, 1)
    assert [unreached["verdict"], gone["verdict"]] == ["not reached", "gone"]
    assert texts(shop) == before


@pytest.mark.integration
def test_a_test_named_without_parameters_stands_for_all_of_them(asking: Asking) -> None:
    first, all_of_them = asking(
        (mutant("total", "+ tax", "- tax"), [f"{TAXES}[0]"]),
        (mutant("total", "+ tax", "* 1"), [TAXES]),
    )
    assert (first["verdict"], first["passed"]) == ("survived", 1)  # 0 + 0 is 0 - 0
    assert (all_of_them["verdict"], all_of_them["passed"]) == ("caught", 1)
    assert all_of_them["caught_by"] == f"{TAXES}[3]"


@pytest.mark.integration
def test_one_that_never_ends_is_ended_and_not_caught(asking: Asking) -> None:
    (row,) = asking((mutant("countdown", "n -= 1", "n -= 0"), [TOTAL, COUNTDOWN]), limit_s=4)
    assert (row["verdict"], row["asked"]) == ("timed out", 2)
    assert row["seconds"] >= 4


@pytest.mark.integration
def test_code_that_can_no_longer_be_imported_is_caught(asking: Asking) -> None:
    (row,) = asking((mutant("", '"""A shop."""', "import no_such_module"), [TOTAL]))
    assert (row["verdict"], row["caught_by"]) == ("caught", "tests/test_prices.py")


@pytest.mark.integration
def test_fixtures_that_can_no_longer_be_imported_have_caught_it(shop: Path, asking: Asking) -> None:
    (shop / "conftest.py").write_text('pytest_plugins = ("shop.fixtures",)\n')
    (shop / "shop" / "fixtures.py").write_text("from shop.prices import described\n\nWORD = described(1)\n")
    again = Asking(shop, n_benches=1)
    caught, survived = again(
        (mutant("described", '"cheap"', "cheap"), [TOTAL]), (mutant("described", '"dear"', "dear"), [TOTAL])
    )
    assert (caught["verdict"], caught["passed"], survived["verdict"]) == ("caught", 0, "survived")
    again.benches[0].server.end()


@pytest.mark.integration
def test_a_change_of_the_same_length_after_another_is_seen(asking: Asking) -> None:
    # Python takes a compiled file for that of its source by the second and the length.
    rows = asking(*((mutant("total", "+ tax", f"{sign} tax"), [TOTAL]) for sign in "-*/%"))
    assert [row["why"] for row in rows] == [f"assert {found} == 6" for found in ("0", "9", "1.0", "0")]


@pytest.mark.integration
def test_what_was_asked_before_a_stop_is_not_asked_again(shop: Path, asking: Asking) -> None:
    questions = [
        (mutant("total", "+ tax", "- tax"), [TOTAL]),
        (mutant("cheapest", "min", "max"), [CHEAPEST]),
        (mutant("countdown", "steps = 0", "steps = 1"), [COUNTDOWN]),
    ]

    def stop(row: dict[str, Any]) -> None:
        if row["function"] == "cheapest":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asking(*questions, on_row=stop)
    lines = asking.file.read_text(encoding="utf-8").splitlines(keepends=True)
    assert [json.loads(line)["function"] for line in lines[1:]] == ["total", "cheapest"]

    # A line that a kill cut off counts as not written.
    asking.file.write_text("".join(lines[:-1]) + lines[-1][:20], encoding="utf-8")
    resumed = Asking(shop, n_benches=2)
    assert [row["verdict"] for row in resumed(*questions)] == ["caught", "survived", "caught"]
    assert sorted(resumed.asked) == ["cheapest", "countdown"]

    # Once more what was not caught; and, where the tree is another, everything.
    resumed(*questions, again=True)
    assert resumed.asked == ["cheapest"]
    resumed(*questions, tree="another")
    assert sorted(resumed.asked) == ["cheapest", "countdown", "total"]
    for bench in resumed.benches:
        bench.server.end()


@pytest.mark.integration
def test_a_test_that_fails_without_the_change_has_caught_nothing(asking: Asking) -> None:
    rows = asking(
        (mutant("total", "+ tax", "- tax"), [TOTAL]),
        (mutant("total", "+ tax", "* tax"), ["tests/test_prices.py::test_fails_already"]),
    )
    assert [row["verdict"] for row in rows] == ["caught", "caught"]
    assert asking.tools.check_without_changes(rows, asking.benches[0]) == [rows[1]]


# -- what is drawn -----------------------------------------------------------------------------------------------------

LITTLE = '''\
"""Three words here."""

__all__ = ["small"]


def small(a: int = 1, *rest: str) -> int:
    """More than three words."""
    if a <= 2 and len(rest) < 1:
        raise ValueError(f"{a + 1} is too small, " + str(a * 2))
    print("small", a - 1)
    return a


if __name__ == "__main__":
    small(7)
'''


def drawn(root: Path, text: str, seed: int = 0) -> list[Any]:
    sites = importlib.import_module("mutant_sites")
    (root / "little.py").write_text(text, encoding="utf-8")
    return list(sites.draw(sites.find_sites(root, ["little.py"]).sites, seed=seed))


def test_what_no_test_could_notice_is_not_drawn(tmp_path: Path) -> None:
    expected = {
        "def small(a: int = 2, *rest: str) -> int:",
        "if a < 2 and len(rest) < 1:",
        "if a <= 3 and len(rest) < 1:",
        "if a <= 2 or len(rest) < 1:",
        "if a <= 2 and len(rest) <= 1:",
        "if a <= 2 and len(rest) < 2:",
    }
    found = drawn(tmp_path, LITTLE)
    assert {item.new.strip() for item in found} == expected
    assert {item.function for item in found} == {"small"}
    sites = importlib.import_module("mutant_sites")
    left_out = sites.find_sites(tmp_path, ["little.py"]).left_out
    assert {"words for people", "__all__", "type checker and command line", "docstrings"} >= set(left_out) - {
        "len and isinstance"
    }
    assert left_out["__all__"] >= 1 and left_out["type checker and command line"] >= 1


def test_a_seed_decides_the_order_and_a_line_that_stands_twice_is_told_apart(tmp_path: Path) -> None:
    text = "def twice(a):\n    a += 1\n    a += 1\n    return a\n"
    found = drawn(tmp_path, text)
    assert drawn(tmp_path, text) == found
    assert any(drawn(tmp_path, text, seed) != found for seed in range(1, 5))
    anchors = importlib.import_module("mutant_anchors")
    made = sorted(anchors.changed(item, text) for item in found)
    lines = ["    a += 2\n", "    a -= 1\n", "    a = 1\n"]
    once = [f"def twice(a):\n{line}    a += 1\n    return a\n" for line in lines]
    assert made == sorted([*once, *(f"def twice(a):\n    a += 1\n{line}    return a\n" for line in lines)])


def test_what_only_the_type_checker_reads_and_a_guard_of_ours_are_not_drawn(tmp_path: Path) -> None:
    found = drawn(tmp_path, "def pairs(a, b):\n    return zip(a, cast(int, b), strict=True)\n")
    assert {item.new.strip().removeprefix("return ") for item in found} == {
        "zip(None, cast(int, b), strict=True)",
        "zip(a, None, strict=True)",
        "zip(a, cast(int, None), strict=True)",
        "zip(cast(int, b), strict=True)",
        "zip(a, strict=True)",
        "zip(a, cast(int, ), strict=True)",
    }
    found = drawn(tmp_path, "def load(a):\n    return take(a, strict=True)\n")  # another's strict= may matter
    assert "return take(a, strict=False)" in {item.new.strip() for item in found}


def test_other_code_leaves_the_draw_as_it_is(tmp_path: Path) -> None:
    text = "def small(a):\n    return a + 1\n\n\ndef large(a):\n    return a * 100 - 7\n"
    before = drawn(tmp_path, text)
    after = drawn(tmp_path, f"def new(a):\n    return a <= 3 or a == 4\n\n\n{text}")
    assert [item for item in after if item.function != "new"] == before and len(after) > len(before) > 3


@pytest.mark.integration
def test_the_command_draws_asks_and_judges(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mutants = importlib.import_module("mutants")
    with pytest.raises(SystemExit, match="make mutants-coverage"):
        mutants.main(["--modules", "shop/", "--count=3"], shop)
    recorded(shop)
    before = texts(shop)
    capfd.readouterr()
    assert mutants.main(["--modules", "shop/", "--count=4", "--limit-s=30"], shop) == 1
    said = capfd.readouterr().out
    first = [json.loads(line) for line in (shop / ".mutants" / "verdicts.jsonl").read_text().splitlines()[1:]]
    assert len(first) == 4
    caught = sum(row["verdict"] == "caught" for row in first)
    assert f"share caught {25 * caught:.1f} % of 4" in said
    assert mutants.main(["--modules", "shop/", "--count=4", "--limit-s=30"], shop) == 1
    assert "4 mutants, of which 4 have a verdict already" in capfd.readouterr().out
    assert texts(shop) == before
